"""Room in the pool: which VMs a full one has halted, when they go on, and the ballast that helps then.

Invariant: a VM halted on a write goes on only when there is room without the ballast, so the ballast
is there for whoever frees space. Removing a VM, stopping one and starting the engine write a few
kilobytes themselves: they give the ballast back first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from atoll.base import log
from atoll.base.errors import Exhausted
from atoll.base.units import show_size
from atoll.engine.disk.reserve import Reserve
from atoll.engine.disks import Disks

POLL_S = 1.0
ENOUGH = 64 << 20  # bytes; with less, VMs that go on would only be halted again
HALTED = "halted: the pool is full; it goes on when there is space"
_log = log.get("space")


class Space:
    """Watches the pool's free bytes. `reserve_bytes` is the size of the ballast."""

    def __init__(self, disks: Disks, reserve: Reserve, *, reserve_bytes: int) -> None:
        self._disks = disks
        self._reserve = reserve
        self._reserve_bytes = reserve_bytes
        self._halted: set[str] = set()

    def halt(self, vm: str) -> bool:
        """Note that QEMU halted `vm` on a write; False when that was known."""
        if vm in self._halted:
            return False
        _log.error("pool full, vm halted on a write", vm=vm)
        self._halted.add(vm)
        return True

    def forget(self, vm: str) -> None:
        """It has no process any more."""
        self._halted.discard(vm)

    def problem(self, vm: str) -> str:
        """What to tell about `vm`; empty when it is not halted."""
        return HALTED if vm in self._halted else ""

    def check(self) -> None:
        """Raises Exhausted when the pool is too full for another VM."""
        free_bytes = self._disks.free_bytes()
        if free_bytes < ENOUGH:
            raise Exhausted(
                f"the pool is full: {show_size(free_bytes)} left",
                hint="Free space on its file system, or enlarge that",
            )

    async def make_room(self) -> None:
        """Give the ballast back if there is no other room: what follows frees space."""
        if self._disks.free_bytes() < ENOUGH and self._reserve.held_bytes:
            _log.warning("pool full, reserve released")
            await asyncio.to_thread(self._reserve.release)

    async def watch(self, go_on: Callable[[str], Awaitable[None]]) -> None:
        """For ever: keep the ballast, and let halted VMs go on once there is space again."""
        while True:
            with contextlib.suppress(Exhausted, OSError):
                await asyncio.to_thread(self._reserve.hold)
            if self._halted and self._has_room():
                for vm in list(self._halted):
                    self._halted.discard(vm)
                    await go_on(vm)
            await asyncio.sleep(POLL_S)

    def _has_room(self) -> bool:
        """Room besides the ballast, whether that is held or was given back."""
        besides = self._disks.free_bytes() + self._reserve.held_bytes - self._reserve_bytes
        return besides >= ENOUGH
