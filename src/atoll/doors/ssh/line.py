"""A line being edited: text and cursor, moved and cut as readline does. Pure."""

from __future__ import annotations

from collections.abc import Callable

from atoll.base.text import next_cluster, previous_cluster
from atoll.doors.ssh.keys import PASTE_LIMIT, Key


class Line:
    """The text, the cursor (an index between clusters), and what was cut last."""

    def __init__(self) -> None:
        self.text = ""
        self.cursor = 0
        self._cut = ""

    @property
    def before(self) -> str:
        """The text up to the cursor."""
        return self.text[: self.cursor]

    def set(self, text: str, cursor: int | None = None) -> None:
        """Another text; the cursor goes to its end unless it is given."""
        self.text = text
        self.cursor = len(text) if cursor is None else cursor

    def insert(self, text: str) -> bool:
        """Put text in at the cursor; False: there is no room for all of it."""
        room = PASTE_LIMIT - len(self.text)
        added = text[:room]
        self.text = self.before + added + self.text[self.cursor :]
        self.cursor += len(added)
        return len(text) <= room

    def press(self, key: Key) -> bool:
        """Do what an editing key does; False: it is another kind of key, or can do nothing here."""
        act = _ACTS.get(key)
        if act is None:
            return False
        was = (self.text, self.cursor)
        act(self)
        return (self.text, self.cursor) != was

    def _left(self) -> None:
        self.cursor = previous_cluster(self.text, self.cursor) if self.cursor else 0

    def _right(self) -> None:
        if self.cursor < len(self.text):
            self.cursor = next_cluster(self.text, self.cursor)

    def _word_left(self) -> None:
        self.cursor = _back(self.text, self.cursor, str.isalnum)

    def _word_right(self) -> None:
        self.cursor = _ahead(self.text, self.cursor)

    def _home(self) -> None:
        self.cursor = 0

    def _end(self) -> None:
        self.cursor = len(self.text)

    def _backspace(self) -> None:
        end = self.cursor
        self._left()
        self.text = self.before + self.text[end:]

    def _delete(self) -> None:
        end = next_cluster(self.text, self.cursor) if self.cursor < len(self.text) else self.cursor
        self.text = self.before + self.text[end:]

    def _kill(self, start: int, end: int) -> None:
        if start < end:
            self._cut = self.text[start:end]
            self.text = self.text[:start] + self.text[end:]
            self.cursor = start

    def _kill_start(self) -> None:
        self._kill(0, self.cursor)

    def _kill_end(self) -> None:
        self._kill(self.cursor, len(self.text))

    def _kill_blank(self) -> None:
        self._kill(_back(self.text, self.cursor, lambda c: not c.isspace()), self.cursor)

    def _kill_word_left(self) -> None:
        self._kill(_back(self.text, self.cursor, str.isalnum), self.cursor)

    def _kill_word_right(self) -> None:
        self._kill(self.cursor, _ahead(self.text, self.cursor))

    def _yank(self) -> None:
        self.insert(self._cut)

    def _swap(self) -> None:
        """The characters on both sides of the cursor; at the end of the line the last two."""
        middle = self.cursor
        if middle == len(self.text) and middle:
            middle = previous_cluster(self.text, middle)
        if middle > 0:
            start, end = previous_cluster(self.text, middle), next_cluster(self.text, middle)
            first, second = self.text[start:middle], self.text[middle:end]
            self.set(self.text[:start] + second + first + self.text[end:], end)


_ACTS: dict[Key, Callable[[Line], None]] = {
    Key.LEFT: Line._left,
    Key.RIGHT: Line._right,
    Key.WORD_LEFT: Line._word_left,
    Key.WORD_RIGHT: Line._word_right,
    Key.HOME: Line._home,
    Key.END: Line._end,
    Key.BACKSPACE: Line._backspace,
    Key.DELETE: Line._delete,
    Key.KILL_START: Line._kill_start,
    Key.KILL_END: Line._kill_end,
    Key.KILL_BLANK: Line._kill_blank,
    Key.KILL_WORD_LEFT: Line._kill_word_left,
    Key.KILL_WORD_RIGHT: Line._kill_word_right,
    Key.YANK: Line._yank,
    Key.SWAP: Line._swap,
}


def _back(text: str, at: int, is_word: Callable[[str], bool]) -> int:
    """Where the word before `at` begins; what lies between is passed over."""
    while at and not is_word(text[at - 1]):
        at -= 1
    while at and is_word(text[at - 1]):
        at -= 1
    return at


def _ahead(text: str, at: int) -> int:
    """Where the word after `at` ends."""
    while at < len(text) and not text[at].isalnum():
        at += 1
    while at < len(text) and text[at].isalnum():
        at += 1
    return at
