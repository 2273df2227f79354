"""A long text as rows of a terminal, and the part of it that is looked at. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.base.text import escape, width, wrap
from atoll.commands.table import Table
from atoll.doors.ssh.draw import Size


@dataclass(frozen=True, slots=True)
class Row:
    """One row: the line it is a part of, as text, and as it is sent."""

    line: int
    text: str
    sent: str


def rows_of(text: str, columns: int, *, colour: bool) -> list[Row]:
    """The rows a text takes: tables are cut to the width, other lines go on in the next row."""
    if isinstance(text, Table):
        table = text.fitted(columns)
        plain, sent = table.split("\n"), (table.painted() if colour else table).split("\n")
        return [
            row
            for n, pair in enumerate(zip(plain, sent, strict=True))
            for row in _rows_of_line(n, *pair, columns)
        ]
    lines = escape(text).expandtabs().split("\n")
    return [Row(n, row, row) for n, line in enumerate(lines) for row in wrap(line, columns)]


def _rows_of_line(line: int, plain: str, sent: str, columns: int) -> list[Row]:
    """One row, but for a line above or below a table that is longer than the screen is wide."""
    if width(plain) <= columns:
        return [Row(line, plain, sent)]
    return [Row(line, row, row) for row in wrap(plain, columns)]


class Pages:
    """The rows of a text and which of them is the first on the screen."""

    def __init__(self, text: str, size: Size, *, colour: bool) -> None:
        self._text = text
        self._colour = colour
        self._part = ""
        self._top = 0
        self._rows = [Row(0, "", "")]
        self._height = 1
        self.resize(size)

    def resize(self, size: Size) -> None:
        """Another size; the line at the top stays there."""
        line = self._rows[self._top].line
        self._rows = rows_of(self._text, size.columns, colour=self._colour)
        self._height = size.rows - 1  # the last row says where we are
        self.go(next(n for n, row in enumerate(self._rows) if row.line >= line))

    @property
    def height(self) -> int:
        """Rows of text on a screen."""
        return self._height

    @property
    def is_one(self) -> bool:
        """Whether all of it is seen at once."""
        return len(self._rows) <= self._height

    @property
    def last(self) -> int:
        """The last row."""
        return len(self._rows) - 1

    @property
    def seen(self) -> list[str]:
        """The rows on the screen, as they are sent."""
        return [row.sent for row in self._rows[self._top : self._top + self._height]]

    @property
    def where(self) -> str:
        """Which lines are seen."""
        last = min(self._top + self._height, len(self._rows))
        return f"{self._top + 1}-{last} of {len(self._rows)}"

    def go(self, row: int) -> bool:
        """Make a row the first one, as far as the text goes; False: it is already."""
        was = self._top
        self._top = max(0, min(row, len(self._rows) - self._height))
        return self._top != was

    def step(self, rows: int) -> bool:
        """Go down, or up, by so many rows."""
        return self.go(self._top + rows)

    def find(self, part: str, *, down: bool = True) -> bool:
        """Go to the next row that holds `part` (the last one if empty); False: there is none."""
        self._part = part or self._part
        after = range(self._top + 1, len(self._rows))
        rows = after if down else range(self._top - 1, -1, -1)
        wanted = self._part.lower()
        found = next((n for n in rows if wanted and wanted in self._rows[n].text.lower()), None)
        if found is None:
            return False
        self.go(found)
        return True
