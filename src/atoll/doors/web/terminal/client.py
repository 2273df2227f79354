"""A page that is attached to a terminal: how far it is, and what it is to be told."""

from __future__ import annotations

import asyncio

from atoll.doors.web.terminal.wire import say


class Client:
    """A page that is attached. `sent` and `shown` are offsets; `news` wakes who serves it."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.sent = 0
        self.shown = 0
        self.typed = 0  # bytes that the shell has not taken yet
        self.news = asyncio.Event()
        self.gone = ""  # why it must leave
        # What it is to be told. One of each kind at most, however slow it is: the newest counts.
        self._start: dict[str, object] | None = None
        self._size: tuple[int, int] | None = None
        self._taken = 0

    @property
    def owed(self) -> int:
        """Bytes that were sent and are not on the screen."""
        return self.sent - self.shown

    def begins(self, start: dict[str, object]) -> None:
        """Tell it where the output that follows begins."""
        self._start = start
        self.news.set()

    def resized(self, size: tuple[int, int]) -> None:
        """Tell it that another page has set a size."""
        self._size = size
        self.news.set()

    def took(self, count: int) -> None:
        """Tell it how much of what it typed has gone in."""
        self.typed -= count
        self._taken += count
        self.news.set()

    def notes(self) -> list[str]:
        """The text frames that are due."""
        due = {"from": self._start, "size": self._size, "taken": self._taken}
        self._start, self._size, self._taken = None, None, 0
        return [say(what, value) for what, value in due.items() if value]

    def dismiss(self, why: str) -> None:
        """It must leave."""
        self.gone = why
        self.news.set()
