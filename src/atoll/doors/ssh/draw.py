"""Draws a prompt and the line behind it: what to send so that the terminal shows them. Pure.

Long lines go on in the next row; of one that is higher than the screen the rows around the cursor
are shown. Rows are filled, never broken, so that a terminal that reflows its text takes them for
one line. A terminal without a movable cursor gets one row, of which the part at the cursor shows.
"""

from __future__ import annotations

from dataclasses import dataclass

from atoll.base.text import char_width, width

_NEWLINE = "⏎"  # how a pasted newline shows
_NARROWEST = 4
_LARGEST = 2000  # rows or columns; a client may announce four thousand million


@dataclass(frozen=True, slots=True)
class Size:
    """The terminal's; zeros, as a client may send them, mean the usual 80 by 24."""

    columns: int
    rows: int

    @classmethod
    def of(cls, columns: int, rows: int) -> Size:
        """What was announced, made sensible."""
        return cls(min(max(columns or 80, _NARROWEST), _LARGEST), min(max(rows or 24, 2), _LARGEST))


class Drawing:
    """Remembers what the terminal shows of the line."""

    def __init__(self, *, is_dumb: bool = False) -> None:
        self._is_dumb = is_dumb
        self._shown = ""
        self._cursor = -1
        self._row = 0  # the cursor's, counted from the first row that is shown
        self._column = 0
        self._size: Size | None = None
        self._at_end = False
        self._drawn = 0  # columns of a dumb terminal's row

    def forget(self) -> None:
        """The cursor stands at the start of an empty row."""
        self._shown, self._cursor, self._at_end = "", -1, False
        self._row, self._column, self._drawn = 0, 0, 0

    def update(self, text: str, cursor: int, size: Size) -> str:
        """Show `text` with the cursor before the character `cursor`."""
        shown = text.replace("\n", _NEWLINE).replace("\t", " ")
        if (shown, cursor, size) == (self._shown, self._cursor, self._size):
            return ""
        self._cursor = cursor
        if self._is_dumb:
            return self._one_row(shown, cursor, size)
        added = self._added(shown, cursor, size)
        if added is not None:
            return added
        return self._redraw(shown, cursor, size)

    def leave(self) -> str:
        """Go to a fresh row below; the drawn cursor must be at the end of the text."""
        at_start = self._row > 0 and self._column == 0
        self.forget()
        return "" if at_start else "\r\n"

    def _added(self, shown: str, cursor: int, size: Size) -> str | None:
        """The usual case, one more letter at the end, costs that letter."""
        if not (self._at_end and cursor == len(shown) and shown.startswith(self._shown)):
            return None
        added = shown[len(self._shown) :]
        used = width(added)
        if size != self._size or self._column + used >= size.columns:
            return None
        self._shown, self._column = shown, self._column + used
        return added

    def _redraw(self, shown: str, cursor: int, size: Size) -> str:
        rows, row, column = _layout(shown, cursor, size.columns)
        top = max(0, min(row - size.rows // 2, len(rows) - size.rows))
        seen = rows[top : top + size.rows]
        # After a change of size some terminals have reflowed the old rows and some have not. The
        # smaller count never wipes out what stands above.
        up = self._row if size == self._size else min(self._row, self._rows_now(size))
        last = seen[-1]
        ends_empty = not last and len(seen) > 1
        out = (f"\x1b[{up}A" if up else "") + "\r" + "".join(seen)
        is_whole = top + len(seen) == len(rows)
        out += (" \r" if ends_empty else "") + ("\x1b[J" if is_whole else "")
        back = len(seen) - 1 - (row - top)
        out += (f"\x1b[{back}A" if back else "") + "\r" + (f"\x1b[{column}C" if column else "")
        self._shown, self._size = shown, size
        self._row, self._column = row - top, column
        self._at_end = is_whole and cursor == len(shown)
        return out

    def _rows_now(self, size: Size) -> int:
        """Rows above the cursor if the terminal has reflowed the line to a new width."""
        return (
            self._row * (self._size.columns if self._size else 0) + self._column
        ) // size.columns

    def _one_row(self, shown: str, cursor: int, size: Size) -> str:
        self._shown, self._size = shown, size
        start, room = 0, size.columns - 1
        while width(shown[start:cursor]) >= room:
            start += 1
        end = start
        while end < len(shown) and width(shown[start : end + 1]) <= room:
            end += 1
        part = shown[start:end]
        blanks = " " * (self._drawn - width(part))
        self._drawn = width(part)
        return "\r" + part + blanks + "\r" + shown[start:cursor]


def _layout(shown: str, cursor: int, columns: int) -> tuple[list[str], int, int]:
    """The rows, all but the last as wide as the screen, and the cursor's row and column."""
    rows: list[str] = []
    row: list[str] = []
    used = 0
    place = (0, 0)
    for index, char in enumerate(shown):
        size = char_width(char)
        if used + size > columns:
            rows.append("".join(row) + " " * (columns - used))
            row, used = [], 0
        if index == cursor:
            place = (len(rows), used)
        row.append(char)
        used += size
    if used == columns:
        rows.append("".join(row))
        row, used = [], 0
    rows.append("".join(row))
    return (rows, *place) if cursor < len(shown) else (rows, len(rows) - 1, used)
