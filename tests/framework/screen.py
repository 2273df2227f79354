"""What a person sees: a client on a pseudo-terminal, and a model of the terminal's screen (pyte)."""

from __future__ import annotations

import re

import pyte

from atoll.base.aio import poll
from framework.clients import Terminal


class Screen(Terminal):
    """A client whose output goes to a screen; `rows()` is what it shows."""

    def __init__(self, argv: list[str], *, columns: int = 80, rows: int = 24) -> None:
        self.received = b""
        self.model = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.model)
        super().__init__(argv, columns=columns, rows=rows)

    def rows(self) -> list[str]:
        """The rows that are not empty, without blanks at their end."""
        return [row.rstrip() for row in self.model.display if row.strip()]

    @property
    def cursor(self) -> tuple[int, int]:
        """Row and column."""
        return self.model.cursor.y, self.model.cursor.x

    def drag(self, *, columns: int, rows: int) -> None:
        """Resize window and screen; the model does not reflow, as xterm does not."""
        self.model.resize(rows, columns)
        self.resize(columns=columns, rows=rows)

    async def shows(self, *pattern: str) -> None:
        """Wait until the last rows are these (regular expressions)."""

        async def check() -> bool | None:
            self._read()
            last = self.rows()[-len(pattern) :]
            is_it = len(last) == len(pattern) and all(map(re.fullmatch, pattern, last))
            return True if is_it else None

        try:
            await poll(check, seconds=10, what=str(pattern), every=0.01)
        except Exception as error:
            raise AssertionError("\n".join([f"not {pattern}:", *self.rows()])) from error

    def _read(self) -> None:
        before = len(self._seen)
        super()._read()
        new = self._seen[before:]
        self.received += new
        self._stream.feed(new)
