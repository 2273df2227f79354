"""Operations on VMs: one at a time per VM, once per operation id, to their end whoever waits.

Invariant: an operation runs in a task of this module's group, so a caller that gives up or goes away
neither stops it half way nor makes it run twice.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from atoll.base.aio import TaskGroup
from atoll.base.errors import Conflict, Exhausted, Unavailable
from atoll.base.timeout import timeout

T = TypeVar("T")
UNDO_S = 15.0  # ending a process and removing a disk takes a fraction of a second
BUSY_WAIT_S = 5.0  # a second command on a busy VM waits this long, then is told what runs


class Operations:
    """Runs operations; use as an async context manager that outlives them."""

    def __init__(self) -> None:
        self._group = TaskGroup()
        self._running: dict[str, asyncio.Task[Any]] = {}
        self._ending = False
        self._locks: dict[str, _Lock] = {}

    async def __aenter__(self) -> Operations:
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._running.values():
            task.cancel()
        await self._group.__aexit__(None, None, None)

    async def finish(self, *, seconds: float) -> None:
        """Begin nothing any more; wait for what runs, then cancel it and wait until it is undone."""
        self._ending = True
        running = list(self._running.values())
        if running:
            await asyncio.wait(running, timeout=seconds)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=UNDO_S)

    async def once(self, op: str, act: Callable[[], Awaitable[T]]) -> T:
        """Run `act`, or join the run of the same `op` that is under way.

        Raises what `act` raises, and Unavailable when the engine ends.
        """
        task = self._running.get(op)
        if task is None:
            if self._ending:
                raise Unavailable("the engine is stopping", hint="Try again in a moment")
            task = self._group.create_task(self._guarded(act), name=op)
            self._running[op] = task
            task.add_done_callback(lambda _: self._running.pop(op, None))
        await asyncio.wait([task])  # unlike `await task`: neither's cancellation is the other's
        if task.cancelled():
            raise Unavailable("the engine is stopping", hint="Try again in a moment")
        result: T | Exception = task.result()
        if isinstance(result, Exception):
            raise result
        return result

    async def _guarded(self, act: Callable[[], Awaitable[T]]) -> T | Exception:
        try:
            return await act()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return Exhausted(
                    "the pool is full", hint="Free space on its file system, or enlarge that"
                )
            return error
        except Exception as error:  # noqa: BLE001  the group must survive; the caller gets it
            return error

    @asynccontextmanager
    async def holding(
        self, what: str, *vms: str, patience_s: float | None = BUSY_WAIT_S
    ) -> AsyncIterator[None]:
        """Own these VMs while the body runs; two are taken in order of their ids.

        Raises Conflict naming what runs when one stays busy for `patience_s` (None: waits for ever).
        """
        held: list[_Lock] = []
        try:
            for vm in sorted(set(vms)):
                lock = self._locks.setdefault(vm, _Lock())
                await lock.take(vm, what, patience_s)
                held.append(lock)
            yield
        finally:
            for lock in held:
                lock.free()
            for vm in vms:
                known = self._locks.get(vm)
                if known is not None and known.unused:
                    del self._locks[vm]

    def busy(self, vm: str) -> bool:
        """Whether an operation owns `vm` now."""
        return vm in self._locks


class _Lock:
    """A lock that can say what it is held for."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._waiters = 0
        self.held_for = ""

    @property
    def unused(self) -> bool:
        return not self._lock.locked() and self._waiters == 0

    async def take(self, vm: str, what: str, patience_s: float | None) -> None:
        self._waiters += 1
        try:
            async with timeout(patience_s):
                await self._lock.acquire()
        except TimeoutError as error:
            raise Conflict(
                f"{vm} is busy: {self.held_for}", hint="Try again in a moment"
            ) from error
        finally:
            self._waiters -= 1
        self.held_for = what

    def free(self) -> None:
        self.held_for = ""
        self._lock.release()
