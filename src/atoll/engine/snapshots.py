"""Snapshots of one VM's disk: what is kept is a pin in the pool, and nothing in the VM's record.

An engine that ends in the middle is asked again with the same request, and finds one of these:

- taking, before the pin: nothing is kept. There may be one more layer, which a QEMU that runs is
  switched to when it is adopted; the next try freezes anew. After the pin: it is kept.
- rolling back, before the process is ended: the VM runs, its guest lets go of its file systems by
  itself. After it: it is stopped, and its problem says `NOT_ENDED`. Saved memory goes before the disk
  changes, so no memory is left that fits another disk. What the pool has of a rollback is told by its
  plan, which does the rest. Once the disk is the old one, the VM may run already: it boots once more.
- dropping: the pin goes first; layers that only it kept go when the pool is looked through.

How far what is kept can be trusted is known to the request alone that kept it: after a crash, and to
whoever asks for what was kept before, the lesser is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from atoll.base.errors import Conflict
from atoll.engine.capture import Capture, is_clean
from atoll.engine.clock import Clock
from atoll.engine.disks import Disks
from atoll.engine.qemu.machine import Machine
from atoll.engine.records import Record, Records
from atoll.engine.saved import SavedMemory
from atoll.rpc.messages import RollBack, TakeSnapshot, VmState

NOT_ENDED = "its rollback has not ended"
_SETTLED = (VmState.RUNNING, VmState.PAUSED, VmState.STOPPED)


class Snapshots:
    """Takes, restores and drops; its caller holds the VM and has written the intent."""

    def __init__(self, *, records: Records, disks: Disks, capture: Capture) -> None:
        self._records = records
        self._disks = disks
        self._capture = capture

    def check(self, record: Record) -> None:
        """Raises Conflict for a VM that cannot have a snapshot now."""
        if record.state not in _SETTLED:
            raise Conflict(f"{record.vm} is {record.state}, it cannot have a snapshot now")
        if record.newborn:
            # Going back to it later would bring back the machine-id of the VM it was copied from.
            raise Conflict(
                f"{record.vm} has not run since it was copied, so it is not itself yet",
                hint="Start it first",
            )

    async def is_unchanged(self, request: TakeSnapshot) -> bool:
        """Whether it asks for nothing: the disk is as another snapshot has it, and that may do."""
        if not request.unless_unchanged or self._disks.has_snapshot(request.vm, request.snapshot):
            return False
        return await self._disks.is_kept(request.vm)

    async def take(
        self, record: Record, snapshot: str, machine: Machine | None, clock: Clock
    ) -> bool:
        """Keep the disk as it is now, if `snapshot` keeps nothing yet; see Capture.snapshot."""
        if self._disks.has_snapshot(record.vm, snapshot):
            return False
        return await self._capture.snapshot(record, snapshot, machine, clock)

    def check_rollback(self, request: RollBack) -> None:
        """Raises NotFound or Conflict for a rollback that cannot be, also of a damaged disk."""
        self._disks.plan_rollback(request.vm, request.snapshot, request.keep)

    async def roll_back(
        self,
        record: Record,
        request: RollBack,
        machine: Machine | None,
        end: Callable[[], Awaitable[None]],
        clock: Clock,
    ) -> bool:
        """Leave the VM stopped, its disk as `snapshot` has it; `end` ends the process of `machine`.

        Its problem is `NOT_ENDED`, for its caller to clear. False: what `keep` has is as after a power
        cut.
        """

        async def give_up() -> None:
            # Written first: a crash from here on leaves a VM that is off for no other reason.
            self._change(request.vm, problem=NOT_ENDED)
            await end()

        is_new = not self._disks.has_snapshot(request.vm, request.keep)
        if machine is not None:
            is_whole = await self._capture.end(machine, give_up)
        else:
            is_whole = is_clean(record)
            await give_up()
        clock.mark("end")
        memory = SavedMemory(self._records.folder(request.vm))
        await asyncio.to_thread(memory.forget)  # removing gigabytes takes a while
        self._change(request.vm, state=VmState.STOPPED, base=None)
        await self._disks.roll_back(request.vm, request.snapshot, request.keep)
        clock.mark("disk")
        return is_new and is_whole

    def _change(self, vm: str, **changes: object) -> None:
        record = self._records.get(vm)
        assert record is not None  # its caller holds it
        self._records.put(record.model_copy(update=changes))
