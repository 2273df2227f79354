"""Snapshots in the engine: held still or not, cut short and asked again, by a QEMU that only answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from atoll.base import ids
from atoll.base.errors import AtollError, Conflict, NotFound, Unavailable
from atoll.domain.layers import layer_id
from atoll.engine.agent import Frozen, FrozenGuest, GuestAgent, GuestFailed, Thawed
from atoll.engine.disks import Disks
from atoll.engine.launch import Process
from atoll.engine.records import Intent
from atoll.engine.saved import SavedMemory
from atoll.engine.snapshots import NOT_ENDED
from atoll.rpc.messages import GIB, DropSnapshot, Identity, RollBack, TakeSnapshot, VmState
from framework.lone_vm import VM, LoneVm, lone_vm
from framework.templates import image_disk

DIGEST = "0123456789abcdef"
OTHER = "vm-000000000001"
SAME = Identity(hostname="web", fresh=False)
PAUSED, STOPPED, RUNNING = VmState.PAUSED, VmState.STOPPED, VmState.RUNNING


class Guest(GuestAgent):
    """Freezes and thaws as it is told to; `said` is what it was asked, `late` after QEMU's end."""

    def __init__(self, qemu: Process) -> None:
        super().__init__(Path("/nonexistent"))
        self._qemu = qemu
        self.freezes = True
        self.thawed: Thawed | None = Thawed(mounts=["/"], expired=False)
        self.said: list[str] = []

    async def freeze(self, *, held_seconds: float, seconds: float) -> Frozen:
        self.said.append("freeze")
        if not self.freezes:
            raise GuestFailed("guest agent: freeze: the VM says: no")
        return Frozen(mounts=["/"])

    async def thaw(self, *, seconds: float) -> Thawed:
        self.said.append("thaw" if self._qemu.alive() else "late thaw")
        if self.thawed is None:
            raise GuestFailed("guest agent: thaw: the VM says: no")
        return self.thawed


@dataclass(kw_only=True)
class Node:
    """One running VM with a disk of one layer."""

    world: LoneVm
    disks: Disks
    guest: Guest

    async def take(self, **changes: object) -> str:
        """A snapshot, taken."""
        request = TakeSnapshot(op=ids.new("op"), vm=VM, snapshot=ids.new("snap"))
        request = request.model_copy(update=changes)
        await self.world.service.take_snapshot(request)
        return request.snapshot

    def roll_back(self, snapshot: str, identity: Identity | None = None) -> RollBack:
        """A request; not yet asked."""
        op, keep = ids.new("op"), ids.new("snap")
        return RollBack(op=op, vm=VM, snapshot=snapshot, keep=keep, identity=identity)

    def become(self, state: VmState, **changes: object) -> None:
        """Without a process, by its record."""
        self.world.service.machines.clear()
        off = {"state": state, "pid": None, "pid_started": None, **changes}
        record = self.world.service.record(VM).model_copy(update=off)
        self.world.service._records.put(record)

    @property
    def problem(self) -> str:
        return self.world.service.record(VM).problem

    @property
    def chain(self) -> list[int]:
        """Numbers of the VM's layers, head first."""
        graph = self.disks._pool.graph
        return [layer.seq for layer in graph.chain(graph.head(VM).id)][:-1]

    @property
    def commands(self) -> list[str]:
        return [each["execute"] for each in self.world.monitor.heard]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with lone_vm(tmp_path) as world:
        disks, guest = world.service._disks, Guest(world.machine.process)
        image = tmp_path / "image.qcow2"
        image.write_bytes(image_disk())
        await disks.add_base(DIGEST, image)
        for vm in (VM, OTHER):
            parent = disks.layer_of_image(DIGEST)
            await disks.create(vm, "acct-a", parent=parent, size_bytes=GIB)
        world.monitor.answers["query-named-block-nodes"] = [
            {"node-name": f"{layer_id(VM, n)}.f", "file": f"/dev/fdset/{n}", "drv": "file"}
            for n in range(1, 9)
        ]
        world.monitor.answers["query-block"] = [{"inserted": {"node-name": layer_id(VM, 1)}}]
        await world.watch()
        world.machine.agent = guest
        yield Node(world=world, disks=disks, guest=guest)


