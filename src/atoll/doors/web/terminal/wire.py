"""What a page and a terminal say to one another. Pure; everything from a page is hostile.

Binary frames are bytes: typed ones up, output down. Text frames are JSON objects with one key each:

    up    {"hello": {"have": 1234 or null, "size": [80, 24]}}   first, once
          {"size": [80, 24]}        the page's terminal has another size
          {"ack": 1300}             everything before this offset is on the screen
    down  {"from": {"offset": 1234, "live": 1300, "reset": false, "modes": ""}}
                                  what comes next begins here; what is before `live` has been shown
                                  already. `reset`: on an empty screen, switched into these modes
          {"taken": 12}             so many typed bytes have gone in
          {"size": [100, 30]}       another page has set this size
          {"over": "The shell …"}   it has ended

Both directions have a window, so that neither side has to keep what the other sends too fast.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from atoll.base.errors import Invalid

WINDOW: Final = 384 << 10  # bytes of output a page may owe us; a third of a second at 1 MB/s
TYPED: Final = 256 << 10  # bytes a page may type ahead of what the VM takes
FRAME: Final = 64 << 10  # of either kind and direction
_TEXT = 1024
_OFFSET = 1 << 53  # what JavaScript counts exactly
_SIDE = 1000  # rows or columns


@dataclass(frozen=True, slots=True)
class Hello:
    """A page that attaches; `have` is the offset up to which it shows everything."""

    have: int | None
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Resize:
    """The page's terminal has another size."""

    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Ack:
    """Everything before this offset is shown."""

    offset: int


Said: TypeAlias = Hello | Resize | Ack


def read(text: str) -> Said:
    """A text frame from a page; raises Invalid."""
    if len(text) > _TEXT:
        raise Invalid(f"a text frame of {len(text)} characters")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid("a text frame that is no JSON") from error
    match value:
        case {"hello": {"have": have, "size": size}} if len(value) == 1:
            return Hello(None if have is None else _offset(have), _size(size))
        case {"size": size} if len(value) == 1:
            return Resize(_size(size))
        case {"ack": offset} if len(value) == 1:
            return Ack(_offset(offset))
        case _:
            raise Invalid("a text frame of no known kind")


def say(what: str, value: Any) -> str:
    """A text frame for a page."""
    return json.dumps({what: value}, separators=(",", ":"))


def _offset(value: object) -> int:
    if type(value) is not int or not 0 <= value < _OFFSET:
        raise Invalid("an offset out of range")
    return value


def _size(value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise Invalid("a size is two numbers")
    columns, rows = (_side(side) for side in value)
    return columns, rows


def _side(value: object) -> int:
    if type(value) is not int or not 1 <= value <= _SIDE:
        raise Invalid(f"rows and columns are 1 to {_SIDE}")
    return value
