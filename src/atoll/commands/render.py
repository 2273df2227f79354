"""Text for people: aligned tables and short facts. Pure."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

# ECMA-48: control sequences (colour, cursor), strings (title) up to their end, and short ones.
_ESCAPE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])"
)


def as_json(data: Any) -> str:
    """JSON as `--json` prints it."""
    return json.dumps(data, indent=2, ensure_ascii=False)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, two blanks apart; empty columns are left out."""
    kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
    lines = [[row[i] for i in kept] for row in (head, *rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """`key  value` lines; pairs without a value are left out."""
    kept = [(key, value) for key, value in pairs if value]
    width = max((_width(key) for key, _ in kept), default=0)
    return "\n".join(f"{key:<{width}}  {value}" for key, value in kept)


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


def _width(text: str) -> int:
    """Columns a terminal uses: East Asian wide characters take two."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )
