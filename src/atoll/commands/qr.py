"""A URL as a QR code of half blocks, two modules to a character, for a phone's camera.

Ink is what is light in the code: right on dark terminals as it is. With colours it is white on black
whatever the terminal's theme, so that it reads on light ones too.
"""

from __future__ import annotations

import segno

from atoll.base.text import width

QUIET = 2  # modules around it; the standard's 4 would not fit 24 rows, and cameras need no more
_BLOCKS = {(False, False): "█", (False, True): "▀", (True, False): "▄", (True, True): " "}
_WHITE_ON_BLACK, _PLAIN = "\x1b[97;40m", "\x1b[0m"


class Qr(str):
    """Text with the code of a URL below it."""

    __slots__ = ("_above", "_code")
    _above: str
    _code: tuple[str, ...]

    def __new__(cls, above: str, url: str) -> Qr:
        """Draw it."""
        code = drawn(url)
        made = super().__new__(cls, "\n".join((above, *code)))
        made._above, made._code = above, code
        return made

    def fitted(self, columns: int) -> str:
        """As it is, or without the code when it is wider than this: half a code is none."""
        needed = width(self._code[0])
        if needed <= columns:
            return self
        return f"{self._above}\nThe QR code needs {needed} columns; this terminal has {columns}"

    def painted(self) -> str:
        """The same in colours of its own."""
        rows = (f"{_WHITE_ON_BLACK}{row}{_PLAIN}" for row in self._code)
        return "\n".join((self._above, *rows))


def drawn(url: str) -> tuple[str, ...]:
    """The rows of the code."""
    modules = [bytes(row) for row in segno.make_qr(url, error="l").matrix_iter(border=QUIET)]
    if len(modules) % 2:
        modules.append(bytes([1] * len(modules[0])))  # no ink under the last row
    return tuple(
        "".join(_BLOCKS[bool(upper), bool(lower)] for upper, lower in zip(*pair, strict=True))
        for pair in zip(modules[::2], modules[1::2], strict=True)
    )
