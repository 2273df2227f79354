"""Rows one below the other that come one after the other, as `--follow` prints them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from atoll.base.text import pad, width
from atoll.commands.table import one_line


class Columns:
    """A column gets wider when it must; the last one ends the line and has no width."""

    def __init__(self, widths: Sequence[int]) -> None:
        self._widths = list(widths)

    def lines(self, rows: Iterable[Sequence[str]]) -> str:
        """Some more rows."""
        cells = [[one_line(cell) for cell in row] for row in rows]
        columns = list(zip(*cells, strict=True))[: len(self._widths)]
        for at, column in enumerate(columns):
            self._widths[at] = max(self._widths[at], *map(width, column))
        return "\n".join(
            "  ".join([*map(pad, row, self._widths), row[-1]]).rstrip() for row in cells
        )
