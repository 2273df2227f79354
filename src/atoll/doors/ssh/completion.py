"""Tab and `?` at the prompt: the language says what may come, this shows it.

Tab finishes the word as far as all candidates agree; a second one lists them. `?` where a word may
begin says what can come; inside a word, in quotes and in free text it is a letter like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from atoll.base.errors import AtollError
from atoll.base.text import cut, pad, width
from atoll.commands.complete import Choices
from atoll.domain.account import Caller
from atoll.doors.ssh.draw import Size
from atoll.doors.ssh.editor import Editor
from atoll.doors.ssh.words import common_start

_MARGIN = 4  # rows that stay for the line that is typed and the prompt


class Completes(Protocol):
    """Knows what can stand where a line ends."""

    async def choices(self, caller: Caller, line: str) -> Choices:
        """What can stand at the end of `line`; raises AtollError."""


class Completion:
    """The two keys, for one caller."""

    def __init__(self, *, language: Completes, caller: Caller) -> None:
        self._language = language
        self._caller = caller

    async def on_tab(self, editor: Editor) -> bool:
        """Finish or list; False: there is nothing to do."""
        choices = await self._choices(editor)
        if choices is None or not choices.items:
            return False
        before, after = editor.line.before, editor.line.text[editor.line.cursor :]
        grown = before[: choices.start] + _agreed(choices)
        if len(choices.items) == 1 and choices.items[0].is_done:
            grown += choices.quote + ("" if after.startswith(" ") else " ")
        if grown != before:
            editor.line.set(grown + after, len(grown))
            return True
        if editor.tabs < 2:
            return False
        shown = [choice.shown for choice in choices.items]
        editor.below(in_columns(shown, editor.terminal.size))
        return True

    async def on_question(self, editor: Editor) -> bool:
        """Say what can come; False: `?` is meant as a letter."""
        choices = await self._choices(editor)
        if choices is None or not choices.help:
            return False
        size = editor.terminal.size
        text = "".join(f"{cut(row, size.columns)}\n" for row in choices.help.splitlines())
        values = [choice.shown for choice in choices.items if choice.is_value]
        editor.below(text + (in_columns(values, size) if values else ""))
        return True

    async def _choices(self, editor: Editor) -> Choices | None:
        try:
            return await self._language.choices(self._caller, editor.line.before)
        except AtollError:
            return None  # a key is no place for errors


def in_columns(words: Sequence[str], size: Size) -> str:
    """Words one below the other in as many columns as fit, at most a screen of them."""
    cell = max(map(width, words)) + 2
    count = max(1, (size.columns + 2) // cell)
    rows = -(-len(words) // count)
    most = max(1, size.rows - _MARGIN)
    left = 0
    if rows > most:
        rows = most
        left = len(words) - rows * count
        words = words[: rows * count]
    lines = ["".join(pad(word, cell) for word in words[row::rows]).rstrip() for row in range(rows)]
    more = [f"… and {left} more"] if left else []
    return "".join(f"{cut(line, size.columns)}\n" for line in [*lines, *more])


def _agreed(choices: Choices) -> str:
    """What all choices go on with behind `start`."""
    return common_start([choice.word for choice in choices.items])[choices.settled :]
