"""The engine's operations on VMs: every request of `rpc.messages` ends here.

Invariants: a VM's record says what is being done before it is done; at any crash `recovery` finds
either a finished operation or an intent to finish or undo. A VM is `running` in its record only after
its guest agent acknowledged its identity. Nothing outside can reach a VM before that: its network
slot is opened last.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Awaitable, Callable

from atoll.base import log
from atoll.base.aio import shielded
from atoll.base.errors import (
    AtollError,
    Conflict,
    Exhausted,
    Internal,
    Invalid,
    NotFound,
    Unavailable,
)
from atoll.base.units import show_size
from atoll.config import Config
from atoll.domain.layers import LayerId
from atoll.engine.boot import Boot
from atoll.engine.capture import Capture
from atoll.engine.clock import Clock
from atoll.engine.disks import Disks
from atoll.engine.operations import Operations
from atoll.engine.qemu.machine import Machine, Saved, save
from atoll.engine.qemu.memory import Pages
from atoll.engine.records import Intent, Record, Records
from atoll.engine.resizing import Resizing, for_boot
from atoll.engine.saved import SavedMemory
from atoll.engine.snapshots import Remembered, Snapshots
from atoll.engine.space import Space
from atoll.rpc.messages import (
    Clone,
    Create,
    Delete,
    DropSnapshot,
    Empty,
    Event,
    Identify,
    Identity,
    ListSnapshots,
    Outcome,
    Pause,
    Resize,
    Restart,
    Resume,
    RollBack,
    SnapshotList,
    Spec,
    Stop,
    TakeSnapshot,
    Vm,
    VmState,
)

MAX_VMS = 10_000  # records are held in memory, about 2 kB each
SHUTDOWN_S = 60.0
UNDO_S = 60.0  # undoing a start; under a second unless the host is stuck
_log = log.get("service")


class Service:
    """Lifecycle of the VMs of one node."""

    def __init__(
        self,
        *,
        config: Config,
        records: Records,
        disks: Disks,
        boot: Boot,
        capture: Capture,
        operations: Operations,
        space: Space,
        publish: Callable[[Event], None],
        problems: Callable[[], tuple[str, ...]],
        missed: Callable[[Spec], bool],
    ) -> None:
        self._config = config
        self._records = records
        self._disks = disks
        self._boot = boot
        self._capture = capture
        self._resizing = Resizing(records=records, disks=disks)
        self._snapshots = Snapshots(records=records, disks=disks, boot=boot, capture=capture)
        self._operations = operations
        self.space = space
        self._publish = publish
        self._starts = asyncio.Semaphore(config.engine.starts_at_once)
        self.machines: dict[str, Machine] = {}
        self.problems = problems
        self._missed = missed  # no template fitted; whether one is being made now

    # -- facts

    def vm(self, record: Record) -> Vm:
        """Facts about one VM, from its record and the disk index; no I/O on the guest."""
        return Vm(
            vm=record.vm,
            owner=record.owner,
            # A stopped VM has the size it boots with.
            spec=for_boot(record).spec if record.state is VmState.STOPPED else record.spec,
            state=record.state,
            address=self._boot.address(record.slot) if record.slot is not None else None,
            pid=record.pid,
            warm=record.warm,
            login_user=record.login_user,
            depth=self._disks.depth(record.vm),
            disk_used_bytes=self._disks.used_bytes(record.vm),
            created_at=record.created_at,
            problem=record.problem or self.space.problem(record.vm),
        )

    def record(self, vm: str) -> Record:
        """The record of `vm`, or NotFound."""
        record = self._records.get(vm)
        if record is None:
            raise NotFound(f"no VM {vm} on this node")
        return record

    # -- operations

    async def create(self, request: Create) -> Outcome:
        """A new VM from an image: warm when a template fits, else booted cold."""
        return await self._once(request.op, request.vm, lambda: self._create(request))

    async def _create(self, request: Create) -> Outcome:
        async with self._operations.holding("create", request.vm):
            self._refuse_existing(request.vm)
            self.space.check()
            clock = Clock()
            record = self._records.put(
                Record(
                    vm=request.vm,
                    owner=request.owner,
                    spec=request.spec,
                    state=VmState.STARTING,
                    hostname=request.identity.hostname,
                    created_at=time.time(),
                    login_user="atoll",
                    intent=Intent(op=request.op, kind="create", fresh=True),
                )
            )
            try:
                async with self._starts:
                    clock.mark("queue")
                    template, image = await self._boot.choose(request.spec)
                    clock.mark("choose")
                    await self._disks.create(
                        request.vm,
                        request.owner,
                        parent=LayerId(template.meta.layer)
                        if template
                        else self._disks.layer_of_image(image.digest),
                        size_bytes=request.spec.disk_bytes,
                    )
                    clock.mark("disk")
                    record = self._records.put(
                        record.model_copy(
                            update={
                                "image": image.digest,
                                "login_user": image.login_user,
                                "base": template.meta.id if template else None,
                            }
                        )
                    )
                    saved = template.saved() if template else None
                    cold = template is None
                    record = await self._bring_up(record, request.identity, saved, clock, cold=cold)
                    return self._finish(record, request.op, clock, cold=cold)
            except BaseException:
                await shielded(self.discard(request.vm), seconds=UNDO_S)
                raise

    async def clone(self, request: Clone) -> Outcome:
        """A copy of `source`: of the running machine, or of what is on disk.

        With another number of vCPUs or amount of memory only the disk is copied, and boots; so it is
        with a snapshot without memory.
        """
        return await self._once(request.op, request.vm, lambda: self._clone(request))

    async def _clone(self, request: Clone) -> Outcome:
        clock = Clock()
        async with self._operations.holding("clone", request.vm), self._starts:
            clock.mark("queue")
            self._refuse_existing(request.vm)
            self.space.check()
            try:
                # The source is busy while it is copied, not while its copy starts.
                async with self._operations.holding("clone", request.source):
                    source = self.record(request.source)
                    kept = self._layer_to_copy(request)
                    child = self._records.put(_child(source, request))
                    match source.state:
                        case _ if kept is not None:
                            await self._disks.create(
                                child.vm,
                                child.owner,
                                parent=kept,
                                size_bytes=child.spec.disk_bytes,
                            )
                            clock.mark("disk")
                            child, saved = await self._from_memory(child, request)
                        case VmState.RUNNING:
                            machine = self._machine(source)
                            if _same_machine(source, child):
                                saved = await self._capture.machine(source, child, machine, clock)
                            else:
                                saved = None
                                await self._capture.disk(source, child, machine, clock)
                        case VmState.PAUSED | VmState.STOPPED:
                            return await self._copy_at_rest(source, child, request.op, clock)
                        case _:
                            raise Conflict(
                                f"{source.vm} is {source.state}, it cannot be cloned now"
                            )
                cold = saved is None
                child = await self._bring_up(child, request.identity, saved, clock, cold=cold)
                return self._finish(child, request.op, clock, cold=cold)
            except BaseException:
                await shielded(self.discard(request.vm), seconds=UNDO_S)
                raise

    async def pause(self, request: Pause) -> Outcome:
        """Memory to disk, process gone."""
        return await self._once(request.op, request.vm, lambda: self._pause(request))

    async def _pause(self, request: Pause) -> Outcome:
        async with self._operations.holding("pause", request.vm):
            record = self.record(request.vm)
            if record.state is VmState.PAUSED:
                return self._finish(record, request.op, Clock(), cold=False)
            if record.state is not VmState.RUNNING:
                raise Conflict(f"{record.vm} is {record.state}, only a running VM can be paused")
            clock = Clock()
            record = self._begin(record, request.op, "pause")
            machine = self._machine(record)
            memory = self._memory(record.vm)
            prologue = await self._boot.prologue_of(record)  # the first of its shape takes a second
            async with self._capture.resume_on_failure(machine, record):
                await self._boot.close_port(record)
                await machine.stop()
                pages = Pages(machine.memory_bytes)
                saved = await save(machine, prologue, pages)
                clock.mark("save")
                meta = await asyncio.to_thread(memory.write, saved, self._boot.key(record))
                pages.close()
                memory.commit(meta)
                clock.mark("write")
                record = self._records.put(record.model_copy(update={"state": VmState.PAUSED}))
            await self._release(record, machine)
            clock.mark("end")
            record = self.record(record.vm)
            return self._finish(record, request.op, clock, cold=False)

    async def resume(self, request: Resume) -> Outcome:
        """Back from saved memory; booted from disk when that cannot be used, and saying so."""
        return await self._once(request.op, request.vm, lambda: self._resume(request))

    async def _resume(self, request: Resume) -> Outcome:
        async with self._operations.holding("resume", request.vm):
            record = self.record(request.vm)
            if record.state is VmState.RUNNING:
                await self._boot.identify(self._machine(record), record, request.identity)
                return self._finish(record, request.op, Clock(), cold=False)
            clock = Clock()
            before = record.state
            record = self._begin(record, request.op, "resume")
            async with self._starts:
                clock.mark("queue")
                # Read only now: a crowd that waits must not hold all its memories at once.
                saved = await self._saved(record) if before is VmState.PAUSED else None
                cold = await self._start_again(
                    self.record(record.vm), request.identity, saved, clock
                )
                return self._finish(self.record(record.vm), request.op, clock, cold=cold)

    async def _start_again(
        self, record: Record, identity: Identity, saved: Saved | None, clock: Clock
    ) -> bool:
        """From `saved`, or from disk when that cannot be used. -> whether it booted."""
        try:
            await self._bring_up(record, identity, saved, clock, cold=saved is None)
        except AtollError as error:
            is_kept = self._memory(record.vm).complete
            if saved is None or (is_kept and not isinstance(error, Internal)):
                raise  # a host that is short of something: it can be resumed later
            _log.warning("saved memory unusable, booting cold", vm=record.vm, reason=str(error))
            record = self._drop_saved(self.record(record.vm))
            await self._bring_up(record, identity, None, clock, cold=True)
            return True
        return saved is None

    async def restart(self, request: Restart) -> Outcome:
        """Orderly shutdown, then a boot from disk."""
        return await self._once(request.op, request.vm, lambda: self._restart(request))

    async def _restart(self, request: Restart) -> Outcome:
        async with self._operations.holding("restart", request.vm):
            clock = Clock()
            record = self._begin(self.record(request.vm), request.op, "restart")
            record = await self._shut_down(record)
            clock.mark("shutdown")
            async with self._starts:
                record = await self._bring_up(record, request.identity, None, clock, cold=True)
                return self._finish(record, request.op, clock, cold=True)

    async def stop(self, request: Stop) -> Outcome:
        """Orderly shutdown; disk only remains."""
        return await self._once(request.op, request.vm, lambda: self._stop(request))

    async def _stop(self, request: Stop) -> Outcome:
        async with self._operations.holding("stop", request.vm):
            clock = Clock()
            await self.space.make_room()
            record = self._begin(self.record(request.vm), request.op, "stop")
            record = await self._shut_down(record)
            return self._finish(record, request.op, clock, cold=False)

    async def identify(self, request: Identify) -> Outcome:
        """New hostname or keys; a VM that does not run gets them at its next start."""
        return await self._once(request.op, request.vm, lambda: self._identify(request))

    async def _identify(self, request: Identify) -> Outcome:
        async with self._operations.holding("identify", request.vm):
            record = self._begin(self.record(request.vm), request.op, "identify")
            record = self._records.put(
                record.model_copy(update={"hostname": request.identity.hostname})
            )
            if record.state is VmState.RUNNING:
                await self._boot.identify(self._machine(record), record, request.identity)
            return self._finish(record, request.op, Clock(), cold=False)

    async def resize(self, request: Resize) -> Outcome:
        """A larger disk; other vCPUs or memory from the next boot on."""
        return await self._once(request.op, request.vm, lambda: self._resize(request))

    async def _resize(self, request: Resize) -> Outcome:
        async with self._operations.holding("resize", request.vm):
            clock = Clock()
            record = self.record(request.vm)
            self.space.check()
            machine = self._machine(record) if record.state is VmState.RUNNING else None
            record = self._begin(record, request.op, "resize")
            record = await self._resizing.change(record, request.spec, machine)
            return self._finish(record, request.op, clock, cold=False)

    async def take_snapshot(self, request: TakeSnapshot) -> Outcome:
        """Keep the disk as it is now; the VM goes on."""
        return await self._once(request.op, request.vm, lambda: self._take_snapshot(request))

    async def _take_snapshot(self, request: TakeSnapshot) -> Outcome:
        async with self._operations.holding("snapshot", request.vm):
            clock = Clock()
            record = self.record(request.vm)
            self.space.check()
            self._snapshots.check(record, request)
            if await self._snapshots.is_unchanged(request):
                return self._finish(record, request.op, clock, cold=False, unchanged=True)
            machine = self._machine(record) if record.state is VmState.RUNNING else None
            record = self._begin(record, request.op, "snapshot")
            is_whole = await self._snapshots.take(record, request, machine, clock)
            has_memory = self._snapshots.has_memory(request.vm, request.snapshot)
            return self._finish(
                record, request.op, clock, cold=False, is_whole=is_whole, has_memory=has_memory
            )

    async def roll_back(self, request: RollBack) -> Outcome:
        """The disk as it was, and the memory if that was kept; what they are now is kept.

        With an identity it runs.
        """
        return await self._once(request.op, request.vm, lambda: self._roll_back(request))

    async def _roll_back(self, request: RollBack) -> Outcome:
        async with self._operations.holding("rollback", request.vm), self._starts:
            clock = Clock()
            record = self.record(request.vm)
            to = await self._snapshots.remembered(record, request)
            await self.space.make_room()
            record = self._begin(record, request.op, "rollback")
            machine = self.machines.get(record.vm)
            is_whole = await self._snapshots.roll_back(
                record, request, to, machine, lambda: self._release(record, machine), clock
            )
            cold = await self._go_on_after(request, to, clock)
            return self._finish(
                self.record(request.vm),
                request.op,
                clock,
                cold=cold,
                is_whole=is_whole,
                has_memory=self._snapshots.has_memory(request.vm, request.keep),
            )

    async def _go_on_after(self, request: RollBack, to: Remembered | None, clock: Clock) -> bool:
        """Let a VM that was rolled back run, if it is to. -> whether it booted.

        Why it does not run although it should is its problem from here on.
        """
        record = self.record(request.vm)
        if record.state is VmState.RUNNING:
            return False  # it has gone on already, and an engine ended before it could say so
        problem = record.problem if record.state is VmState.PAUSED else ""  # else it is NOT_ENDED
        if request.identity is not None:
            saved = to.saved if to is not None and record.state is VmState.PAUSED else None
            try:
                return await self._start_again(record, request.identity, saved, clock)
            except AtollError as error:
                _log.warning("vm rolled back, not started", vm=request.vm, reason=str(error))
                why = " ".join(str(error).split())  # the end of a console has lines
                problem = f"rolled back, but it does not start: {why}"
        self._records.put(self.record(request.vm).model_copy(update={"problem": problem}))
        return False

    async def list_snapshots(self, request: ListSnapshots) -> SnapshotList:
        """What is kept of a VM."""
        self.record(request.vm)
        return SnapshotList(snapshots=await self._snapshots.list(request.vm))

    async def drop_snapshot(self, request: DropSnapshot) -> Outcome:
        """Let go of a snapshot."""
        return await self._once(request.op, request.vm, lambda: self._drop_snapshot(request))

    async def _drop_snapshot(self, request: DropSnapshot) -> Outcome:
        async with self._operations.holding("dropping a snapshot", request.vm):
            record = self.record(request.vm)
            await self.space.make_room()
            record = self._begin(record, request.op, "drop-snapshot")
            await self._snapshots.drop(request.vm, request.snapshot)
            return self._finish(record, request.op, Clock(), cold=False)

    async def delete(self, request: Delete) -> Empty:
        """For ever: process, disk, memory, record."""
        return await self._operations.once(request.op, lambda: self._delete(request))

    async def _delete(self, request: Delete) -> Empty:
        async with self._operations.holding("delete", request.vm):
            record = self._records.get(request.vm)
            if record is not None:
                await self.space.make_room()
                self._begin(record, request.op, "delete", fresh=True)
                await self.discard(request.vm)
                self._tell("vm-gone", request.vm)
        return Empty()

    async def died(self, machine: Machine) -> None:
        """A process ended by itself: poweroff inside, or a crash."""
        vm = machine.vm
        if self.machines.get(vm) is not machine:
            return  # an operation ended it
        async with self._operations.holding("clean up", vm, patience_s=None):
            record = self._records.get(vm)
            if record is None or self.machines.get(vm) is not machine:
                return
            await self.space.make_room()
            said = machine.process.said()[-300:]
            problem = "" if machine.ended.startswith("guest") else f"qemu ended: {said or 'killed'}"
            await self._release(record, machine)
            record = self.record(vm)
            self._records.put(
                record.model_copy(update={"state": VmState.STOPPED, "problem": problem})
            )
            _log.info("vm ended", vm=vm, problem=problem)
            self._tell("vm-state", vm)

    def heard(self, machine: Machine, event: str, data: dict[str, object]) -> None:
        """What QEMU tells by itself. A write that found no space stops the guest, unharmed."""
        if event == "SHUTDOWN":
            machine.ended = str(data.get("reason", ""))[:100]  # a word, if QEMU is honest
        elif (
            event == "BLOCK_IO_ERROR"
            and data.get("nospace") is True
            and self.machines.get(machine.vm) is machine  # else it is being ended
            and self.space.halt(machine.vm)
        ):
            self._tell("pool-full", machine.vm)

    async def go_on(self, vm: str) -> None:
        """Let a VM go on that was halted by a full pool."""
        try:
            # An operation that has halted it, to save it, must not find it running.
            async with self._operations.holding("going on after a full pool", vm):
                machine = self.machines.get(vm)
                if machine is not None:
                    await machine.resume()
                    self._tell("vm-state", vm)
        except AtollError as error:
            _log.warning("vm halted by a full pool does not go on yet", vm=vm, reason=str(error))
            if vm in self.machines:
                self.space.halt(vm)

    # -- steps

    async def _bring_up(
        self,
        record: Record,
        identity: Identity,
        saved: Saved | None,
        clock: Clock,
        *,
        cold: bool,
    ) -> Record:
        """Start the process, give it its identity, open its port."""
        if cold and (booted := for_boot(record)) != record:
            record = self._records.put(booted)
        try:
            forked = saved is not None and record.forked
            machine = await self._boot.start(record, saved, self.hold_slot, forked=forked)
            self.machines[record.vm] = machine
            if saved is not None:
                saved.pages.close()
            record = self._started(machine)
            clock.mark("start")
            await self._forget_saved(record)
            await machine.resume()
            if cold:
                await self._boot.wait_ready(machine)
                clock.mark("boot")
            if record.newborn:
                identity = identity.model_copy(update={"fresh": True})
            await self._boot.identify(machine, record, identity, forked=forked)
            clock.mark("identity")
            await self._boot.open_port(record)
        except BaseException:
            await shielded(self._give_up(record.vm), seconds=UNDO_S)
            raise
        record = self._records.put(
            record.model_copy(
                update={
                    "state": VmState.RUNNING,
                    "hostname": identity.hostname,
                    "newborn": False,
                    "forked": False,
                    "warm": not cold,
                    "problem": "",
                }
            )
        )
        self._boot.watch(machine, died=self.died, heard=self.heard)
        return record

    def _layer_to_copy(self, request: Clone) -> LayerId | None:
        """What the copy of a snapshot stands on; None copies what the source is now."""
        if request.snapshot is None:
            return None
        return self._disks.layer_of_snapshot(request.source, request.snapshot)

    async def _from_memory(self, child: Record, request: Clone) -> tuple[Record, Saved | None]:
        """A copy of a snapshot goes on from its memory, if that fits."""
        assert request.snapshot is not None
        found = await self._snapshots.memory_for(child, request.source, request.snapshot)
        if found is None:
            return child, None
        child = self._records.put(child.model_copy(update={"base": found.base}))
        return child, found.saved

    def forget_loose_memory(self, record: Record) -> None:
        """At the engine's start: memory that a snapshot which was never made would have had."""
        self._snapshots.forget_loose(record.vm)

    async def _copy_at_rest(self, source: Record, child: Record, op: str, clock: Clock) -> Outcome:
        """Copy a VM without a process: its disk layers, and its saved memory if that still fits."""
        await self._capture.disk_at_rest(source, child)
        state = source.state
        if state is VmState.PAUSED and _same_machine(source, child):
            memory = self._memory(source.vm)
            await asyncio.to_thread(memory.copy_to, self._memory(child.vm))
        else:
            state = VmState.STOPPED
        clock.mark("copy")
        child = self._records.put(child.model_copy(update={"state": state, "newborn": True}))
        return self._finish(child, op, clock, cold=False)

    async def _give_up(self, vm: str) -> None:
        """Nothing runs after a start that failed; say what is left: saved memory, or the disk."""
        await self._release(self.record(vm), self.machines.get(vm))
        record = self.record(vm)
        if record.state is VmState.PAUSED and not self._memory(vm).complete:
            self._records.put(record.model_copy(update={"state": VmState.STOPPED, "base": None}))

    async def _shut_down(self, record: Record) -> Record:
        machine = self.machines.get(record.vm)
        if machine is not None:
            with contextlib.suppress(AtollError):
                await machine.agent.shutdown("poweroff", seconds=10)
                await machine.process.wait_exit(seconds=SHUTDOWN_S)
            await self._release(record, machine)
        record = self._drop_saved(self.record(record.vm))
        return self._records.put(record.model_copy(update={"state": VmState.STOPPED}))

    async def _saved(self, record: Record) -> Saved | None:
        memory = self._memory(record.vm)
        try:
            return await asyncio.to_thread(memory.read, self._boot.key(record))
        except Internal as error:
            _log.error("saved memory unusable", vm=record.vm, reason=str(error))
            self._drop_saved(record)
            return None

    async def _forget_saved(self, record: Record) -> None:
        """From the first instruction on, saved memory no longer fits the disk."""
        memory = self._memory(record.vm)
        if memory.complete:  # removing gigabytes takes a while
            await asyncio.to_thread(memory.forget)

    def _drop_saved(self, record: Record) -> Record:
        self._memory(record.vm).forget()
        return self._records.put(record.model_copy(update={"base": None}))

    async def _release(self, record: Record, machine: Machine | None) -> None:
        """End the process and give back its slot."""
        if machine is not None:
            self.machines.pop(record.vm, None)
            self.space.forget(record.vm)
            await machine.end()
        current = self._records.get(record.vm)
        if current is None:
            return
        state = VmState.STOPPED if current.state is VmState.RUNNING else current.state
        if current.slot is not None:
            await self._boot.release(current)
        self._records.put(
            current.model_copy(
                update={"slot": None, "pid": None, "pid_started": None, "state": state}
            )
        )

    async def discard(self, vm: str) -> None:
        """Remove every trace of a VM."""
        record = self._records.get(vm)
        if record is None:
            return
        await self._release(record, self.machines.get(vm))
        await self._disks.remove(vm)
        run = self._boot.run(vm)
        await asyncio.to_thread(shutil.rmtree, run, ignore_errors=True)
        await asyncio.to_thread(self._records.drop, vm)

    # -- small parts

    async def _once(self, op: str, vm: str, act: Callable[[], Awaitable[Outcome]]) -> Outcome:
        record = self._records.get(vm)
        if record is not None and op in record.done:
            return record.done[op]
        return await self._operations.once(op, lambda: self._settled(op, vm, act))

    async def _settled(self, op: str, vm: str, act: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """An operation that failed is over: its intent must not be taken for one that was cut short.

        Except where the VM is to be removed: that stays to be done.
        """
        try:
            return await act()
        except BaseException:
            record = self._records.get(vm)
            if record and record.intent and record.intent.op == op and not record.intent.fresh:
                self._records.put(record.model_copy(update={"intent": None}))
            raise

    def _refuse_existing(self, vm: str) -> None:
        if self._records.get(vm) is not None:
            raise Conflict(f"{vm} exists already")
        if sum(1 for _ in self._records.all()) >= MAX_VMS:
            raise Exhausted(f"this node has {MAX_VMS} VMs already")

    def _begin(self, record: Record, op: str, kind: str, *, fresh: bool = False) -> Record:
        intent = Intent(op=op, kind=kind, fresh=fresh)
        return self._records.put(record.model_copy(update={"intent": intent}))

    def _finish(
        self,
        record: Record,
        op: str,
        clock: Clock,
        *,
        cold: bool,
        is_whole: bool = True,
        has_memory: bool = False,
        unchanged: bool = False,
    ) -> Outcome:
        what = record.intent.kind if record.intent else "no change"
        outcome = Outcome(
            vm=self.vm(record),
            cold_booted=cold,
            warming=cold and what == "create" and self._missed(record.spec),
            crash_consistent=not is_whole,
            memory_kept=has_memory,
            unchanged=unchanged,
            timings_ms=clock.marks,
        )
        self._records.put(record.with_outcome(op, outcome))
        _log.info("operation done", what=what, vm=record.vm, state=record.state, ms=clock.marks)
        self._tell("vm-state", record.vm)
        return outcome

    def _started(self, machine: Machine) -> Record:
        record = self.record(machine.vm)
        return self._records.put(
            record.model_copy(
                update={
                    "pid": machine.process.pid,
                    "pid_started": machine.process.start_time,
                }
            )
        )

    def hold_slot(self, vm: str, slot: int) -> Record:
        """Write down that `vm` has this network slot."""
        return self._records.put(self.record(vm).model_copy(update={"slot": slot}))

    def _machine(self, record: Record) -> Machine:
        machine = self.machines.get(record.vm)
        if machine is None:
            raise Unavailable(f"{record.vm} has no process", hint="Try: restart")
        return machine

    def _memory(self, vm: str) -> SavedMemory:
        return SavedMemory(self._records.folder(vm))

    def _tell(self, kind: str, vm: str) -> None:
        record = self._records.get(vm)
        self._publish(
            Event(
                at=time.time(),
                kind=kind,
                vm=vm,
                state=record.state if record else None,
                address=self.vm(record).address if record else None,
                detail=self.vm(record).problem if record else "",
            )
        )


def _same_machine(one: Record, other: Record) -> bool:
    """Whether the memory of one fits the other."""
    return (one.spec.cpus, one.spec.memory_bytes) == (other.spec.cpus, other.spec.memory_bytes)


def _child(source: Record, request: Clone) -> Record:
    """The record of a clone in the making. Raises Invalid for a spec that a copy cannot have."""
    spec = request.spec or source.spec
    if spec.image != source.spec.image:
        raise Invalid(f"a copy of {source.vm} has its image, {source.spec.image}")
    if spec.disk_bytes < source.spec.disk_bytes:
        raise Invalid(
            f"a disk of {show_size(spec.disk_bytes)} is smaller than that of the VM to copy",
            hint=f"Disks only grow; it has {show_size(source.spec.disk_bytes)}",
        )
    return source.model_copy(
        update={
            "vm": request.vm,
            "owner": request.owner,
            "spec": spec,
            "hostname": request.identity.hostname,
            "created_at": time.time(),
            "state": VmState.STARTING,
            "slot": None,
            "pid": None,
            "pid_started": None,
            "problem": "",
            "next_cpus": None,
            "next_memory_bytes": None,
            "forked": True,
            "done": {},
            "intent": Intent(op=request.op, kind="clone", fresh=True),
        }
    )
