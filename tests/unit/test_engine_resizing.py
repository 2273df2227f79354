"""Other sizes in the engine: what the record says when, and a disk grown under a QEMU that answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from atoll.base.errors import AtollError, Invalid
from atoll.engine.agent import Grown, GuestAgent, GuestFailed
from atoll.engine.launch import Process
from atoll.engine.launcher import Launcher
from atoll.engine.qemu.machine import Machine
from atoll.engine.qemu.qmp import Qmp
from atoll.engine.records import Intent, Record
from atoll.engine.resizing import SMALLER, Resizing, for_boot, planned
from atoll.rpc.messages import Spec, VmState
from fakes.monitor import Monitor
from framework.templates import GIB, MIB, World, world

VM = "vm-000000000000"
SPEC = Spec(image="debian", cpus=1, memory_bytes=512 * MIB, disk_bytes=8 * GIB)
LARGER = SPEC.model_copy(update={"disk_bytes": 12 * GIB})
RUNNING, PAUSED, STOPPED = VmState.RUNNING, VmState.PAUSED, VmState.STOPPED


def record(state: VmState = RUNNING, **changes: object) -> Record:
    made = Record(
        vm=VM,
        owner="acct-a",
        spec=SPEC,
        state=state,
        hostname="web",
        created_at=1.0,
        login_user="atoll",
        base="tmpl-000000000000",
        intent=Intent(op="op-000000000000", kind="resize"),
    )
    return made.model_copy(update=changes)


def sized(**sizes: int) -> Spec:
    return SPEC.model_copy(update=sizes)


@pytest.mark.parametrize("state", [RUNNING, PAUSED])
def test_a_vm_with_memory_keeps_the_size_it_runs_with_until_it_boots(state: VmState) -> None:
    wanted = sized(cpus=4, memory_bytes=GIB, disk_bytes=12 * GIB)
    resized = planned(record(state), wanted)
    assert resized.spec == LARGER
    assert (resized.next_cpus, resized.next_memory_bytes) == (4, GIB)
    booted = for_boot(resized)
    assert (booted.spec, booted.base) == (wanted, None)
    assert (booted.next_cpus, booted.next_memory_bytes) == (None, None)
    assert for_boot(booted) == booted
    back = planned(resized, LARGER)
    assert (back.spec, back.next_cpus, back.next_memory_bytes) == (LARGER, None, None)


def test_a_stopped_vm_has_its_size_at_once() -> None:
    waiting = record(STOPPED, next_cpus=8)
    assert planned(waiting, sized(cpus=2)).spec.cpus == 2
    assert planned(waiting, sized(cpus=2)).next_cpus is None


@pytest.mark.parametrize(
    "wanted", [sized(disk_bytes=7 * GIB), sized().model_copy(update={"image": "full"})]
)
def test_what_a_vm_cannot_become(wanted: Spec) -> None:
    with pytest.raises(Invalid):
        planned(record(), wanted)


class Guest(GuestAgent):
    """Its file system has these sizes, one after the other, whenever it is asked to grow."""

    def __init__(self, *sizes: int | None) -> None:
        super().__init__(Path("/nonexistent"))
        self._sizes = list(sizes)

    async def grow(self, *, seconds: float) -> Grown:
        size = self._sizes.pop(0) if len(self._sizes) > 1 else self._sizes[0]
        if size is None:
            raise GuestFailed("guest agent: grow: the VM says: no")
        return Grown(fs_bytes=size)


@dataclass(kw_only=True)
class Node:
    """A VM with a disk, and a QEMU of which only the monitor is there."""

    world: World
    machine: Machine
    monitor: Monitor
    resizing: Resizing

    async def change(self, spec: Spec, guest: Guest, before: Record | None = None) -> Record:
        self.machine.agent = guest
        self.world.records.put(before or record())
        return await self.resizing.change(self.kept, spec, self.machine)

    @property
    def kept(self) -> Record:
        found = self.world.records.get(VM)
        assert found is not None
        return found

    @property
    def said(self) -> list[str]:
        """What was done to the disk."""
        words = ("blockdev-snapshot", "block_resize")
        return [each["execute"] for each in self.monitor.heard if each["execute"] in words]


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    monkeypatch.setattr("atoll.engine.resizing.NOTICE_S", 0.3)
    monitor, path = Monitor(), tmp_path / "qmp.sock"
    monitor.answers["query-named-block-nodes"] = [
        {"node-name": f"{VM}-000{n}.f", "file": f"/dev/fdset/{n}", "drv": "file"} for n in (1, 2)
    ]
    monitor.answers["query-block"] = [{"inserted": {"node-name": f"{VM}-0001"}}]
    async with world(tmp_path) as made, monitor.serving(path):
        parent = made.disks.layer_of_image(made.images.current("debian").digest)
        await made.disks.create(VM, "acct-a", parent=parent, size_bytes=SPEC.disk_bytes)
        qmp = Qmp(path)
        await qmp.connect(seconds=5)
        machine = Machine(
            vm=VM,
            run=tmp_path,
            process=Process.__new__(Process),
            launcher=Launcher.__new__(Launcher),
            qmp=qmp,
            agent=Guest(0),
            memory_bytes=SPEC.memory_bytes,
        )
        resizing = Resizing(records=made.records, disks=made.disks)
        yield Node(world=made, machine=machine, monitor=monitor, resizing=resizing)
        await qmp.close()


async def test_a_disk_grows_with_its_file_system(node: Node) -> None:
    resized = await node.change(LARGER, Guest(7 * GIB, 7 * GIB, 7 * GIB, 11 * GIB))
    assert (resized.spec, resized.problem) == (LARGER, "")
    assert node.kept == resized
    assert node.world.disks.size_bytes(VM) == 12 * GIB
    assert node.said == ["blockdev-snapshot", "block_resize"]
    asked = node.monitor.heard[-1]["arguments"]
    assert asked == {"node-name": f"{VM}-0002", "size": 12 * GIB}


async def test_a_file_system_that_stays_small_is_a_problem_that_is_told(node: Node) -> None:
    for guest in (Guest(7 * GIB), Guest(None)):
        resized = await node.change(LARGER, guest)
        assert (resized.spec, resized.problem) == (LARGER, SMALLER)


async def test_cpus_alone_leave_the_disk_alone(node: Node) -> None:
    resized = await node.change(sized(cpus=2), Guest(7 * GIB))
    assert (resized.spec, resized.next_cpus, resized.problem) == (SPEC, 2, "")
    assert node.said == []


async def test_what_a_crash_left_is_brought_to_its_end(node: Node) -> None:
    """The record had it first; the guest may or may not have grown by the time it is asked again."""
    await node.change(LARGER, Guest(7 * GIB, 11 * GIB))
    node.monitor.heard.clear()
    left = record(spec=LARGER, problem=SMALLER)
    for guest in (Guest(11 * GIB), Guest(7 * GIB, 7 * GIB, 11 * GIB)):
        assert (await node.change(LARGER, guest, left)).problem == ""
    assert node.said == ["block_resize", "block_resize"]


async def test_a_disk_that_cannot_grow_is_as_it_was(node: Node) -> None:
    node.monitor.refused.add("blockdev-snapshot")
    with pytest.raises(AtollError):
        await node.change(LARGER, Guest(7 * GIB))
    assert node.kept == record()
    assert node.world.disks.size_bytes(VM) == SPEC.disk_bytes
    assert node.world.disks.depth(VM) == 2
    node.monitor.refused.clear()
    assert (await node.change(LARGER, Guest(7 * GIB, 11 * GIB))).spec == LARGER


async def test_a_disk_that_grew_before_the_failure_is_what_the_record_says(node: Node) -> None:
    node.monitor.refused.add("block_resize")
    node.monitor.answers["query-block"] = [{"inserted": {"node-name": f"{VM}-0002"}}]
    with pytest.raises(AtollError):
        await node.change(LARGER, Guest(7 * GIB))
    assert node.kept.spec.disk_bytes == node.world.disks.size_bytes(VM) == 12 * GIB
    node.monitor.refused.clear()
    assert (await node.change(LARGER, Guest(11 * GIB), node.kept)).problem == ""
    assert node.said[-1] == "block_resize"


async def test_a_disk_of_a_vm_that_does_not_run_grows_when_it_starts(node: Node) -> None:
    disks = node.world.disks
    node.world.records.put(record(PAUSED))
    resized = await node.resizing.change(node.kept, LARGER, None)
    assert (resized.spec, disks.size_bytes(VM)) == (LARGER, 8 * GIB)
    for _ in range(2):
        (await disks.drive(VM, size_bytes=resized.spec.disk_bytes)).close()
        assert disks.size_bytes(VM) == 12 * GIB
    (await disks.drive(VM, size_bytes=8 * GIB)).close()
    assert (disks.size_bytes(VM), disks.depth(VM)) == (12 * GIB, 3)
