"""What every engine must do, whatever its VMs are made of: the promises of `atoll.rpc.messages`."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from atoll.base import ids
from atoll.base.aio import TaskGroup, poll
from atoll.base.errors import Conflict, Invalid, NotFound
from atoll.rpc.client import EngineClient
from atoll.rpc.messages import (
    Clone,
    Console,
    Create,
    Delete,
    DropSnapshot,
    Empty,
    Event,
    GetVm,
    Identify,
    Identity,
    Image,
    ListSnapshots,
    ListVms,
    Message,
    Node,
    NodeInfo,
    Outcome,
    Pause,
    Prepare,
    Resize,
    Restart,
    Resume,
    RollBack,
    Sample,
    Samples,
    SampleVms,
    SnapshotList,
    Spec,
    Stat,
    StatVm,
    Stop,
    TakeSnapshot,
    Text,
    Vm,
    Vms,
    VmState,
)

GIB = 1 << 30
MIB = 1 << 20
OWNER = "acct-contract"
ANSWER_S = 300.0  # a cold boot without KVM
NOTICE_S = 30.0  # for what the engine tells by itself
COUNTERS = (
    "cpu_seconds",
    "network_rx_bytes",
    "network_tx_bytes",
    "io_read_bytes",
    "io_write_bytes",
)
DISK = {"depth", "disk_used_bytes"}  # change without a request: layers are counted and merged
NEW = Identity(hostname="contract", fresh=True)
SAME = Identity(hostname="contract", fresh=False)


def op() -> str:
    """The id of another operation."""
    return ids.new("op")


@dataclass(kw_only=True)
class UnderTest:
    """An engine as control sees it, and the VMs that a test makes on it."""

    client: EngineClient
    spec: Spec  # of a size that has a warm template
    kill: Callable[[Vm], None]  # ends the VM's process
    made: list[str] = field(default_factory=list)

    def vm_id(self) -> str:
        """An unused id, cleared away at the end."""
        self.made.append(ids.new("vm"))
        return self.made[-1]

    async def ask(self, request: Message) -> Outcome:
        """The answer to a request that changes a VM."""
        return await self.client.call(request, Outcome, seconds=ANSWER_S)

    async def get(self, vm: str) -> Vm:
        """What it says of one VM."""
        return await self.client.call(GetVm(vm=vm), Vm, seconds=ANSWER_S)

    async def listed(self) -> dict[str, Vm]:
        """What it says of all."""
        answer = await self.client.call(ListVms(), Vms, seconds=ANSWER_S)
        return {vm.vm: vm for vm in answer.vms}

    async def stat(self, vm: str) -> Stat:
        """What one VM uses."""
        return await self.client.call(StatVm(vm=vm), Stat, seconds=ANSWER_S)

    async def kept(self, vm: str) -> set[str]:
        """Its snapshots."""
        asked = ListSnapshots(vm=vm)
        answer = await self.client.call(asked, SnapshotList, seconds=ANSWER_S)
        return {one.snapshot for one in answer.snapshots}

    async def samples(self) -> dict[str, Sample]:
        """The counters of those that run."""
        answer = await self.client.call(SampleVms(), Samples, seconds=ANSWER_S)
        found = {sample.vm: sample for sample in answer.samples}
        assert len(found) == len(answer.samples)
        return found

    async def console(self, vm: str) -> str:
        """The newest part of its serial log."""
        return (await self.client.call(Console(vm=vm), Text, seconds=ANSWER_S)).text

    async def node(self) -> Node:
        """Facts about the machine."""
        return await self.client.call(NodeInfo(), Node, seconds=ANSWER_S)

    async def prepare(self, image: str) -> Image:
        """An image in the size of `spec`."""
        size = {"cpus": self.spec.cpus, "memory_bytes": self.spec.memory_bytes}
        request = Prepare.model_validate({"op": op(), "image": image, **size})
        return await self.client.call(request, Image, seconds=ANSWER_S)

    async def delete(self, vm: str, *, by: str | None = None) -> None:
        """Ask for its end."""
        await self.client.call(Delete(op=by or op(), vm=vm), Empty, seconds=ANSWER_S)

    def create(self, vm: str, *, image: str | None = None) -> Create:
        """A request; not yet asked."""
        spec = self.spec.model_copy(update={"image": image or self.spec.image})
        return Create(op=op(), vm=vm, owner=OWNER, spec=spec, identity=NEW)

    def clone(self, source: str, vm: str) -> Clone:
        """A request; not yet asked."""
        return Clone(op=op(), source=source, vm=vm, owner=OWNER, identity=NEW)

    def resize(self, vm: Vm, **sizes: int) -> Resize:
        """A request; not yet asked. Without sizes: to be as `vm` says."""
        return Resize(op=op(), vm=vm.vm, spec=vm.spec.model_copy(update=sizes))

    def take(self, vm: str, *, live: bool = False) -> TakeSnapshot:
        """A request, with an id of its own; not yet asked."""
        return TakeSnapshot(op=op(), vm=vm, snapshot=ids.new("snap"), live=live)

    def roll_back(self, vm: str, snapshot: str, identity: Identity | None = None) -> RollBack:
        """A request, with another id to keep under; not yet asked."""
        keep = ids.new("snap")
        return RollBack(op=op(), vm=vm, snapshot=snapshot, keep=keep, identity=identity)

    async def running(self) -> Vm:
        """A new VM."""
        return (await self.ask(self.create(self.vm_id()))).vm

    async def paused(self) -> Vm:
        """A new VM, paused."""
        return (await self.ask(Pause(op=op(), vm=(await self.running()).vm))).vm

    async def killed(self) -> Vm:
        """A new VM whose process ended by itself, once the engine has noticed."""
        vm = await self.running()
        self.kill(vm)

        async def noticed() -> Vm | None:
            now = await self.get(vm.vm)
            return now if now.state is not VmState.RUNNING else None

        return await poll(noticed, seconds=NOTICE_S, what="noticing the end of a process")

    @asynccontextmanager
    async def listening(self, vm: str) -> AsyncIterator[list[Event]]:
        """Events of any VM while the body runs; `vm` is used to find out when they begin."""
        heard: list[Event] = []

        async def listen() -> None:
            async for event in self.client.events():
                heard.append(event)

        async def begun() -> bool | None:
            await self.ask(Identify(op=op(), vm=vm, identity=SAME))
            return True if heard else None

        async with TaskGroup() as group:
            task = group.create_task(listen())
            await poll(begun, seconds=NOTICE_S, what="the first event")
            yield heard
            task.cancel()


@asynccontextmanager
async def under_test(
    client: EngineClient, spec: Spec, kill: Callable[[Vm], None]
) -> AsyncIterator[UnderTest]:
    """An engine for one test; afterwards nothing of the test is on it."""
    engine = UnderTest(client=client, spec=spec, kill=kill)
    try:
        yield engine
    finally:
        for vm in engine.made:
            await engine.delete(vm)
    assert not engine.made or not set(engine.made) & (await engine.listed()).keys()


def same(one: Vm, other: Vm) -> bool:
    """Whether both say the same, but for the disk's layers."""
    return one.model_dump(exclude=DISK) == other.model_dump(exclude=DISK)


