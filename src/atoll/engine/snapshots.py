"""Snapshots of one VM: of its disk, which is a pin in the pool, and if it is live also of its memory.

An engine that ends in the middle is asked again with the same request, and finds one of these:

- taking, before the pin: nothing is kept. There may be one more layer, which a QEMU that runs is
  switched to when it is adopted, and memory that belongs to no pin, which is removed; the next try
  freezes anew. After the pin: it is kept, with its memory, which is whole before the pin is made.
- rolling back, before the process is ended: the VM runs, its guest lets go of its file systems by
  itself. After it: it is stopped, and its problem says `NOT_ENDED`. Saved memory goes before the disk
  changes, so no memory is left that fits another disk. What the pool has of a rollback is told by its
  plan, which does the rest. Once the disk is the old one, a VM that is to go on from its memory becomes
  one that is paused, with all that is true of such a one: it is resumed. Any other may run already: it
  boots once more.
- dropping: the pin goes first; memory and layers that only it kept go when the pool is looked through.

How far what is kept can be trusted is known to the request alone that kept it: after a crash, and to
whoever asks for what was kept before, the lesser is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from atoll.base import log
from atoll.base.errors import AtollError, Conflict, Internal
from atoll.engine.boot import Boot
from atoll.engine.capture import Capture, is_clean
from atoll.engine.clock import Clock
from atoll.engine.disks import Disks
from atoll.engine.qemu.machine import Machine, Saved
from atoll.engine.records import Record, Records
from atoll.engine.saved import COLD, SavedMemory, SnapshotMemory, live_snapshots
from atoll.rpc.messages import Kept, RollBack, TakeSnapshot, VmState

NOT_ENDED = "its rollback has not ended"
_SETTLED = (VmState.RUNNING, VmState.PAUSED, VmState.STOPPED)
_log = log.get("snapshots")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """A machine as a live snapshot has it; its memory stands on template `base`."""

    saved: Saved
    base: str | None


class Snapshots:
    """Takes, restores and drops; its caller holds the VM and has written the intent."""

    def __init__(self, *, records: Records, disks: Disks, boot: Boot, capture: Capture) -> None:
        self._records = records
        self._disks = disks
        self._boot = boot
        self._capture = capture

    # -- taking

    def check(self, record: Record, request: TakeSnapshot) -> None:
        """Raises Conflict for a VM that cannot have such a snapshot now."""
        if record.state not in _SETTLED:
            raise Conflict(f"{record.vm} is {record.state}, it cannot have a snapshot now")
        if record.newborn:
            # Going back to it later would bring back the machine-id of the VM it was copied from.
            raise Conflict(
                f"{record.vm} has not run since it was copied, so it is not itself yet",
                hint="Start it first",
            )
        if request.live and record.state is VmState.STOPPED:
            raise Conflict(
                f"{record.vm} is stopped, so it has no memory to keep",
                hint="Without --live it works",
            )

    async def is_unchanged(self, request: TakeSnapshot) -> bool:
        """Whether it asks for nothing: the disk is as another snapshot has it, and that may do."""
        if not request.unless_unchanged or self._disks.has_snapshot(request.vm, request.snapshot):
            return False
        return await self._disks.is_kept(request.vm)

    async def take(
        self, record: Record, request: TakeSnapshot, machine: Machine | None, clock: Clock
    ) -> bool:
        """Keep a VM as it is now, if `snapshot` keeps nothing yet; see Capture."""
        if self._disks.has_snapshot(record.vm, request.snapshot):
            return False
        if not request.live:
            return await self._capture.snapshot(record, request.snapshot, machine, clock)
        memory = self._memory(record.vm, request.snapshot)
        try:
            if machine is None:
                return await self._capture.live_snapshot_at_rest(
                    record, request.snapshot, memory, clock
                )
            return await self._capture.live_snapshot(
                record, request.snapshot, machine, memory, clock
            )
        except BaseException:
            if not self._disks.has_snapshot(record.vm, request.snapshot):
                memory.forget()
            raise

    # -- going back

    async def remembered(self, record: Record, request: RollBack) -> Remembered | None:
        """The machine that a VM is to be again, read before what it is is given up. None: it boots.

        Raises NotFound or Conflict for a rollback that cannot be, also of a damaged disk or memory.
        """
        self._disks.plan_rollback(request.vm, request.snapshot, request.keep)
        memory = self._memory(request.vm, request.snapshot)
        if request.cold or not memory.complete:
            return None
        try:
            memory.check(self._boot.shape(record))
            return await self._read(memory, self._boot.key(record))
        except Internal as error:
            raise Conflict(
                f"the memory of this snapshot cannot be used: {error.message}", hint=COLD
            ) from error

    async def roll_back(
        self,
        record: Record,
        request: RollBack,
        to: Remembered | None,
        machine: Machine | None,
        end: Callable[[], Awaitable[None]],
        clock: Clock,
    ) -> bool:
        """Leave the VM with the disk that `snapshot` has, paused if it goes on from memory, else stopped.

        `end` ends the process of `machine`. The problem of a VM that is stopped is `NOT_ENDED`, for its
        caller to clear. False: the disk that `keep` has is as after a power cut.
        """
        plan = self._disks.plan_rollback(request.vm, request.snapshot, request.keep)
        if to is not None and not plan:
            self._catch_up(record, request, machine)
            return False

        async def give_up() -> None:
            # Written first: a crash from here on leaves a VM that is off for no other reason.
            self._change(request.vm, problem=NOT_ENDED)
            await end()

        is_whole = await self._end(record, request, to, machine, give_up)
        clock.mark("end")
        paused = SavedMemory(self._records.folder(request.vm))
        await asyncio.to_thread(paused.forget)  # removing gigabytes takes a while
        # They count once there is memory: they must be right from the first moment on.
        of_memory = {"base": to.base if to is not None else None, "forked": to is not None}
        self._change(request.vm, state=VmState.STOPPED, **of_memory)
        await self._disks.roll_back(request.vm, request.snapshot, request.keep)
        if to is not None:
            self._pause(request)
        clock.mark("disk")
        return is_whole

    async def _end(
        self,
        record: Record,
        request: RollBack,
        to: Remembered | None,
        machine: Machine | None,
        give_up: Callable[[], Awaitable[None]],
    ) -> bool:
        """Give the VM up; memory that is kept is of `keep` once the pool has that."""
        is_new = not self._disks.has_snapshot(request.vm, request.keep)
        memory = self._memory(request.vm, request.keep)
        if machine is not None and to is not None:
            return await self._capture.end_live(record, machine, memory, give_up) and is_new
        if machine is not None:
            return await self._capture.end(machine, give_up) and is_new
        if record.state is VmState.PAUSED and not record.newborn:
            try:
                self._capture.keep_paused(record, memory)
            except AtollError as error:  # it could not have been resumed, either
                _log.warning("memory not kept", vm=record.vm, reason=str(error))
        is_whole = is_clean(record)
        await give_up()
        return is_whole and is_new

    def _catch_up(self, record: Record, request: RollBack, machine: Machine | None) -> None:
        """The disk is the old one already, for an engine ended after that.

        Only where nothing has run since does the memory still fit: a VM that ran is paused no more,
        and its problem is another.
        """
        is_off = machine is None and record.problem == NOT_ENDED
        if is_off and record.state is VmState.STOPPED:
            self._pause(request)
        elif is_off and record.state is VmState.PAUSED:
            self._change(request.vm, problem="")

    def _pause(self, request: RollBack) -> None:
        memory = self._memory(request.vm, request.snapshot)
        memory.pause_into(SavedMemory(self._records.folder(request.vm)))
        self._change(request.vm, state=VmState.PAUSED, problem="")

    # -- what is kept

    async def memory_for(self, child: Record, source: str, snapshot: str) -> Remembered | None:
        """The machine that a copy of a snapshot goes on from; None where there is none that fits."""
        memory = self._memory(source, snapshot)
        if not memory.complete:
            return None
        try:
            return await self._read(memory, self._boot.key(child))
        except Internal as error:
            _log.warning("memory of a snapshot not used", vm=source, reason=str(error))
            return None

    async def _read(self, memory: SnapshotMemory, key: str) -> Remembered:
        base = memory.meta().base
        if base is not None:
            await self._boot.load_template(base)
        return Remembered(saved=await asyncio.to_thread(memory.read, key), base=base)

    def has_memory(self, vm: str, snapshot: str) -> bool:
        """Whether this is a live snapshot."""
        return self._memory(vm, snapshot).complete

    async def list(self, vm: str) -> tuple[Kept, ...]:
        """All of a VM, and what each alone takes."""
        held = await self._disks.snapshots(vm)
        for name in live_snapshots(self._records.folder(vm)):
            if name in held:
                held[name] += self._memory(vm, name).disk_usage
        return tuple(Kept(snapshot=name, alone_bytes=size) for name, size in held.items())

    async def drop(self, vm: str, snapshot: str) -> None:
        """Let go of one; one that is not there is fine. Raises Conflict if it is another VM's."""
        await self._disks.drop_snapshot(vm, snapshot)
        await asyncio.to_thread(self._memory(vm, snapshot).forget)

    def forget_loose(self, vm: str) -> None:
        """Remove memory that is of no snapshot: an engine ended between the two."""
        if self._disks.is_damaged:
            return  # what is kept cannot be told
        for name in live_snapshots(self._records.folder(vm)):
            if not self._disks.has_snapshot(vm, name):
                self._memory(vm, name).forget()

    def _memory(self, vm: str, snapshot: str) -> SnapshotMemory:
        return SnapshotMemory(self._records.folder(vm), snapshot)

    def _change(self, vm: str, **changes: object) -> None:
        record = self._records.get(vm)
        assert record is not None  # its caller holds it
        self._records.put(record.model_copy(update=changes))
