"""Taking a copy of a VM, for another one or to keep: its disk, and of a machine also its memory.

Invariant: memory and disk are of one instant, in which the guest's file systems were held still, and
the source goes on whatever happens: an error or a cancelled task leaves it running.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from atoll.base import log
from atoll.base.aio import shielded
from atoll.base.errors import AtollError, Exhausted, Unavailable
from atoll.base.units import show_size
from atoll.engine.agent import FrozenGuest
from atoll.engine.boot import Boot
from atoll.engine.clock import Clock
from atoll.engine.disks import Disks, Fork
from atoll.engine.qemu.machine import Machine, Saved, precopy, save
from atoll.engine.qemu.memory import Pages
from atoll.engine.records import Record, Records
from atoll.engine.saved import SavedMemory, SnapshotMemory
from atoll.rpc.messages import VmState

FREEZE_S = 10.0  # guest file systems; the guest's own watchdog thaws after this
RESUME_S = 10.0
UNDO_S = 60.0  # taking a layer back; under a second unless the host is stuck
_log = log.get("capture")


class Capture:
    """Copies of VMs."""

    def __init__(self, *, records: Records, disks: Disks, boot: Boot) -> None:
        self._records = records
        self._disks = disks
        self._boot = boot

    async def machine(self, source: Record, child: Record, machine: Machine, clock: Clock) -> Saved:
        """A running machine, memory and disk of one instant; it runs on.

        Raises Unavailable when its file systems were not held still.
        """
        prologue, pages = await self._boot.prologue_of(source), await precopy(machine)
        clock.mark("precopy")
        async with self._forked(source, child, machine, clock) as fork:
            return await self._instant(source, machine, fork, prologue, pages, clock)

    async def disk(self, source: Record, child: Record, machine: Machine, clock: Clock) -> None:
        """The disk of a running machine, as a clean shutdown's but for open files; it runs on."""
        async with self._forked(source, child, machine, clock) as fork:
            await fork.switch()

    async def disk_at_rest(self, source: Record, child: Record) -> None:
        """The disk of a VM without a process."""
        fork = await self._fork(source, child, None)
        await fork.prepare()
        await fork.finish()

    async def snapshot(
        self, record: Record, snapshot: str, machine: Machine | None, clock: Clock
    ) -> bool:
        """Keep the disk of a VM under `snapshot`; the VM goes on as it was.

        False: what is kept is as after a power cut, for nothing held its file systems still, or its
        memory has more of them. A guest that does not answer costs 20 s, and not the snapshot.
        """
        fork = await self._disks.snapshot(record.vm, snapshot, machine.qmp if machine else None)
        if machine is None:
            await fork.prepare()
            await fork.finish()
            clock.mark("fork")
            return is_clean(record)
        guest = _guest(machine)
        async with self._switching(fork, _if_it_can(guest), clock):
            await fork.switch()
        return guest.held is True

    async def live_snapshot(
        self, record: Record, snapshot: str, machine: Machine, memory: SnapshotMemory, clock: Clock
    ) -> bool:
        """`snapshot`, with memory of the same instant; it stands still while what changed is copied.

        False is of the disk alone: with its memory it is whole.
        """
        prologue, pages = await self._boot.prologue_of(record), await precopy(machine)
        clock.mark("precopy")
        fork = await self._disks.snapshot(record.vm, snapshot, machine.qmp)
        guest = _guest(machine)

        async def keep() -> None:
            await self._keep(record, memory, saved)
            clock.mark("memory")

        async with self._switching(fork, _if_it_can(guest), clock, keep):
            saved = await self._instant(record, machine, fork, prologue, pages, clock)
        return guest.held is True

    async def live_snapshot_at_rest(
        self, record: Record, snapshot: str, memory: SnapshotMemory, clock: Clock
    ) -> bool:
        """`live_snapshot` of a paused VM. Raises Internal when its memory cannot be used any more."""
        fork = await self._disks.snapshot(record.vm, snapshot, None)
        await fork.prepare()
        self.keep_paused(record, memory)
        await fork.finish()
        clock.mark("fork")
        return False

    def keep_paused(self, record: Record, memory: SnapshotMemory) -> None:
        """Let a snapshot have the memory of a paused VM."""
        memory.keep_paused(
            SavedMemory(self._records.folder(record.vm)),
            shape=self._boot.shape(record),
            base=record.base,
            disk_bytes=self._disks.size_bytes(record.vm),
        )

    async def end(self, machine: Machine, end: Callable[[], Awaitable[None]]) -> bool:
        """Have `end` end a machine's process while its file systems are held still.

        False: they were not, or for how long is not known. It is ended all the same.
        """
        guest, asked = _guest(machine), time.monotonic()
        async with _if_it_can(guest):
            await end()
            # The guest's watchdog counts from its receipt, which is later.
            is_in_time = time.monotonic() - asked < FREEZE_S
        return bool(guest.mounts) and is_in_time

    async def end_live(
        self,
        record: Record,
        machine: Machine,
        memory: SnapshotMemory,
        end: Callable[[], Awaitable[None]],
    ) -> bool:
        """`end`, with its memory kept first; a failure before that leaves it running."""
        prologue, pages = await self._boot.prologue_of(record), await precopy(machine)
        guest, asked = _guest(machine), time.monotonic()
        async with _if_it_can(guest):
            async with self.resume_on_failure(machine, record):
                try:
                    await machine.stop()
                    is_in_time = time.monotonic() - asked < FREEZE_S
                    size = self._disks.size_bytes(record.vm)
                    await self._keep(
                        record, memory, await save(machine, prologue, pages, disk_bytes=size)
                    )
                except BaseException:
                    memory.forget()
                    raise
            await end()
        return bool(guest.mounts) and is_in_time

    async def _keep(self, record: Record, memory: SnapshotMemory, saved: Saved) -> None:
        needs, free = saved.pages.bytes_held, self._disks.free_bytes()
        if needs > free:
            raise Exhausted(
                f"the memory of {record.vm} takes {show_size(needs)}, the pool has {show_size(free)}",
                hint="Remove VMs or snapshots; without memory: no --live, or `rollback … --cold`",
            )
        shape = self._boot.shape(record)
        meta = await asyncio.to_thread(memory.keep, saved, shape=shape, base=record.base)
        saved.pages.close()
        memory.commit(meta)

    async def _instant(
        self,
        record: Record,
        machine: Machine,
        fork: Fork,
        prologue: bytes,
        pages: Pages,
        clock: Clock,
    ) -> Saved:
        """Memory and disk of one instant; the machine runs on."""
        async with self.resume_on_failure(machine, record):
            started = time.monotonic()
            await machine.stop()  # the only part in which it stands still
            size = self._disks.size_bytes(record.vm)
            saved = await save(machine, prologue, pages, disk_bytes=size)
            await fork.switch()
            await machine.resume()
            clock.note("pause", (time.monotonic() - started) * 1000)
        return saved

    @contextlib.asynccontextmanager
    async def resume_on_failure(self, machine: Machine, record: Record) -> AsyncIterator[None]:
        """Let a machine that the body stopped run again when the body fails."""
        try:
            yield
        except BaseException:
            # From its next instruction on, whatever was saved of it is out of date.
            SavedMemory(self._records.folder(record.vm)).forget()
            with contextlib.suppress(AtollError, TimeoutError):
                await shielded(machine.resume(), seconds=RESUME_S)
            with contextlib.suppress(AtollError):
                await self._boot.open_port(record)
            raise

    @contextlib.asynccontextmanager
    async def _forked(
        self, source: Record, child: Record, machine: Machine, clock: Clock
    ) -> AsyncIterator[Fork]:
        """The child's disk; the body switches it at the instant of its choice."""
        fork, guest = await self._fork(source, child, machine), _guest(machine)
        async with self._switching(fork, guest, clock):
            yield fork
        if not guest.held:
            raise Unavailable(
                f"{source.vm} did not hold its file systems still for the copy",
                hint="Try again; a VM under heavy load may need a second try",
            )

    @contextlib.asynccontextmanager
    async def _switching(
        self,
        fork: Fork,
        held: contextlib.AbstractAsyncContextManager[object],
        clock: Clock,
        before_end: Callable[[], Awaitable[None]] | None = None,
    ) -> AsyncIterator[None]:
        """`fork` around the body, which switches it while the guest is `held`.

        What `before_end` does is done before the pool says that there is a copy.
        """
        try:
            await fork.prepare()
            clock.mark("prepare")
            async with held:
                clock.mark("freeze")
                yield
            if before_end is not None:
                await before_end()
            await fork.finish()
        except BaseException:
            await shielded(fork.abandon(), seconds=UNDO_S)
            raise
        clock.mark("fork")

    async def _fork(self, source: Record, child: Record, machine: Machine | None) -> Fork:
        return await self._disks.fork(
            source.vm,
            child.vm,
            child.owner,
            machine.qmp if machine else None,
            size_bytes=child.spec.disk_bytes,
        )


def is_clean(record: Record) -> bool:
    """Whether the disk of a VM without a process is as a shutdown leaves it. Pure."""
    return record.state is VmState.STOPPED and not record.problem


def _guest(machine: Machine) -> FrozenGuest:
    return FrozenGuest(machine.agent, held_seconds=FREEZE_S, seconds=FREEZE_S)


@contextlib.asynccontextmanager
async def _if_it_can(guest: FrozenGuest) -> AsyncIterator[None]:
    """Hold the guest still during the body; one that does not answer is not held."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(guest)
        except AtollError as error:
            _log.warning("guest not held still", reason=str(error))
        yield
