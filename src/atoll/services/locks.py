"""One change at a time per VM. A second one waits a little, then is told what runs.

Behind a change that nobody asked for it waits until that is over: no command shall fail by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from atoll.base.errors import Conflict
from atoll.base.timeout import timeout
from atoll.domain.vm import title

PATIENCE_S = 5.0  # most changes take well under a second
UNASKED_S = 60.0  # as long as a snapshot may take; one of a guest that does not answer takes 20 s


@dataclass(slots=True)
class _Held:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
    doing: str = ""
    is_unasked: bool = False


class VmLocks:
    """Locks by VM id, kept while somebody holds or waits for them."""

    def __init__(self, *, patience_s: float = PATIENCE_S) -> None:
        self._held: dict[str, _Held] = {}
        self._patience_s = patience_s

    def doing(self, vm: str) -> str | None:
        """What runs on this VM now."""
        held = self._held.get(vm)
        return held.doing if held and held.lock.locked() else None

    @asynccontextmanager
    async def hold(
        self, vm: str, *, label: str, doing: str, unasked: bool = False
    ) -> AsyncIterator[None]:
        """Hold the VM's lock in the body, which nobody has asked for if `unasked`.

        Raises Conflict naming what runs when it is not free within the patience.
        """
        held = self._held.setdefault(vm, _Held())
        held.users += 1
        try:
            try:
                await self._acquire(held)
            except TimeoutError as error:
                raise Conflict(
                    f"{title(label)} is busy: `{held.doing}` is running",
                    hint="Try again in a moment",
                ) from error
            try:
                held.doing, held.is_unasked = doing, unasked
                yield
            finally:
                held.lock.release()
        finally:
            held.users -= 1
            if not held.users:
                del self._held[vm]

    async def _acquire(self, held: _Held) -> None:
        try:
            async with timeout(self._patience_s):
                await held.lock.acquire()
        except TimeoutError:
            if not held.is_unasked:
                raise
            async with timeout(UNASKED_S):
                await held.lock.acquire()
