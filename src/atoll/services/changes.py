"""A counter that goes up when something the edge shows has changed; who cares waits beyond it."""

from __future__ import annotations

import asyncio


class Changes:
    """Many bumps may wake a waiter once: it reads the state itself, the number is no message."""

    def __init__(self) -> None:
        self.version = 0
        self._moved = asyncio.Event()

    def bump(self) -> None:
        """Something changed."""
        self.version += 1
        self._moved.set()
        self._moved = asyncio.Event()

    async def wait_beyond(self, version: int) -> int:
        """Return the version once it is greater than `version`; at once if it is already."""
        while self.version <= version:
            await self._moved.wait()
        return self.version
