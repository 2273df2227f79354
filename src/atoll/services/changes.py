"""A counter that goes up when something has changed; who cares waits beyond it.

The edge has one of what it shows, whoever follows what goes on (`events --follow`, `ls --watch`, a web
page) has one of everything, which the others feed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from atoll.base.timeout import timeout

IN_FORCE_S = 1.0  # the edge takes milliseconds; whoever asks is not kept from an answer
LOOK_S = 0.5  # between two looks of one follower: a person reads no faster


class Numbered(Protocol):
    """A row of what only grows."""

    @property
    def id(self) -> int:
        """Greater than those of all before it."""
        ...


R = TypeVar("R", bound=Numbered)


@dataclass(frozen=True, slots=True)
class Mark:
    """Up to where somebody has read."""

    id: int
    version: int


class Changes:
    """Many bumps may wake a waiter once: it reads the state itself, the number is no message."""

    def __init__(self, *, also: Changes | None = None) -> None:
        """`also` is bumped with this one."""
        self.version = 0
        self._also = also
        self._shown: int | None = None  # the version that is in force at the edge
        self._moved = asyncio.Event()
        self._shows = asyncio.Event()

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

    def show(self, version: int) -> None:
        """What has changed up to this version is in force at the edge."""
        self._shown = version
        self._shows.set()
        self._shows = asyncio.Event()

    async def in_force(self, *, seconds: float = IN_FORCE_S) -> None:
        """Wait until what has changed so far is in force at the edge, where there is one that answers."""
        if self._shown is None:
            return
        with contextlib.suppress(TimeoutError):
            async with timeout(seconds):
                await self.shown(self.version)

    async def shown(self, version: int) -> None:
        """Return when what has changed up to this version is in force at the edge, whenever that is."""
        while self._shown is None or self._shown < version:
            await self._shows.wait()

    async def looks(self, version: int) -> AsyncGenerator[None, None]:
        """Yield whenever there may be something new beyond `version`, LOOK_S apart at least.

        Take the version before the first look at the state, and no change is missed. What the body of
        the loop takes counts as well: a slow reader just looks less often.
        """
        while True:
            version = await self.wait_beyond(version)
            yield
            await asyncio.sleep(LOOK_S)


async def following(
    changes: Changes, mark: Mark, page: Callable[[int], Awaitable[tuple[R, ...]]], *, size: int
) -> AsyncGenerator[tuple[R, ...], None]:
    """Rows beyond the mark as they come, some at a time, for ever.

    `page` reads those after an id, oldest first, `size` at most.
    """
    seen = mark.id
    async with contextlib.aclosing(changes.looks(mark.version)) as looks:
        async for _ in looks:
            is_more = True
            while is_more:
                found = await page(seen)
                if found:
                    seen = found[-1].id
                    yield found
                is_more = len(found) == size
