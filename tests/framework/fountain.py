"""A shell that is a source of bytes, as fast as it is read: a terminal's without SSH and a VM."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from atoll.domain.account import Caller, Route

CHUNK = 1 << 15
ROW = b"%07d \x1b[3%dmthe quick brown fox\x1b[0m jumps over the lazy dog 0123456789\r\n"
PAGE = b"".join(ROW % (number, number % 8) for number in range(20_000))


class Fountain:
    """`<n>` and Enter: n bytes of rows, then `done`. Ctrl-C: no more of them, then `stopped`."""

    def __init__(self, show: Callable[[bytes], None]) -> None:
        self._show = show
        self._line = b""
        self._wanted = 0
        self._last = b""
        self._work = asyncio.Event()
        self._may_show = asyncio.Event()
        self._may_show.set()
        self._is_over = False
        self.takes = asyncio.Event()  # cleared: it takes nothing that is typed
        self.takes.set()
        self.shown = 0
        self.pauses = 0
        self.sizes: list[tuple[int, int]] = []
        self.writes: list[bytes] = []

    @property
    def is_flowing(self) -> bool:
        """Whether it has not been told to wait."""
        return self._may_show.is_set()

    async def run(self) -> str:
        self._show(b"> ")
        while not self._is_over:
            self._work.clear()
            await self._work.wait()
            while self._wanted > 0 and not self._is_over:
                await self._may_show.wait()
                start = self.shown % len(PAGE)
                data = PAGE[start : start + min(CHUNK, self._wanted)]
                self._wanted -= len(data)
                self.shown += len(data)
                self._show(data)
                await asyncio.sleep(0)
            if self._last:
                self._show(b"\x1b[0m\r\n" + self._last + b"\r\n> ")
        return "The source is dry."

    async def write(self, data: bytes) -> None:
        await self.takes.wait()
        self._line += data
        self.writes.append(data)
        if b"\x03" in data:
            self._wanted, self._last, self._line = 0, b"stopped", b""
        elif b"\r" in data:
            self._wanted, self._last, self._line = int(self._line), b"done", b""
        self._work.set()

    def resize(self, columns: int, rows: int) -> None:
        self.sizes.append((columns, rows))

    def pause(self) -> None:
        self.pauses += 1
        self._may_show.clear()

    def resume(self) -> None:
        self._may_show.set()

    def hang_up(self) -> None:
        self._is_over = True
        self.takes.set()
        self._may_show.set()
        self._work.set()


class Fountains:
    """Terminals' shells, all of this kind; `made` holds them."""

    def __init__(self) -> None:
        self.made: list[Fountain] = []

    async def in_vm(
        self, route: Route, size: tuple[int, int], show: Callable[[bytes], None]
    ) -> Fountain:
        self.made.append(Fountain(show))
        return self.made[-1]

    async def prompt(
        self, caller: Caller, size: tuple[int, int], show: Callable[[bytes], None]
    ) -> Fountain:
        self.made.append(Fountain(show))
        return self.made[-1]
