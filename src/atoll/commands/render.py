"""Text for people: aligned tables and short facts. Pure."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from atoll.base.text import json_escape, pad, width
from atoll.commands.table import Table, one_line

# ECMA-48: control sequences (colour, cursor), strings (title) up to their end, and short ones.
_ESCAPE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])"
)


class Json(str):
    """JSON on one line, as programs read it; who prints it for people can have it indented.

    A terminal acts on nothing in either.
    """

    __slots__ = ("_data",)
    _data: Any

    def __new__(cls, data: Any) -> Json:
        """Make the text."""
        text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
        made = super().__new__(cls, json_escape(text))
        made._data = data
        return made

    def indented(self) -> str:
        """The same for people."""
        return json_escape(json.dumps(self._data, indent=2, ensure_ascii=False))


def as_json(data: Any) -> Json:
    """JSON as `--json` prints it."""
    return Json(data)


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    above: Sequence[str] = (),
    below: Sequence[str] = (),
) -> Table:
    """Columns as wide as their widest cell, two blanks apart; empty columns are left out.

    Lines that belong to it go above and below, so that it stays a table.
    """
    return Table(head, rows, above=above, below=below)


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """`key  value` lines; pairs without a value are left out."""
    kept = [(key, value) for key, value in pairs if value]
    size = max((width(key) for key, _ in kept), default=0)
    return "\n".join(f"{pad(key, size)}  {one_line(value)}" for key, value in kept)


def printable(text: str) -> str:
    """What a guest wrote, made safe for a terminal: lines without escapes or control characters."""
    lines = _ESCAPE.sub("", text).replace("\r\n", "\n").replace("\r", "\n").splitlines()
    return "\n".join(
        "".join(
            char for char in line if char == "\t" or unicodedata.category(char)[0] != "C"
        ).rstrip()
        for line in lines
    ).strip("\n")


def instant(seconds: float) -> str:
    """`2026-11-21T08:34:36Z`, as in the JSON of every command."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
