"""The last output of a terminal, by absolute offset: a client that comes back says what it has. Pure.

Invariant: bytes `start` to `end` are held, at most `limit` of them. What was dropped may have switched
the terminal into a mode (the other screen, marked pastes, the mouse); `beginning` switches it again.
"""

from __future__ import annotations

import re

_LINE_WITHIN = 4096  # after a cut the screen begins with a whole line, if one begins this soon
_MODE = re.compile(rb"\x1b\[\?([0-9]{1,4}(?:;[0-9]{1,4}){0,15})([hl])")
_LONGEST = 96  # bytes of such a sequence; one that is cut in two is found when the rest is dropped
# Cursor keys, reverse, wrap, the cursor, the other screen (three numbers), mouse, focus, marked pastes.
_KEPT = frozenset([1, 5, 7, 12, 25, 47, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 1047, 1049, 2004])


class Ring:
    """Bytes in, the newest of them out."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()
        self._tail = b""  # the end of what was dropped
        self._modes: dict[int, bool] = {}
        self.start = 0

    @property
    def end(self) -> int:
        """Bytes that ever came."""
        return self.start + len(self._data)

    def append(self, data: bytes) -> None:
        """The oldest bytes go when there are too many."""
        self._data += data
        over = len(self._data) - self._limit
        if over > 0:
            self._forget(bytes(self._data[:over]))
            del self._data[:over]
            self.start += over

    def holds(self, offset: int) -> bool:
        """Whether everything from `offset` on is there."""
        return self.start <= offset <= self.end

    def read(self, offset: int, most: int) -> bytes:
        """At most so many bytes from an offset that is held."""
        first = offset - self.start
        return bytes(self._data[first : first + most])

    def beginning(self) -> tuple[int, str]:
        """Where a client that has nothing begins, and what puts its terminal into the right modes."""
        if self.start == 0:
            return 0, ""
        line = self._data.find(b"\n", 0, _LINE_WITHIN)
        skipped = bytes(self._data[: line + 1])
        modes = self._modes | _modes_in(self._tail + skipped)
        return self.start + len(skipped), "".join(
            f"\x1b[?{mode}{'h' if is_set else 'l'}" for mode, is_set in modes.items()
        )

    def _forget(self, dropped: bytes) -> None:
        found = self._tail + dropped
        self._modes |= _modes_in(found)
        self._tail = found[-_LONGEST:]


def _modes_in(data: bytes) -> dict[int, bool]:
    """The modes that are switched, each as it is at the end."""
    if b"\x1b[?" not in data:  # the usual case, and 20 times as fast
        return {}
    return {
        int(mode): match[2] == b"h"
        for match in _MODE.finditer(data)
        for mode in match[1].split(b";")
        if int(mode) in _KEPT
    }