# -- taking


async def test_a_running_vm_is_held_still_at_the_switch_and_pinned_after_it(node: Node) -> None:
    request = TakeSnapshot(op=ids.new("op"), vm=VM, snapshot=ids.new("snap"))
    taken = await node.world.service.take_snapshot(request)
    assert (taken.crash_consistent, taken.vm.state) == (False, RUNNING)
    assert node.guest.said == ["freeze", "thaw"]
    assert node.commands.count("blockdev-snapshot") == 1
    assert (node.chain, node.disks.layer_of_snapshot(VM, request.snapshot)) == (
        [2, 1],
        layer_id(VM, 1),
    )
    assert await node.world.service.take_snapshot(request) == taken


@pytest.mark.parametrize(
    ("freezes", "thawed"),
    [
        (False, Thawed(mounts=[], expired=False)),
        (False, None),
        (True, Thawed(mounts=["/"], expired=True)),
        (True, Thawed(mounts=[], expired=False)),
        (True, None),
    ],
)
async def test_a_guest_that_is_not_held_costs_its_consistency_alone(
    node: Node, freezes: bool, thawed: Thawed | None
) -> None:
    node.guest.freezes, node.guest.thawed = freezes, thawed
    request = TakeSnapshot(op=ids.new("op"), vm=VM, snapshot=ids.new("snap"))
    assert (await node.world.service.take_snapshot(request)).crash_consistent
    assert node.disks.has_snapshot(VM, request.snapshot)
    assert node.guest.said == ["freeze", "thaw"]


async def test_a_guest_that_says_nothing_is_unavailable_and_no_defect(tmp_path: Path) -> None:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    path = tmp_path / "agent.sock"
    async with await asyncio.start_unix_server(listen, path):
        agent = GuestAgent(path)
        guest = FrozenGuest(agent, held_seconds=1, seconds=0.1)
        with pytest.raises(Unavailable):
            await guest.__aenter__()
        assert guest.held is False
        await agent.close()


async def test_a_switch_that_fails_leaves_nothing(node: Node) -> None:
    node.world.monitor.refused.add("blockdev-snapshot")
    request = TakeSnapshot(op=ids.new("op"), vm=VM, snapshot=ids.new("snap"))
    with pytest.raises(AtollError):
        await node.world.service.take_snapshot(request)
    assert node.guest.said == ["freeze", "thaw"]
    assert (node.chain, node.disks.has_snapshot(VM, request.snapshot)) == ([1], False)
    assert node.world.service.record(VM).intent is None
    node.world.monitor.refused.clear()
    assert not (await node.world.service.take_snapshot(request)).crash_consistent


async def test_what_is_kept_is_not_taken_again_and_the_lesser_is_said_of_it(node: Node) -> None:
    snapshot = await node.take()
    layer = node.disks.layer_of_snapshot(VM, snapshot)
    request = TakeSnapshot(op=ids.new("op"), vm=VM, snapshot=snapshot)
    assert (await node.world.service.take_snapshot(request)).crash_consistent
    assert (node.disks.layer_of_snapshot(VM, snapshot), node.chain) == (layer, [2, 1])
    assert node.guest.said == ["freeze", "thaw"]


async def test_what_is_kept_as_it_is_is_not_taken_and_no_guest_is_asked(node: Node) -> None:
    async def take() -> bool:
        request = TakeSnapshot(
            op=ids.new("op"), vm=VM, snapshot=ids.new("snap"), unless_unchanged=True
        )
        taken = await node.world.service.take_snapshot(request)
        assert await node.world.service.take_snapshot(request) == taken
        assert node.disks.has_snapshot(VM, request.snapshot) is not taken.unchanged
        return not taken.unchanged

    assert await take(), "nothing of it is kept"
    said, commands = list(node.guest.said), list(node.commands)
    assert not await take()
    assert (node.guest.said, node.commands, node.chain) == (said, commands, [2, 1])
    assert node.world.service.record(VM).intent is None
    _written(node, 2)
    assert await take()
    other = await node.take()
    for snapshot in await node.disks.snapshots(VM):
        if snapshot != other:
            await node.disks.drop_snapshot(VM, snapshot)
    assert not await take(), "an older one would not do"
    await node.disks.drop_snapshot(VM, other)
    assert await take()
    assert node.chain == [5, 4, 3, 2, 1]


