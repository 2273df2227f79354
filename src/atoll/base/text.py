"""Text on a terminal: how wide it is, where it may be cut, and what must not get there. Pure.

Widths are those of most terminals: one code point at a time, as wcwidth counts. A cluster is what
a reader takes for one character (a letter with its accents, an emoji with its skin colour).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

ELLIPSIS = "…"
_JOINER = "\u200d"
_KEEPS_ZERO = ("Mn", "Me", "Cf")
# What a terminal acts on, or shows in another order than it stands: control characters, line
# separators, marks of direction, invisible tags, and bytes that are no UTF-8 (as surrogates).
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)


def escape(text: str) -> str:
    """The text with everything a terminal would act on spelled out; newlines and tabs stay."""
    return _UNSAFE.sub(lambda found: _spelled(found[0]), text)


def strip(text: str) -> str:
    """The text without what `escape` spells out."""
    return _UNSAFE.sub("", text)


def json_escape(text: str) -> str:
    """JSON that means the same and holds nothing a terminal acts on."""
    return _UNSAFE.sub(lambda found: _json_spelled(found[0]), text)


def width(text: str) -> int:
    """Columns a terminal uses for text without control characters."""
    return len(text) if text.isascii() else sum(map(char_width, text))


def char_width(char: str) -> int:
    """Columns of one code point: 0, 1 or 2."""
    if char < "\u0300":
        return 1
    if unicodedata.category(char) in _KEEPS_ZERO or "\u1160" <= char <= "\u11ff":
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def clusters(text: str) -> Iterator[str]:
    """The text in pieces a reader takes for one character."""
    start = 0
    while start < len(text):
        end = next_cluster(text, start)
        yield text[start:end]
        start = end


def next_cluster(text: str, start: int) -> int:
    """Where the cluster that begins at `start` ends."""
    end = start + 1
    if end < len(text) and _is_flag(text[start]) and _is_flag(text[end]):
        end += 1  # two letters make one flag
    while end < len(text) and _goes_on(text, end):
        end += 1
    return end


def previous_cluster(text: str, end: int) -> int:
    """Where the cluster that ends at `end` begins."""
    start = end - 1
    while start > 0 and _goes_on(text, start):
        start -= 1
    letters = start
    while letters >= 0 and _is_flag(text[letters]):
        letters -= 1
    return start - 1 if (start - letters) and (start - letters) % 2 == 0 else start


def cut(text: str, columns: int) -> str:
    """The text if it fits, else its beginning with an ellipsis, `columns` wide at most."""
    if width(text) <= columns:
        return text
    kept, used = [], 0
    for piece in clusters(text):
        used += width(piece)
        if used > columns - 1:
            break
        kept.append(piece)
    return "".join(kept) + ELLIPSIS if columns > 0 else ""


def wrap(line: str, columns: int) -> list[str]:
    """One line as the rows a terminal of this width shows; never empty."""
    if width(line) <= columns:
        return [line]
    rows, row, used = [], "", 0
    for piece in clusters(line):
        size = width(piece)
        if used + size > columns and row:
            rows.append(row)
            row, used = "", 0
        row, used = row + piece, used + size
    return [*rows, row]


def pad(text: str, columns: int) -> str:
    """Blanks after the text up to this width."""
    return text + " " * (columns - width(text))


def _goes_on(text: str, at: int) -> bool:
    """Whether the code point at `at` goes on with the one before it."""
    char = text[at]
    if char < "\u0300":
        return False
    return text[at - 1] == _JOINER or char_width(char) == 0 or "\U0001f3fb" <= char <= "\U0001f3ff"


def _is_flag(char: str) -> bool:
    """A letter of a flag (regional indicator)."""
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def _spelled(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00  # the byte itself
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _json_spelled(char: str) -> str:
    raw = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{raw[at : at + 4]}" for at in range(0, len(raw), 4))
