"""Lines typed before, gone through with arrows or searched. Pure."""

from __future__ import annotations

from collections.abc import Sequence

SESSION_LINES = 1000


class Recall:
    """What a prompt remembers, oldest first; `lines` are those of earlier sessions."""

    def __init__(self, lines: Sequence[str] = ()) -> None:
        self._lines = list(lines)
        self._at = len(self._lines)
        self._unsent = ""  # what was being typed before the first step back

    def add(self, line: str) -> None:
        """A line was sent. One like the one before counts once."""
        if line and self._lines[-1:] != [line]:
            self._lines.append(line)
            del self._lines[:-SESSION_LINES]
        self.leave()

    def leave(self) -> None:
        """Back to the end, where a new line is typed."""
        self._at, self._unsent = len(self._lines), ""

    def older(self, current: str) -> str | None:
        """The line before; None: there is none."""
        if self._at == 0:
            return None
        if self._at == len(self._lines):
            self._unsent = current
        self._at -= 1
        return self._lines[self._at]

    def newer(self) -> str | None:
        """The line after, at the end what was being typed; None: that is where we are."""
        if self._at == len(self._lines):
            return None
        self._at += 1
        return self._lines[self._at] if self._at < len(self._lines) else self._unsent

    def find(self, part: str, before: int | None = None) -> int | None:
        """The newest line that holds `part`, before the given one; None: there is none."""
        end = len(self._lines) if before is None else before
        return next((n for n in range(end - 1, -1, -1) if part in self._lines[n]), None)

    def line(self, number: int) -> str:
        """A line by what `find` gave; going through starts from it."""
        self._at = number
        return self._lines[number]
