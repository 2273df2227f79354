"""The few colours there are: errors, and the state of a VM. Whoever prints decides whether to.

The sixteen colours of the terminal's own theme, so that they are readable on dark and on light.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

_PLAIN = "\x1b[0m"


class Colour(StrEnum):
    """What a terminal is sent to change its colour (ECMA-48, SGR)."""

    NONE = ""
    RED = "\x1b[31m"
    GREEN = "\x1b[32m"
    YELLOW = "\x1b[33m"
    FAINT = "\x1b[2m"


ERROR = Colour.RED
# Columns of tables that are painted, by the first word of a cell.
COLUMNS: Mapping[str, Mapping[str, Colour]] = {
    "STATUS": {
        "running": Colour.GREEN,
        "starting": Colour.YELLOW,
        "paused": Colour.FAINT,
        "stopped": Colour.FAINT,
        "failed": Colour.RED,
        "unknown": Colour.YELLOW,
    },
}


def paint(text: str, colour: Colour) -> str:
    """The text in a colour, and plain behind it."""
    return f"{colour}{text}{_PLAIN}" if colour and text else text


def paint_cell(title: str, cell: str) -> str:
    """A cell of the column with this title."""
    word = cell.split(":")[0].strip()
    return paint(cell, COLUMNS.get(title, {}).get(word, Colour.NONE))


def is_wanted(term: str, environment: Mapping[str, str]) -> bool:
    """Whether a terminal can show colours and nobody has asked for none (no-color.org)."""
    return term not in ("", "dumb", "unknown") and not environment.get("NO_COLOR")
