"""A line that is still being typed: its whole words, and the one the cursor stands in. Pure.

Quotes and backslashes count as in `parse.split`, but may be open.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Partial:
    """`value` is what the last word says so far; empty after a blank.

    `line[start:]` is the end of it that stands there as it reads, `quote` the quote that is open.
    """

    words: tuple[str, ...]
    value: str
    start: int
    quote: str

    @property
    def settled(self) -> int:
        """Characters of `value` that stand before `start`."""
        return len(self.value) - self._tail

    _tail: int


def partial(line: str) -> Partial:
    """Read a line up to its end, which need not be one."""
    reader = _Reader()
    for index, char in enumerate(line):
        reader.read(index, char)
    return reader.result(len(line))


class _Reader:
    def __init__(self) -> None:
        self._words: list[str] = []
        self._word: list[str] = []
        self._is_word = False  # also an empty one, in quotes
        self._quote = ""
        self._is_escaped = False
        self._start = 0

    def read(self, index: int, char: str) -> None:
        if self._is_escaped:
            if self._quote and char not in '"\\':
                self._word.append("\\")
            self._word.append(char)
            self._is_escaped, self._start = False, index + 1
        elif char == "\\" and self._quote != "'":
            self._is_escaped = self._is_word = True
            self._start = index + 1
        elif self._quote:
            self._in_quotes(index, char)
        elif char in "'\"":
            self._quote, self._is_word, self._start = char, True, index + 1
        elif char.isspace():
            self._end_word(index + 1)
        else:
            self._word.append(char)
            self._is_word = True

    def result(self, end: int) -> Partial:
        return Partial(
            tuple(self._words), "".join(self._word), self._start, self._quote, end - self._start
        )

    def _in_quotes(self, index: int, char: str) -> None:
        if char == self._quote:
            self._quote, self._start = "", index + 1
        else:
            self._word.append(char)

    def _end_word(self, start: int) -> None:
        if self._is_word:
            self._words.append("".join(self._word))
        self._word, self._is_word, self._start = [], False, start
