"""What a terminal sends, taken apart into keys, typed text and pastes. Pure.

Invariant: a sequence that is cut in two waits for its rest, one that nobody knows is dropped whole,
and no control character gets into a text. What is not asked for stays unread (`rest`), so that a
VM's session can have it as it came.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from atoll.base import text

PASTE_LIMIT = 1 << 16  # characters, as long as a line may be; what is more is dropped


class Key(StrEnum):
    """A key by what it does."""

    ENTER = "enter"
    TAB = "tab"
    INTERRUPT = "interrupt"
    END_OF_INPUT = "end of input"
    ESCAPE = "escape"
    LEFT = "left"
    RIGHT = "right"
    UP = "up"
    DOWN = "down"
    HOME = "home"
    END = "end"
    PAGE_UP = "page up"
    PAGE_DOWN = "page down"
    WORD_LEFT = "word left"
    WORD_RIGHT = "word right"
    BACKSPACE = "backspace"
    DELETE = "delete"
    KILL_START = "kill to the start"
    KILL_END = "kill to the end"
    KILL_BLANK = "kill back to a blank"
    KILL_WORD_LEFT = "kill the word before"
    KILL_WORD_RIGHT = "kill the word after"
    YANK = "yank"
    SWAP = "swap"
    SEARCH = "search"
    CLEAR = "clear"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Typed:
    """Characters as typed, one or more."""

    text: str


@dataclass(frozen=True, slots=True)
class Pasted:
    """What was pasted; lines end in newlines. `is_whole` is False when it was too long."""

    text: str
    is_whole: bool = True


Event: TypeAlias = Key | Typed | Pasted

_CONTROL = {
    "\r": Key.ENTER,
    "\n": Key.ENTER,
    "\t": Key.TAB,
    "\x01": Key.HOME,
    "\x02": Key.LEFT,
    "\x03": Key.INTERRUPT,
    "\x04": Key.END_OF_INPUT,
    "\x05": Key.END,
    "\x06": Key.RIGHT,
    "\x07": Key.ESCAPE,
    "\x08": Key.BACKSPACE,
    "\x0b": Key.KILL_END,
    "\x0c": Key.CLEAR,
    "\x0e": Key.DOWN,
    "\x10": Key.UP,
    "\x12": Key.SEARCH,
    "\x14": Key.SWAP,
    "\x15": Key.KILL_START,
    "\x17": Key.KILL_BLANK,
    "\x19": Key.YANK,
    "\x7f": Key.BACKSPACE,
}
_META = {
    "b": Key.WORD_LEFT,
    "f": Key.WORD_RIGHT,
    "d": Key.KILL_WORD_RIGHT,
    "\x7f": Key.KILL_WORD_LEFT,
    "\x08": Key.KILL_WORD_LEFT,
}
_LETTER = {
    "A": Key.UP,
    "B": Key.DOWN,
    "C": Key.RIGHT,
    "D": Key.LEFT,
    "H": Key.HOME,
    "F": Key.END,
}
_KEYPAD = _LETTER | {"M": Key.ENTER}  # after ESC O; after ESC [ an M is a mouse's
_NUMBER = {
    "1": Key.HOME,
    "3": Key.DELETE,
    "4": Key.END,
    "5": Key.PAGE_UP,
    "6": Key.PAGE_DOWN,
    "7": Key.HOME,
    "8": Key.END,
}
_BY_WORD = {Key.LEFT: Key.WORD_LEFT, Key.RIGHT: Key.WORD_RIGHT, Key.DELETE: Key.KILL_WORD_RIGHT}
_WITH_ALT_OR_CTRL = ("3", "5", "7")  # xterm's code for the keys held
_TEXT = re.compile(r"[^\x00-\x1f\x7f]+")
# ECMA-48: parameters, intermediates, one final; bounded, so that noise cannot wait for ever.
_CSI = re.compile(r"\x1b\[([0-?]{0,32})[ -/]{0,4}([@-~])")
_CSI_BEGUN = re.compile(r"\x1b\[[0-?]{0,32}[ -/]{0,4}")
_PASTE_ENDS = "\x1b[201~"


class Keys:
    """A buffer of what came, read one event at a time."""

    def __init__(self) -> None:
        self._data = ""
        self._at = 0  # what stands before this was read
        self._paste: str | None = None  # what has come of a paste so far
        self._is_too_long = False

    def feed(self, data: str) -> None:
        """More from the terminal."""
        if data:
            self._data, self._at = self._data[self._at :] + data, 0

    @property
    def is_empty(self) -> bool:
        """Whether all that came has been read."""
        return self._at == len(self._data)

    def rest(self) -> str:
        """Everything not read yet, which is then forgotten here."""
        rest = self._data[self._at :]
        self._data, self._at, self._paste = "", 0, None
        return rest

    def next(self) -> Event | None:
        """The next event, or None until more has come."""
        while self._at < len(self._data):
            before = self._at
            if self._paste is not None:
                event = self._go_on_pasting()
            elif self._data[self._at] == "\x1b":
                event = self._take_sequence()
            else:
                event = self._take_plain()
            if event is not None or self._at == before:
                return event
        return None

    def _take_plain(self) -> Event | None:
        match = _TEXT.match(self._data, self._at)
        if match is None:
            # Ctrl-J behind Ctrl-M is one Enter of a terminal that sends both.
            size = 2 if self._data.startswith("\r\n", self._at) else 1
            return _CONTROL.get(self._take(size)[0], Key.OTHER)
        typed = text.strip(self._take(match.end() - self._at))
        return Typed(typed) if typed else None

    def _take_sequence(self) -> Event | None:
        """One that begins with ESC; nothing is taken while its rest has not come."""
        begun = self._data[self._at : self._at + 3]
        match begun[1:2]:
            case "":
                return None
            case "[":
                return self._take_csi()
            case "O":
                return _KEYPAD.get(self._take(3)[2], Key.OTHER) if len(begun) == 3 else None
            case "\x1b":
                self._take(1)
                return Key.ESCAPE
            case _:
                return _META.get(self._take(2)[1], Key.OTHER)

    def _take_csi(self) -> Event | None:
        match = _CSI.match(self._data, self._at)
        if match is None:
            begun = _CSI_BEGUN.match(self._data, self._at)
            assert begun is not None
            if begun.end() == len(self._data):
                return None
            self._take(begun.end() - self._at)  # no sequence: what follows stands for itself
            return Key.OTHER
        self._at = match.end()
        parameters, final = match.groups()
        number, _, held = parameters.partition(";")
        if final == "~" and number == "200":
            self._paste, self._is_too_long = "", False
            return None
        key = _NUMBER.get(number) if final == "~" else _LETTER.get(final)
        if key is None:
            return Key.OTHER
        return _BY_WORD.get(key, key) if held in _WITH_ALT_OR_CTRL else key

    def _go_on_pasting(self) -> Event | None:
        assert self._paste is not None
        before, mark, after = self._data[self._at :].partition(_PASTE_ENDS)
        if not mark:  # the end's mark may have come in part
            kept = next((n for n in range(5, 0, -1) if before.endswith(_PASTE_ENDS[:n])), 0)
            before, after = before[: len(before) - kept], before[len(before) - kept :]
        self._is_too_long |= len(self._paste) + len(before) > PASTE_LIMIT
        pasted, self._at = (self._paste + before)[:PASTE_LIMIT], len(self._data) - len(after)
        self._paste = None if mark else pasted
        return Pasted(_cleaned(pasted), not self._is_too_long) if mark else None

    def _take(self, size: int) -> str:
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken


def _cleaned(pasted: str) -> str:
    """Terminals send newlines as carriage returns; nothing else of that kind is wanted."""
    return text.strip(pasted.replace("\r\n", "\n").replace("\r", "\n"))
