"""Who is there: connections of one kind, and a way to wait until the last has left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

from atoll.base.timeout import timeout

T = TypeVar("T")


class Roll(Generic[T]):
    """A set that can be waited on to become empty."""

    def __init__(self) -> None:
        self._present: set[T] = set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def __iter__(self) -> Iterator[T]:
        return iter(tuple(self._present))

    def __len__(self) -> int:
        return len(self._present)

    def add(self, one: T) -> None:
        self._present.add(one)
        self._is_empty.clear()

    def discard(self, one: T) -> None:
        self._present.discard(one)
        if not self._present:
            self._is_empty.set()

    async def see_off(
        self, ask: Callable[[T], None], end: Callable[[T], None], *, seconds: float
    ) -> None:
        """Ask all to leave, and end those who are still there after `seconds`."""
        for nudge in (ask, end):
            for one in self:
                nudge(one)
            with suppress(TimeoutError):
                async with timeout(seconds):
                    await self._is_empty.wait()
                    return
