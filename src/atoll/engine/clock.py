"""Where the milliseconds of an operation went."""

from __future__ import annotations

import time


class Clock:
    """Named laps since it was made; `marks` goes into the answer."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self.marks: dict[str, float] = {}

    def mark(self, name: str) -> None:
        """End a lap."""
        now = time.monotonic()
        self.note(name, (now - self._last) * 1000)
        self._last = now

    def note(self, name: str, ms: float) -> None:
        """Record a time measured elsewhere."""
        self.marks[name] = round(ms, 1)