def is_off(vm: Vm) -> bool:
    """Neither process nor address."""
    return vm.pid is None and vm.address is None


async def at_once(*jobs: Awaitable[object]) -> list[object]:
    """Results and errors, in order."""
    return list(await asyncio.gather(*jobs, return_exceptions=True))


class EngineContract:
    """Subclassed per engine, with a fixture `engine`."""

    # -- create

    async def test_a_new_vm_runs_and_is_listed(self, engine: UnderTest) -> None:
        vm = engine.vm_id()
        made = await engine.ask(engine.create(vm))
        assert (made.vm.vm, made.vm.owner, made.vm.spec) == (vm, OWNER, engine.spec)
        assert made.vm.state is VmState.RUNNING
        assert ipaddress.IPv4Address(made.vm.address or "").is_private
        assert (made.vm.pid or 0) > 1
        assert (made.vm.warm, made.cold_booted, made.vm.problem) == (True, False, "")
        assert abs(made.vm.created_at - time.time()) < ANSWER_S
        assert same(await engine.get(vm), made.vm)
        assert same((await engine.listed())[vm], made.vm)

    async def test_two_vms_share_no_address(self, engine: UnderTest) -> None:
        first, second = await engine.running(), await engine.running()
        assert first.address != second.address
        assert first.pid != second.pid

    async def test_an_operation_acts_once(self, engine: UnderTest) -> None:
        create = engine.create(engine.vm_id())
        first, second = await at_once(engine.ask(create), engine.ask(create))
        assert isinstance(first, Outcome), first
        assert first == second
        assert await engine.ask(create) == first
        pause = Pause(op=op(), vm=create.vm)
        paused = await engine.ask(pause)
        await engine.ask(Resume(op=op(), vm=create.vm, identity=SAME))
        assert await engine.ask(pause) == paused
        assert await engine.ask(create) == first
        assert (await engine.get(create.vm)).state is VmState.RUNNING

    async def test_an_id_is_taken_by_one_operation(self, engine: UnderTest) -> None:
        vm = engine.vm_id()
        made, refused = sorted(
            await at_once(engine.ask(engine.create(vm)), engine.ask(engine.create(vm))),
            key=lambda answer: isinstance(answer, Conflict),
        )
        assert isinstance(made, Outcome), made
        assert isinstance(refused, Conflict), refused
        with pytest.raises(Conflict):
            await engine.ask(engine.create(vm))
        assert same(await engine.get(vm), made.vm)

    async def test_an_unknown_image_leaves_nothing(self, engine: UnderTest) -> None:
        vm = engine.vm_id()
        with pytest.raises(NotFound):
            await engine.ask(engine.create(vm, image="nosuch"))
        with pytest.raises(NotFound):
            await engine.get(vm)
        assert vm not in await engine.listed()
        assert (await engine.ask(engine.create(vm))).vm.state is VmState.RUNNING

    # -- clone

    async def test_a_clone_of_a_running_vm_runs(self, engine: UnderTest) -> None:
        source, vm = await engine.running(), engine.vm_id()
        made = await engine.ask(engine.clone(source.vm, vm))
        assert (made.vm.vm, made.vm.owner, made.vm.spec) == (vm, OWNER, engine.spec)
        assert (made.vm.state, made.cold_booted) == (VmState.RUNNING, False)
        assert made.vm.address not in (None, source.address)
        assert made.vm.pid not in (None, source.pid)
        assert same(await engine.get(vm), made.vm)
        assert same(await engine.get(source.vm), source)

    async def test_a_clone_of_a_paused_vm_is_paused(self, engine: UnderTest) -> None:
        source, vm = await engine.paused(), engine.vm_id()
        made = (await engine.ask(engine.clone(source.vm, vm))).vm
        assert (made.state, is_off(made)) == (VmState.PAUSED, True)
        assert same(await engine.get(source.vm), source)
        resumed = await engine.ask(Resume(op=op(), vm=vm, identity=NEW))
        assert (resumed.vm.state, resumed.cold_booted) == (VmState.RUNNING, False)
        assert same(await engine.get(source.vm), source)

    async def test_a_clone_needs_a_source_and_an_unused_id(self, engine: UnderTest) -> None:
        vm, there = engine.vm_id(), await engine.running()
        with pytest.raises(NotFound):
            await engine.ask(engine.clone(ids.new("vm"), vm))
        with pytest.raises(NotFound):
            await engine.get(vm)
        for source in (there.vm, (await engine.running()).vm):
            with pytest.raises(Conflict):
                await engine.ask(engine.clone(source, there.vm))
        assert same(await engine.get(there.vm), there)

    async def test_an_operation_that_failed_can_be_asked_again(self, engine: UnderTest) -> None:
        source = engine.vm_id()
        clone = engine.clone(source, engine.vm_id())
        with pytest.raises(NotFound):
            await engine.ask(clone)
        await engine.ask(engine.create(source))
        assert (await engine.ask(clone)).vm.state is VmState.RUNNING

    # -- on and off

    async def test_pause_and_resume(self, engine: UnderTest) -> None:
        vm = (await engine.running()).vm
        paused = await engine.ask(Pause(op=op(), vm=vm))
        assert (paused.vm.state, is_off(paused.vm)) == (VmState.PAUSED, True)
        again = await engine.ask(Pause(op=op(), vm=vm))
        assert same(again.vm, paused.vm)
        resumed = await engine.ask(Resume(op=op(), vm=vm, identity=SAME))
        assert (resumed.vm.state, resumed.vm.warm) == (VmState.RUNNING, True)
        assert not resumed.cold_booted
        assert not is_off(resumed.vm)
        assert same(await engine.get(vm), resumed.vm)
        again = await engine.ask(Resume(op=op(), vm=vm, identity=SAME))
        assert (same(again.vm, resumed.vm), again.cold_booted) == (True, False)

    async def test_a_stopped_paused_vm_has_no_memory(self, engine: UnderTest) -> None:
        vm = (await engine.paused()).vm
        stopped = (await engine.ask(Stop(op=op(), vm=vm))).vm
        assert (stopped.state, is_off(stopped)) == (VmState.STOPPED, True)
        with pytest.raises(Conflict):
            await engine.ask(Pause(op=op(), vm=vm))

    async def test_stop_resume_restart(self, engine: UnderTest) -> None:
        vm = (await engine.running()).vm
        stopped = (await engine.ask(Stop(op=op(), vm=vm))).vm
        assert (stopped.state, is_off(stopped), stopped.problem) == (VmState.STOPPED, True, "")
        again = (await engine.ask(Stop(op=op(), vm=vm))).vm
        assert same(again, stopped)
        booted = await engine.ask(Resume(op=op(), vm=vm, identity=SAME))
        assert (booted.vm.state, booted.vm.warm) == (VmState.RUNNING, False)
        assert booted.cold_booted
        printed = await engine.console(vm)
        assert printed, "a boot says something"
        assert (await engine.console(vm)).startswith(printed), "read twice, it is still there"
        restarted = await engine.ask(Restart(op=op(), vm=vm, identity=SAME))
        assert (restarted.vm.state, restarted.vm.warm) == (VmState.RUNNING, False)
        assert restarted.cold_booted
        assert restarted.vm.pid != booted.vm.pid
        assert same(await engine.get(vm), restarted.vm)

    async def test_a_vm_whose_process_ends_is_stopped(self, engine: UnderTest) -> None:
        vm = await engine.killed()
        assert (vm.state, is_off(vm)) == (VmState.STOPPED, True)
        assert vm.problem
        with pytest.raises(Conflict):
            await engine.ask(Pause(op=op(), vm=vm.vm))
        named = await engine.ask(Identify(op=op(), vm=vm.vm, identity=SAME))
        assert named.vm.state is VmState.STOPPED
        child = (await engine.ask(engine.clone(vm.vm, engine.vm_id()))).vm
        assert (child.state, is_off(child), child.problem) == (VmState.STOPPED, True, "")
        assert same(await engine.get(vm.vm), vm)

    async def test_identify_changes_nothing_but_the_guest(self, engine: UnderTest) -> None:
        vm = await engine.running()
        request = Identify(op=op(), vm=vm.vm, identity=SAME)
        named = await engine.ask(request)
        assert same(named.vm, vm)
        assert await engine.ask(request) == named

    # -- another size

    async def test_a_disk_grows_under_a_running_vm(self, engine: UnderTest) -> None:
        vm = await engine.running()
        request = engine.resize(vm, disk_bytes=vm.spec.disk_bytes + GIB)
        grown = await engine.ask(request)
        assert grown.vm.spec == request.spec
        assert (grown.vm.pid, grown.vm.state, grown.vm.problem) == (vm.pid, VmState.RUNNING, "")
        assert await engine.ask(request) == grown
        assert (await engine.stat(vm.vm)).disk_size_bytes == request.spec.disk_bytes
        child = (await engine.ask(engine.clone(vm.vm, engine.vm_id()))).vm
        assert (child.spec, child.state) == (request.spec, VmState.RUNNING)
        paused = await engine.ask(Pause(op=op(), vm=vm.vm))
        assert paused.vm.spec == request.spec
        resumed = await engine.ask(Resume(op=op(), vm=vm.vm, identity=SAME))
        assert (resumed.vm.spec, resumed.cold_booted) == (request.spec, False)

    async def test_memory_and_cpus_change_at_the_next_boot(self, engine: UnderTest) -> None:
        vm = await engine.running()
        request = engine.resize(
            vm, memory_bytes=vm.spec.memory_bytes + 128 * MIB, cpus=vm.spec.cpus + 1
        )
        assert same((await engine.ask(request)).vm, vm)
        paused = (await engine.ask(Pause(op=op(), vm=vm.vm))).vm
        assert paused.spec == vm.spec
        resumed = await engine.ask(Resume(op=op(), vm=vm.vm, identity=SAME))
        assert (resumed.vm.spec, resumed.cold_booted) == (vm.spec, False)
        child = (await engine.ask(engine.clone(vm.vm, engine.vm_id()))).vm
        assert (child.spec, child.state) == (vm.spec, VmState.RUNNING)
        booted = await engine.ask(Restart(op=op(), vm=vm.vm, identity=SAME))
        assert (booted.vm.spec, booted.cold_booted) == (request.spec, True)
        assert (await engine.get(vm.vm)).spec == request.spec

    async def test_a_resize_that_is_taken_back_changes_nothing(self, engine: UnderTest) -> None:
        vm = await engine.running()
        await engine.ask(engine.resize(vm, memory_bytes=vm.spec.memory_bytes + 128 * MIB))
        waiting = await engine.ask(engine.resize(vm, cpus=vm.spec.cpus + 1))
        assert same(waiting.vm, vm)
        await engine.ask(engine.resize(vm))
        booted = await engine.ask(Restart(op=op(), vm=vm.vm, identity=SAME))
        assert booted.vm.spec == vm.spec

    async def test_a_paused_vm_grows_when_it_goes_on(self, engine: UnderTest) -> None:
        vm = await engine.paused()
        request = engine.resize(vm, disk_bytes=vm.spec.disk_bytes + GIB)
        assert (await engine.ask(request)).vm.state is VmState.PAUSED
        resumed = await engine.ask(Resume(op=op(), vm=vm.vm, identity=SAME))
        assert (resumed.vm.spec, resumed.cold_booted) == (request.spec, False)

    async def test_a_stopped_vm_has_its_new_size_at_once(self, engine: UnderTest) -> None:
        vm = (await engine.ask(Stop(op=op(), vm=(await engine.running()).vm))).vm
        request = engine.resize(
            vm,
            memory_bytes=vm.spec.memory_bytes + 128 * MIB,
            disk_bytes=vm.spec.disk_bytes + GIB,
        )
        resized = await engine.ask(request)
        assert (resized.vm.spec, resized.vm.state) == (request.spec, VmState.STOPPED)
        booted = await engine.ask(Resume(op=op(), vm=vm.vm, identity=SAME))
        assert (booted.vm.spec, booted.vm.state) == (request.spec, VmState.RUNNING)

    async def test_what_waits_for_a_boot_is_there_once_it_is_stopped(
        self, engine: UnderTest
    ) -> None:
        vm = await engine.running()
        request = engine.resize(vm, memory_bytes=vm.spec.memory_bytes + 128 * MIB)
        await engine.ask(request)
        assert (await engine.ask(Stop(op=op(), vm=vm.vm))).vm.spec == request.spec
        assert (await engine.get(vm.vm)).spec == request.spec

    async def test_a_size_that_cannot_be(self, engine: UnderTest) -> None:
        vm = await engine.running()
        await engine.ask(engine.resize(vm, disk_bytes=vm.spec.disk_bytes + GIB))
        now = await engine.get(vm.vm)
        other = now.spec.model_copy(update={"image": "nosuch"})
        for request in (engine.resize(vm), Resize(op=op(), vm=vm.vm, spec=other)):
            with pytest.raises(Invalid):
                await engine.ask(request)
        assert same(await engine.get(vm.vm), now)

    # -- snapshots

    async def test_a_snapshot_changes_nothing(self, engine: UnderTest) -> None:
        vm = await engine.running()
        take = engine.take(vm.vm)
        taken = await engine.ask(take)
        assert (same(taken.vm, vm), taken.cold_booted) == (True, False)
        assert not taken.crash_consistent
        assert await engine.ask(take) == taken
        again = await engine.ask(take.model_copy(update={"op": op()}))
        assert same(again.vm, vm)
        assert same(await engine.get(vm.vm), vm)
        assert await engine.kept(vm.vm) == {take.snapshot}

    async def test_a_snapshot_of_what_changed_alone(self, engine: UnderTest) -> None:
        vm = (await engine.running()).vm
        await engine.ask(Stop(op=op(), vm=vm))

        async def take(*, unless_unchanged: bool = True) -> tuple[str, bool]:
            request = engine.take(vm)
            request = request.model_copy(update={"unless_unchanged": unless_unchanged})
            taken = await engine.ask(request)
            assert await engine.ask(request) == taken
            assert (request.snapshot in await engine.kept(vm)) is not taken.unchanged
            again = await engine.ask(request.model_copy(update={"op": op()}))
            assert again.unchanged is taken.unchanged
            return request.snapshot, taken.unchanged

        first, is_first_unchanged = await take()
        assert (is_first_unchanged, (await take())[1]) == (False, True)
        second, is_second_unchanged = await take(unless_unchanged=False)
        assert not is_second_unchanged
        await engine.ask(DropSnapshot(op=op(), vm=vm, snapshot=first))
        assert (await take())[1], "the second has it, too"
        await engine.ask(engine.roll_back(vm, second))
        assert (await take())[1]
        await engine.ask(Resume(op=op(), vm=vm, identity=SAME))
        await engine.ask(Stop(op=op(), vm=vm))
        assert not (await take())[1], "it has run"
        for snapshot in await engine.kept(vm):
            await engine.ask(DropSnapshot(op=op(), vm=vm, snapshot=snapshot))
        assert not (await take())[1], "nothing is kept"

    async def test_a_rollback_ends_a_vm_and_boots_it(self, engine: UnderTest) -> None:
        vm = await engine.running()
        take = engine.take(vm.vm)
        await engine.ask(take)
        request = engine.roll_back(vm.vm, take.snapshot, SAME)
        done = await engine.ask(request)
        assert (done.vm.state, done.vm.problem, done.vm.spec) == (VmState.RUNNING, "", vm.spec)
        assert (done.cold_booted, done.crash_consistent, done.vm.warm) == (True, False, False)
        assert done.vm.pid not in (None, vm.pid)
        assert await engine.ask(request) == done
        assert same(await engine.get(vm.vm), done.vm)
        assert await engine.kept(vm.vm) == {take.snapshot, request.keep}
        undone = await engine.ask(engine.roll_back(vm.vm, request.keep))
        assert (undone.vm.state, is_off(undone.vm)) == (VmState.STOPPED, True)
        assert (undone.cold_booted, undone.crash_consistent) == (False, False)
        assert undone.vm.problem == ""
        resumed = await engine.ask(Resume(op=op(), vm=vm.vm, identity=SAME))
        assert (resumed.vm.state, resumed.cold_booted) == (VmState.RUNNING, True)

    async def test_a_snapshot_of_a_paused_vm_lacks_what_its_memory_has(
        self, engine: UnderTest
    ) -> None:
        vm = await engine.paused()
        take = engine.take(vm.vm)
        taken = await engine.ask(take)
        assert (same(taken.vm, vm), taken.crash_consistent) == (True, True)
        resumed = await engine.ask(Resume(op=op(), vm=vm.vm, identity=SAME))
        assert (resumed.vm.state, resumed.cold_booted) == (VmState.RUNNING, False)
        await engine.ask(Pause(op=op(), vm=vm.vm))
        done = await engine.ask(engine.roll_back(vm.vm, take.snapshot))
        assert (done.vm.state, is_off(done.vm)) == (VmState.STOPPED, True)
        assert done.crash_consistent
        with pytest.raises(Conflict):
            await engine.ask(Pause(op=op(), vm=vm.vm))

    async def test_a_snapshot_of_a_vm_that_is_off(self, engine: UnderTest) -> None:
        stopped = (await engine.ask(Stop(op=op(), vm=(await engine.running()).vm))).vm
        for vm, has_crashed in ((stopped, False), (await engine.killed(), True)):
            take = engine.take(vm.vm)
            taken = await engine.ask(take)
            assert (same(taken.vm, vm), taken.crash_consistent) == (True, has_crashed)
            done = await engine.ask(engine.roll_back(vm.vm, take.snapshot))
            assert (done.vm.state, done.vm.problem) == (VmState.STOPPED, "")
            assert done.crash_consistent is has_crashed

    async def test_a_rollback_needs_a_snapshot_of_the_vm(self, engine: UnderTest) -> None:
        vm, other = await engine.running(), await engine.running()
        take = engine.take(other.vm)
        await engine.ask(take)
        for snapshot in (ids.new("snap"), take.snapshot):
            with pytest.raises(NotFound):
                await engine.ask(engine.roll_back(vm.vm, snapshot, SAME))
            clone = engine.clone(vm.vm, engine.vm_id())
            with pytest.raises(NotFound):
                await engine.ask(clone.model_copy(update={"snapshot": snapshot}))
            with pytest.raises(NotFound):
                await engine.get(clone.vm)
        for request in (
            TakeSnapshot(op=op(), vm=vm.vm, snapshot=take.snapshot),
            DropSnapshot(op=op(), vm=vm.vm, snapshot=take.snapshot),
        ):
            with pytest.raises(Conflict):
                await engine.ask(request)
        assert same(await engine.get(vm.vm), vm)
        assert same(await engine.get(other.vm), other)

    async def test_a_snapshot_that_is_dropped_is_gone(self, engine: UnderTest) -> None:
        vm = await engine.running()
        take = engine.take(vm.vm)
        await engine.ask(take)
        drop = DropSnapshot(op=op(), vm=vm.vm, snapshot=take.snapshot)
        dropped = await engine.ask(drop)
        assert (same(dropped.vm, vm), await engine.ask(drop) == dropped) == (True, True)
        assert same((await engine.ask(drop.model_copy(update={"op": op()}))).vm, vm)
        assert await engine.kept(vm.vm) == set()
        with pytest.raises(NotFound):
            await engine.ask(engine.roll_back(vm.vm, take.snapshot, SAME))
        assert same(await engine.get(vm.vm), vm)

    async def test_snapshots_go_with_their_vm(self, engine: UnderTest) -> None:
        vm = (await engine.running()).vm
        take = engine.take(vm)
        await engine.ask(take)
        await engine.delete(vm)
        await engine.ask(engine.create(vm))
        with pytest.raises(NotFound):
            await engine.ask(engine.roll_back(vm, take.snapshot))
        await engine.ask(take.model_copy(update={"op": op(), "vm": (await engine.running()).vm}))

    async def test_a_copy_of_a_snapshot_boots_and_outlives_it(self, engine: UnderTest) -> None:
        source, vm = await engine.running(), engine.vm_id()
        take = engine.take(source.vm)
        await engine.ask(take)
        paused = (await engine.ask(Pause(op=op(), vm=source.vm))).vm
        clone = engine.clone(source.vm, vm).model_copy(update={"snapshot": take.snapshot})
        made = await engine.ask(clone)
        assert (made.vm.vm, made.vm.owner, made.vm.spec) == (vm, OWNER, engine.spec)
        assert (made.vm.state, made.cold_booted) == (VmState.RUNNING, True)
        assert same(await engine.get(source.vm), paused)
        await engine.delete(source.vm)
        assert same(await engine.get(vm), made.vm)
        with pytest.raises(NotFound):
            await engine.ask(engine.roll_back(vm, take.snapshot))

    async def test_a_live_snapshot_is_gone_back_to_without_a_boot(self, engine: UnderTest) -> None:
        vm = await engine.running()
        take = engine.take(vm.vm, live=True)
        taken = await engine.ask(take)
        assert (same(taken.vm, vm), taken.memory_kept, taken.crash_consistent) == (
            True,
            True,
            False,
        )
        assert await engine.ask(take) == taken
        request = engine.roll_back(vm.vm, take.snapshot, SAME)
        done = await engine.ask(request)
        assert (done.vm.state, done.vm.problem, done.vm.spec) == (VmState.RUNNING, "", vm.spec)
        assert (done.cold_booted, done.memory_kept, done.crash_consistent) == (False, True, False)
        assert done.vm.pid not in (None, vm.pid)
        assert await engine.ask(request) == done
        # Without an identity it is paused, and goes on from there.
        back = await engine.ask(engine.roll_back(vm.vm, request.keep))
        assert (back.vm.state, back.vm.pid, back.cold_booted) == (VmState.PAUSED, None, False)
        resumed = await engine.ask(Resume(op=op(), vm=vm.vm, identity=SAME))
        assert (resumed.vm.state, resumed.cold_booted) == (VmState.RUNNING, False)
        booted = await engine.ask(
            engine.roll_back(vm.vm, take.snapshot, SAME).model_copy(update={"cold": True})
        )
        assert (booted.vm.state, booted.cold_booted) == (VmState.RUNNING, True)
        assert not booted.memory_kept

    async def test_a_live_snapshot_of_a_paused_vm_has_its_memory(self, engine: UnderTest) -> None:
        vm = await engine.paused()
        take = engine.take(vm.vm, live=True)
        taken = await engine.ask(take)
        assert (same(taken.vm, vm), taken.memory_kept) == (True, True)
        await engine.ask(Resume(op=op(), vm=vm.vm, identity=SAME))
        await engine.ask(Pause(op=op(), vm=vm.vm))
        request = engine.roll_back(vm.vm, take.snapshot, SAME)
        done = await engine.ask(request)
        assert (done.vm.state, done.cold_booted) == (VmState.RUNNING, False)
        assert done.memory_kept  # of the pause in between
        await engine.ask(Stop(op=op(), vm=vm.vm))
        again = await engine.ask(engine.roll_back(vm.vm, request.keep, SAME))
        assert (again.vm.state, again.cold_booted) == (VmState.RUNNING, False)
        assert not again.memory_kept  # it was off

    async def test_memory_of_what_has_none_and_of_another_machine(self, engine: UnderTest) -> None:
        vm = await engine.running()
        take = engine.take(vm.vm, live=True)
        await engine.ask(take)
        await engine.ask(Stop(op=op(), vm=vm.vm))
        with pytest.raises(Conflict):
            await engine.ask(engine.take(vm.vm, live=True))
        await engine.ask(engine.resize(vm, cpus=2))
        refused = engine.roll_back(vm.vm, take.snapshot)
        with pytest.raises(Conflict):
            await engine.ask(refused)
        assert await engine.kept(vm.vm) == {take.snapshot}
        cold = await engine.ask(refused.model_copy(update={"op": op(), "cold": True}))
        assert (cold.vm.state, cold.vm.spec.cpus) == (VmState.STOPPED, 2)

    async def test_a_copy_of_a_live_snapshot_goes_on_from_its_memory(
        self, engine: UnderTest
    ) -> None:
        source, vm = await engine.running(), engine.vm_id()
        take = engine.take(source.vm, live=True)
        await engine.ask(take)
        clone = engine.clone(source.vm, vm).model_copy(update={"snapshot": take.snapshot})
        made = await engine.ask(clone)
        assert (made.vm.state, made.cold_booted) == (VmState.RUNNING, False)
        await engine.ask(DropSnapshot(op=op(), vm=source.vm, snapshot=take.snapshot))
        paused = await engine.ask(Pause(op=op(), vm=vm))
        resumed = await engine.ask(Resume(op=op(), vm=vm, identity=NEW))
        assert (paused.vm.state, resumed.cold_booted) == (VmState.PAUSED, False)
        other = engine.clone(source.vm, engine.vm_id()).model_copy(
            update={"snapshot": take.snapshot}
        )
        with pytest.raises(NotFound):
            await engine.ask(other)

    # -- the end

    async def test_delete_leaves_nothing(self, engine: UnderTest) -> None:
        vm, by = (await engine.running()).vm, op()
        await engine.delete(vm, by=by)
        await engine.delete(vm, by=by)
        await engine.delete(vm)
        assert vm not in await engine.listed()
        for request in (
            Pause(op=op(), vm=vm),
            Resume(op=op(), vm=vm, identity=SAME),
            Restart(op=op(), vm=vm, identity=SAME),
            Stop(op=op(), vm=vm),
            Identify(op=op(), vm=vm, identity=SAME),
            Resize(op=op(), vm=vm, spec=engine.spec),
            engine.take(vm),
            engine.roll_back(vm, ids.new("snap"), SAME),
            DropSnapshot(op=op(), vm=vm, snapshot=ids.new("snap")),
            engine.clone(vm, engine.vm_id()),
        ):
            with pytest.raises(NotFound):
                await engine.ask(request)
        for question in (engine.get, engine.stat, engine.console):
            with pytest.raises(NotFound):
                await question(vm)

    async def test_delete_in_every_state(self, engine: UnderTest) -> None:
        for vm in (await engine.paused(), await engine.killed()):
            await engine.delete(vm.vm)
            with pytest.raises(NotFound):
                await engine.get(vm.vm)
        await engine.delete(ids.new("vm"))

    async def test_the_id_of_a_deleted_vm_is_free(self, engine: UnderTest) -> None:
        before = await engine.running()
        await engine.delete(before.vm)
        again = (await engine.ask(engine.create(before.vm))).vm
        assert (again.state, again.created_at > before.created_at) == (VmState.RUNNING, True)

    async def test_a_clone_outlives_its_source(self, engine: UnderTest) -> None:
        source = (await engine.running()).vm
        child = (await engine.ask(engine.clone(source, engine.vm_id()))).vm
        await engine.delete(source)
        assert same(await engine.get(child.vm), child)
        await engine.ask(Pause(op=op(), vm=child.vm))
        resumed = await engine.ask(Resume(op=op(), vm=child.vm, identity=SAME))
        assert (resumed.vm.state, resumed.cold_booted) == (VmState.RUNNING, False)

    # -- questions

    async def test_stat(self, engine: UnderTest) -> None:
        vm = (await engine.running()).vm
        on = await engine.stat(vm)
        assert (on.vm, on.uptime_seconds > 0, on.memory_private_bytes > 0) == (vm, True, True)
        await engine.ask(Pause(op=op(), vm=vm))
        off = await engine.stat(vm)
        for stat in (on, off):
            assert stat.memory_total_bytes == engine.spec.memory_bytes
            assert stat.disk_size_bytes == engine.spec.disk_bytes
        assert off == Stat(
            vm=vm,
            memory_total_bytes=off.memory_total_bytes,
            disk_size_bytes=off.disk_size_bytes,
            disk_used_bytes=off.disk_used_bytes,
        )

    async def test_samples_are_of_all_that_run(self, engine: UnderTest) -> None:
        one, two = (await engine.running()).vm, (await engine.running()).vm
        first = await engine.samples()
        second = await engine.samples()
        for vm in (one, two):
            before, now = first[vm], second[vm]
            assert before.process
            assert (now.process, now.since_boot_s > before.since_boot_s) == (before.process, True)
            assert before.memory_bytes > 0
            for counter in COUNTERS:
                assert getattr(now, counter) >= getattr(before, counter), counter
        assert first[one].process != first[two].process
        await engine.ask(Pause(op=op(), vm=one))
        await engine.ask(Stop(op=op(), vm=two))
        assert {one, two}.isdisjoint(await engine.samples())
        await engine.ask(Resume(op=op(), vm=one, identity=SAME))
        again = (await engine.samples())[one]
        assert again.process != first[one].process, "its counters began anew"
        await engine.delete(one)
        assert one not in await engine.samples()

    async def test_console_of_a_vm_that_does_not_run_is_empty(self, engine: UnderTest) -> None:
        assert await engine.console((await engine.paused()).vm) == ""

    async def test_node(self, engine: UnderTest) -> None:
        vm = await engine.running()
        node, listed = await engine.node(), await engine.listed()
        assert (vm.vm in listed, node.vms) == (True, len(listed))
        assert 0 < node.memory_available_bytes <= node.memory_bytes
        assert 0 < node.pool_free_bytes <= node.pool_bytes
        (image,) = (image for image in node.images if image.name == engine.spec.image)
        assert (engine.spec.cpus, engine.spec.memory_bytes) in image.warm_sizes
        assert image.login_user == vm.login_user

    async def test_prepare(self, engine: UnderTest) -> None:
        image = await engine.prepare(engine.spec.image)
        assert image in (await engine.node()).images
        assert (engine.spec.cpus, engine.spec.memory_bytes) in image.warm_sizes
        with pytest.raises(NotFound):
            await engine.prepare("nosuch")

    # -- events

    async def test_events(self, engine: UnderTest) -> None:
        vm, child = (await engine.running()).vm, engine.vm_id()
        async with engine.listening(vm) as heard:
            await engine.ask(Pause(op=op(), vm=vm))
            resumed = await engine.ask(Resume(op=op(), vm=vm, identity=SAME))
            cloned = (await engine.ask(engine.clone(vm, child))).vm
            engine.kill(cloned)

            def of(vm: str) -> list[tuple[str, VmState | None]]:
                each = [(event.kind, event.state) for event in heard if event.vm == vm]
                return [event for event, _ in itertools.groupby(each)]

            async def all_heard() -> bool | None:
                return (len(of(vm)), len(of(child))) == (4, 3) or None

            async def child_ended() -> bool | None:
                return ("vm-state", VmState.STOPPED) in of(child) or None

            await poll(child_ended, seconds=NOTICE_S, what="the end of the child")
            (end,) = (e for e in heard if (e.vm, e.state) == (child, VmState.STOPPED))
            assert (end.address, end.detail) == (None, (await engine.get(child)).problem)
            await engine.delete(vm)
            await engine.delete(child)
            await engine.delete(ids.new("vm"))  # of which nothing is told
            await poll(all_heard, seconds=NOTICE_S, what="the last event")
        running, gone = ("vm-state", VmState.RUNNING), ("vm-gone", None)
        assert of(vm) == [running, ("vm-state", VmState.PAUSED), running, gone]
        assert of(child) == [running, ("vm-state", VmState.STOPPED), gone]
        assert {event.vm for event in heard} == {vm, child}
        addresses = {e.address for e in heard if (e.vm, e.state) == (vm, VmState.RUNNING)}
        assert resumed.vm.address in addresses

    # -- two at once

    async def test_pause_and_resume_at_once(self, engine: UnderTest) -> None:
        vm = (await engine.running()).vm
        answers = await at_once(
            engine.ask(Pause(op=op(), vm=vm)), engine.ask(Resume(op=op(), vm=vm, identity=SAME))
        )
        ended = [answer.vm for answer in answers if isinstance(answer, Outcome)]
        refused = [answer for answer in answers if isinstance(answer, Conflict)]
        assert (len(ended) + len(refused), len(refused) < 2) == (2, True), answers
        now = await engine.get(vm)
        assert any(same(now, each) for each in ended), answers

    async def test_pause_and_delete_at_once(self, engine: UnderTest) -> None:
        vm = (await engine.running()).vm
        paused, deleted = await at_once(engine.ask(Pause(op=op(), vm=vm)), engine.delete(vm))
        assert isinstance(paused, Outcome | NotFound | Conflict), paused
        if deleted is None:
            with pytest.raises(NotFound):
                await engine.get(vm)
        else:
            assert isinstance(deleted, Conflict), deleted
            assert (await engine.get(vm)).state is VmState.PAUSED

    # -- what is no request

    @pytest.mark.parametrize(
        "wrong",
        [
            GetVm.model_construct(vm=""),
            GetVm.model_construct(vm="vm-../../../etc"),
            GetVm.model_construct(vm="vm-000000000000\n"),
            GetVm.model_construct(vm="vm-AAAAAAAAAAAA"),
            StatVm.model_construct(vm="vm-0"),
            Console.model_construct(vm="system"),
            Pause.model_construct(op="op-1", vm="vm-000000000000"),
            Stop.model_construct(op="op-000000000000", vm="vm-00000000000/"),
            Delete.model_construct(op="op-000000000000", vm="vm-\x00"),
            Clone.model_construct(
                op="op-000000000000",
                source="../vm",
                vm="vm-000000000000",
                owner=OWNER,
                identity=NEW,
            ),
            Resume.model_construct(
                op="op-000000000000",
                vm="vm-000000000000",
                identity=Identity.model_construct(hostname="a b", fresh=False),
            ),
            Prepare.model_construct(
                op="op-000000000000", image="../debian", cpus=1, memory_bytes=1 << 30
            ),
        ],
        ids=lambda request: f"{type(request).__name__}",
    )
    async def test_a_malformed_request_is_invalid(self, engine: UnderTest, wrong: Message) -> None:
        answers: dict[type[Message], type[Message]] = {
            GetVm: Vm, StatVm: Stat, Console: Text, Delete: Empty, Prepare: Image,
        }  # fmt: skip
        with pytest.raises(Invalid):
            await engine.client.call(wrong, answers.get(type(wrong), Outcome), seconds=ANSWER_S)