@pytest.mark.parametrize("what", ["larger", "gone", "another's"])
async def test_in_doubt_it_is_changed(node: Node, what: str) -> None:
    node.become(STOPPED)
    await node.take()
    if what == "larger":
        await node.disks.drive(VM, size_bytes=2 * GIB)
    elif what == "gone":
        await node.disks.drive(VM)
        node.disks._pool.path(layer_id(VM, 2)).unlink()
    else:
        await node.disks.drop_snapshot(VM, *await node.disks.snapshots(VM))
        await node.disks.keep_layer(VM, "tmpl-000000000001")
    assert await node.disks.is_kept(VM) is False


def _written(node: Node, seq: int) -> None:
    """As by QEMU: a cluster for a table, at the end of the file."""
    with node.disks._pool.path(layer_id(VM, seq)).open("ab") as file:
        file.write(bytes(1 << 17))


@pytest.mark.parametrize(
    ("state", "problem", "is_crash"),
    [(STOPPED, "", False), (STOPPED, "qemu ended: killed", True), (PAUSED, "", True)],
)
async def test_a_vm_without_a_process(
    node: Node, state: VmState, problem: str, is_crash: bool
) -> None:
    node.become(state, problem=problem)
    for number in (1, 2):
        request = TakeSnapshot(op=ids.new("op"), vm=VM, snapshot=ids.new("snap"))
        taken = await node.world.service.take_snapshot(request)
        assert (taken.vm.state, taken.crash_consistent) == (state, is_crash)
        assert node.disks.layer_of_snapshot(VM, request.snapshot) == layer_id(VM, number)
    assert node.problem == problem


async def test_a_vm_that_cannot_have_a_snapshot(node: Node) -> None:
    for state, newborn in ((STOPPED, True), (VmState.STARTING, False)):
        node.become(state, newborn=newborn)
        with pytest.raises(Conflict):
            await node.take()
    assert node.chain == [1]


# -- rolling back


async def test_a_vm_is_ended_while_it_is_held(node: Node) -> None:
    snapshot = await node.take()
    request = node.roll_back(snapshot)
    node.guest.said.clear()
    done = await node.world.service.roll_back(request)
    assert node.guest.said == ["freeze", "late thaw"]
    assert (done.vm.state, done.vm.problem, done.crash_consistent) == (STOPPED, "", False)
    assert (node.chain, node.world.service.machines) == ([3, 1], {})
    assert node.disks.layer_of_snapshot(VM, request.keep) == layer_id(VM, 2)
    assert await node.world.service.roll_back(request) == done
    await node.world.service.roll_back(node.roll_back(request.keep))
    assert node.chain == [4, 2, 1]


async def test_a_vm_that_is_not_held_is_ended_all_the_same(node: Node) -> None:
    snapshot = await node.take()
    node.guest.freezes = False
    done = await node.world.service.roll_back(node.roll_back(snapshot))
    assert (done.vm.state, done.crash_consistent, node.chain) == (STOPPED, True, [3, 1])


