"""A table as text that still knows its columns, so that a terminal can have it cut and painted.

As text it is whole: columns as wide as their widest cell, two blanks apart. Who prints it for a
program, or puts it into another text, needs to know no more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from atoll.base.text import ELLIPSIS, cut, escape, width
from atoll.commands.colour import paint_cell

_GAP = "  "
_NARROW = 8  # columns no column is cut below before others have been


class Table(str):
    """Rows of cells under their titles. Columns without any content are left out.

    Lines of text may stand above and below; they are never cut.
    """

    __slots__ = ("_above", "_below", "_lines")
    _lines: tuple[tuple[str, ...], ...]
    _above: tuple[str, ...]
    _below: tuple[str, ...]

    def __new__(
        cls,
        head: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        above: Sequence[str] = (),
        below: Sequence[str] = (),
    ) -> Table:
        """Make the text."""
        kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
        lines = tuple(tuple(one_line(row[i]) for i in kept) for row in (head, *rows))
        above, below = (tuple(map(one_line, part)) for part in (above, below))
        text = _text(lines, lambda _title, cell: cell)
        made = super().__new__(cls, "\n".join((*above, text, *below)))
        made._lines, made._above, made._below = lines, above, below
        return made

    def fitted(self, columns: int) -> Table:
        """The table at most this wide: the last columns are cut first, then left out."""
        lines, widths = self._lines, _widths(self._lines)
        for at in range(len(widths) - 1, 0, -1):
            over = _total(widths) - columns
            widths[at] -= max(0, min(over, widths[at] - min(widths[at], _NARROW)))
        while len(widths) > 1 and _total(widths) > columns:
            widths = [*widths[:-2], 1] if widths[-1] == 1 else [*widths[:-1], 1]
            lines = tuple((*line[: len(widths) - 1], ELLIPSIS) for line in lines)
        if len(widths) == 1:
            widths = [min(widths[0], columns)]
        cells = [
            [cut(cell, size) for cell, size in zip(line, widths, strict=True)] for line in lines
        ]
        return Table(cells[0], cells[1:], above=self._above, below=self._below)

    def painted(self) -> str:
        """The text with the colours of its columns."""
        return "\n".join((*self._above, _text(self._lines, paint_cell), *self._below))


def one_line(text: str) -> str:
    """Anybody's text as part of a line: what would break it or move the cursor is spelled out."""
    return escape(text).replace("\n", "\\n").replace("\t", "\\t")


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(width, column)) for column in zip(*lines, strict=True)]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _text(lines: Sequence[Sequence[str]], dress: Callable[[str, str], str]) -> str:
    widths = _widths(lines)
    titles = lines[0]
    rows = []
    for number, line in enumerate(lines):
        last = max((at for at, cell in enumerate(line) if cell), default=-1)
        row = ""
        for at, cell in enumerate(line[: last + 1]):
            shown = cell if number == 0 else dress(titles[at], cell)
            row += shown + (_GAP + " " * (widths[at] - width(cell)) if at < last else "")
        rows.append(row)
    return "\n".join(rows)
