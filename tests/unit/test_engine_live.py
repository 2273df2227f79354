"""Live snapshots in the engine, of paused VMs: whose memory is what, and what a crash leaves of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from atoll.base import ids
from atoll.base.errors import Conflict
from atoll.domain.layers import LayerId
from atoll.engine.qemu.machine import Saved
from atoll.engine.qemu.memory import PAGE, Pages, Run
from atoll.engine.records import Intent, Record
from atoll.engine.saved import SavedMemory, SnapshotMemory, live_snapshots
from atoll.engine.snapshots import NOT_ENDED
from atoll.rpc.messages import DropSnapshot, RollBack, TakeSnapshot, VmState
from framework.templates import GIB, World, world

PAUSED, STOPPED = VmState.PAUSED, VmState.STOPPED


@dataclass(kw_only=True)
class Node:
    """One paused VM on a template; its memory holds a byte."""

    world: World
    vm: str
    base: str

    @property
    def record(self) -> Record:
        return self.world.service.record(self.vm)

    @property
    def folder(self) -> Path:
        return self.world.records.folder(self.vm)

    def remember(self, value: int) -> None:
        """Pause it with this in its memory."""
        pages = Pages(self.record.spec.memory_bytes)
        pages.runs = [Run(PAGE, PAGE)]
        pages._view[PAGE : 2 * PAGE] = bytes([value]) * PAGE
        memory = SavedMemory(self.folder)
        key = self.world.boot.key(self.record)
        memory.commit(memory.write(Saved(pages=pages, state=b"state"), key))
        self.change(state=PAUSED, base=self.base, problem="")

    @property
    def remembered(self) -> int | None:
        """What it would go on with; None: it would boot."""
        memory = SavedMemory(self.folder)
        if self.record.state is not PAUSED or not memory.complete:
            return None
        assert self.record.base == self.base
        return _value(memory.read(self.world.boot.key(self.record)))

    def kept(self, snapshot: str) -> int:
        """What a snapshot has in its memory."""
        return _value(SnapshotMemory(self.folder, snapshot).read(self.world.boot.key(self.record)))

    def change(self, **changes: object) -> None:
        self.world.records.put(self.record.model_copy(update=changes))

    async def take(self) -> str:
        """A live snapshot."""
        snapshot = ids.new("snap")
        request = TakeSnapshot(op=ids.new("op"), vm=self.vm, snapshot=snapshot, live=True)
        assert (await self.world.service.take_snapshot(request)).memory_kept
        return snapshot

    def roll_back(self, snapshot: str, *, cold: bool = False) -> RollBack:
        """A request; not yet asked."""
        op, keep = ids.new("op"), ids.new("snap")
        return RollBack(op=op, vm=self.vm, snapshot=snapshot, keep=keep, cold=cold)


def _value(saved: Saved) -> int:
    return saved.pages._view[saved.pages.runs[0].offset]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with world(tmp_path) as made:
        template = await made.make()
        record = made.stand(base=template.id, image=made.images.current("debian").digest)
        parent = LayerId(template.layer)
        await made.disks.create(record.vm, "acct-1", parent=parent, size_bytes=8 * GIB)
        node = Node(world=made, vm=record.vm, base=template.id)
        node.remember(1)
        yield node


async def test_its_memory_outlives_the_pause(node: Node) -> None:
    snapshot = await node.take()
    assert (node.remembered, node.kept(snapshot)) == (1, 1)
    SavedMemory(node.folder).forget()
    assert node.kept(snapshot) == 1
    meta = SnapshotMemory(node.folder, snapshot).meta()
    assert (meta.base, meta.disk_bytes, meta.shape.cpus) == (node.base, 8 * GIB, 1)


async def test_a_vm_that_is_off_has_none_to_keep(node: Node) -> None:
    node.change(state=STOPPED)
    with pytest.raises(Conflict, match="no memory"):
        await node.take()
    assert list(live_snapshots(node.folder)) == []


async def test_memory_and_disk_go_back_together_and_what_was_is_kept(node: Node) -> None:
    snapshot = await node.take()
    node.remember(2)
    request = node.roll_back(snapshot)
    done = await node.world.service.roll_back(request)
    assert (done.vm.state, done.memory_kept, done.cold_booted) == (PAUSED, True, False)
    assert (node.remembered, node.kept(request.keep)) == (1, 2)
    assert node.record.forked  # its next start is of memory that has run before
    assert await node.world.service.roll_back(request) == done
    await node.world.service.roll_back(node.roll_back(request.keep))
    assert node.remembered == 2


async def test_of_a_vm_that_was_off_no_memory_is_kept(node: Node) -> None:
    snapshot = await node.take()
    SavedMemory(node.folder).forget()
    node.change(state=STOPPED)
    request = node.roll_back(snapshot)
    done = await node.world.service.roll_back(request)
    assert (done.vm.state, done.memory_kept, node.remembered) == (PAUSED, False, 1)
    assert list(live_snapshots(node.folder)) == [snapshot]


async def test_cold_is_the_disk_alone(node: Node) -> None:
    snapshot = await node.take()
    done = await node.world.service.roll_back(node.roll_back(snapshot, cold=True))
    assert (done.vm.state, done.vm.problem, node.record.base) == (STOPPED, "", None)
    assert (done.memory_kept, node.record.forked) == (True, False)
    assert not SavedMemory(node.folder).complete


@pytest.mark.parametrize(
    ("stage", "remembered"),
    [("given up", 1), ("disk", 1), ("memory", 1), ("resumed", None)],
)
async def test_a_crash_ends_in_the_old_machine_or_a_boot_of_its_disk(
    node: Node, stage: str, remembered: int | None
) -> None:
    """Of a VM that ran; `resumed`: it had run on from there, so the memory is older than the disk."""
    snapshot = await node.take()
    SavedMemory(node.folder).forget()
    request = node.roll_back(snapshot)
    intent = Intent(op=request.op, kind="rollback")
    node.change(state=STOPPED, intent=intent, problem=NOT_ENDED, base=None)
    if stage != "given up":
        node.change(base=node.base, forked=True)
        for step in node.world.disks.plan_rollback(node.vm, snapshot, request.keep):
            node.world.disks._pool.apply(step)
    if stage in ("memory", "resumed"):
        SnapshotMemory(node.folder, snapshot).pause_into(SavedMemory(node.folder))
    if stage == "resumed":
        SavedMemory(node.folder).forget()
        node.change(state=PAUSED, problem="")
    await node.world.recovery._guarded(node.record)
    done = await node.world.service.roll_back(request)
    assert (node.remembered, done.vm.problem) == (remembered, "")
    assert done.vm.state is (STOPPED if remembered is None else PAUSED)
    assert node.record.forked or remembered is None
    assert node.world.disks.has_snapshot(node.vm, request.keep)
    assert node.kept(snapshot) == 1


async def test_memory_of_no_snapshot_is_removed_when_the_engine_starts(node: Node) -> None:
    """It is of a snapshot that was never made, or of a VM that has run on since."""
    snapshot = await node.take()
    loose = SnapshotMemory(node.folder, ids.new("snap"))
    loose.link(SavedMemory(node.folder), SavedMemory(node.folder).meta())
    await node.world.recovery._guarded(node.record)
    assert list(live_snapshots(node.folder)) == [snapshot]


async def test_another_machine_is_refused_and_nothing_changes(node: Node) -> None:
    snapshot = await node.take()
    spec = node.record.spec.model_copy(update={"cpus": 2})
    node.change(state=STOPPED, spec=spec)
    before = node.record
    with pytest.raises(Conflict, match="vCPUs 1, now 2") as refused:
        await node.world.service.roll_back(node.roll_back(snapshot))
    assert "--cold" in str(refused.value.hint)
    assert node.record == before
    await node.world.service.roll_back(node.roll_back(snapshot, cold=True))


@pytest.mark.parametrize("damaged", ["pages", "state", "meta.json", "template"])
async def test_damaged_memory_is_refused_before_anything_ends(node: Node, damaged: str) -> None:
    snapshot = await node.take()
    node.remember(2)
    if damaged == "template":
        await node.world.templates.remove(node.base)
    else:
        path = node.folder / "snapshots" / snapshot / damaged
        data = path.read_bytes()
        path.unlink()  # a paused VM may share it
        path.write_bytes(data[:-1])
    before = node.record
    with pytest.raises(Conflict, match="cannot be used") as refused:
        await node.world.service.roll_back(node.roll_back(snapshot))
    assert "--cold" in str(refused.value.hint)
    assert (node.record, node.remembered) == (before, 2)
    await node.world.service.roll_back(node.roll_back(snapshot, cold=True))
    assert node.record.state is STOPPED


async def test_what_is_dropped_takes_its_memory_with_it(node: Node) -> None:
    snapshot = await node.take()
    drop = DropSnapshot(op=ids.new("op"), vm=node.vm, snapshot=snapshot)
    await node.world.service.drop_snapshot(drop)
    assert (list(live_snapshots(node.folder)), node.remembered) == ([], 1)


async def test_a_template_that_only_a_snapshot_stands_on_stays(node: Node) -> None:
    snapshot = await node.take()
    SavedMemory(node.folder).forget()
    node.change(state=STOPPED, base=None)
    newer = await node.world.make()
    for _ in range(3):
        await node.world.make(used_at=1.0)
    await node.world.pruning.run(newer)
    assert node.base in {meta.id for meta in node.world.templates.all()}
    drop = DropSnapshot(op=ids.new("op"), vm=node.vm, snapshot=snapshot)
    await node.world.service.drop_snapshot(drop)
    await node.world.pruning.run(newer)
    assert node.base not in {meta.id for meta in node.world.templates.all()}