async def test_a_vm_that_was_held_too_long_may_have_let_go(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = await node.take()
    monkeypatch.setattr("atoll.engine.capture.FREEZE_S", 0.0)
    assert (await node.world.service.roll_back(node.roll_back(snapshot))).crash_consistent


async def test_an_unknown_snapshot_changes_nothing(node: Node) -> None:
    before = node.world.service.record(VM)
    for request in (node.roll_back(ids.new("snap")), node.roll_back(ids.new("snap"), SAME)):
        with pytest.raises(NotFound):
            await node.world.service.roll_back(request)
    assert node.world.machine.process.alive()
    assert (node.world.service.record(VM), node.guest.said) == (before, [])


async def test_a_vm_that_does_not_boot_is_stopped_and_says_why(node: Node) -> None:
    request = node.roll_back(await node.take(), SAME)
    done = await node.world.service.roll_back(request)
    assert (done.vm.state, done.cold_booted, node.chain) == (STOPPED, False, [3, 1])
    assert done.vm.problem.startswith("rolled back, but it does not start: ")
    assert node.problem == done.vm.problem


async def test_saved_memory_goes_for_it_fits_no_other_disk(node: Node) -> None:
    snapshot = await node.take()
    node.become(PAUSED)
    memory = SavedMemory(node.world.service._records.folder(VM))
    memory._folder.mkdir()
    (memory._folder / "meta.json").touch()
    done = await node.world.service.roll_back(node.roll_back(snapshot))
    assert (done.vm.state, done.crash_consistent, memory.complete) == (STOPPED, True, False)


async def test_a_rollback_that_failed_is_ended_by_asking_again(node: Node) -> None:
    request = node.roll_back(await node.take())
    in_the_way = node.disks._pool.temporary(layer_id(VM, 3))
    in_the_way.mkdir()
    with pytest.raises(OSError, match="director"):
        await node.world.service.roll_back(request)
    assert (node.world.state, node.problem, node.chain) == (STOPPED, NOT_ENDED, [2, 1])
    assert node.disks.has_snapshot(VM, request.keep)
    in_the_way.rmdir()
    done = await node.world.service.roll_back(request)
    assert (done.vm.problem, done.crash_consistent, node.chain) == ("", True, [3, 1])


@pytest.mark.parametrize("steps", [0, 1, 2])
async def test_a_rollback_that_a_crash_cut_short(node: Node, steps: int) -> None:
    """With its process gone, and this many of the steps on the disk done."""
    snapshot = await node.take()
    request = node.roll_back(snapshot)
    intent = Intent(op=request.op, kind="rollback")
    node.become(RUNNING, intent=intent, problem=NOT_ENDED)
    for step in node.disks.plan_rollback(VM, snapshot, request.keep)[:steps]:
        node.disks._pool.apply(step)
    await node.world.recovery._guarded(node.world.service.record(VM))
    assert (node.world.state, node.problem) == (STOPPED, NOT_ENDED)
    done = await node.world.service.roll_back(request)
    assert (done.vm.problem, done.crash_consistent, node.chain) == ("", True, [3, 1])


# -- letting go


async def test_a_dropped_snapshot_takes_what_only_it_kept(node: Node) -> None:
    first = await node.take()
    request = node.roll_back(first)
    await node.world.service.roll_back(request)
    for snapshot in (request.keep, first, first):
        op = ids.new("op")
        await node.world.service.drop_snapshot(DropSnapshot(op=op, vm=VM, snapshot=snapshot))
        assert not node.disks.has_snapshot(VM, snapshot)
    assert node.chain == [3, 1]
    assert layer_id(VM, 2) not in node.disks._pool.graph.layers


async def test_snapshots_are_no_templates_and_another_vms_are_left_alone(node: Node) -> None:
    snapshot = await node.take()
    assert node.disks.template_pins() == frozenset()
    assert not node.disks.has_snapshot(OTHER, snapshot)
    with pytest.raises(NotFound):
        node.disks.layer_of_snapshot(OTHER, snapshot)
    with pytest.raises(Conflict):
        await node.disks.drop_snapshot(OTHER, snapshot)
    with pytest.raises(Conflict):
        await node.disks.snapshot(OTHER, snapshot, None)
    await node.disks.reconcile([VM])
    assert node.disks.has_snapshot(VM, snapshot)
    await node.disks.reconcile([OTHER])
    assert not node.disks.has_snapshot(VM, snapshot)
    assert VM not in node.disks._pool.graph.vms()
