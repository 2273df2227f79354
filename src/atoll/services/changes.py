"""A counter that goes up when something has changed; who cares waits beyond it.

The edge has one of what it shows, whoever follows what goes on (`events --follow`, `ls --watch`, a web
page) has one of everything, which the others feed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

LOOK_S = 0.5  # between two looks of one follower: a person reads no faster


class Changes:
    """Many bumps may wake a waiter once: it reads the state itself, the number is no message."""

    def __init__(self, *, also: Changes | None = None) -> None:
        """`also` is bumped with this one."""
        self.version = 0
        self._also = also
        self._moved = asyncio.Event()

    def bump(self) -> None:
        """Something changed."""
        self.version += 1
        self._moved.set()
        self._moved = asyncio.Event()
        if self._also is not None:
            self._also.bump()

    async def wait_beyond(self, version: int) -> int:
        """Return the version once it is greater than `version`; at once if it is already."""
        while self.version <= version:
            await self._moved.wait()
        return self.version

    async def looks(self, version: int) -> AsyncGenerator[None, None]:
        """Yield whenever there may be something new beyond `version`, LOOK_S apart at least.

        Take the version before the first look at the state, and no change is missed. What the body of
        the loop takes counts as well: a slow reader just looks less often.
        """
        while True:
            version = await self.wait_beyond(version)
            yield
            await asyncio.sleep(LOOK_S)
