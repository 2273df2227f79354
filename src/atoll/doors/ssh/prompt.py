"""The prompt: lines in, one after another, with completion on a terminal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, cast

import asyncssh

from atoll.base.errors import AtollError
from atoll.domain.account import Caller
from atoll.doors.ssh.process import Process
from atoll.doors.ssh.words import common_start, split_last

_LEAVE = frozenset(["exit", "quit", "logout"])
PROMPT = "atoll> "


class Completes(Protocol):
    """Knows what can stand where a line ends."""

    async def complete(self, caller: Caller, line: str) -> list[str]:
        """Words that can replace the last word of `line` (the empty one after a space)."""


class Prompt:
    """Reads and runs lines until `exit` or the end of input."""

    def __init__(
        self,
        *,
        process: Process,
        caller: Caller,
        language: Completes,
        answer: Callable[[str], Awaitable[int]],
    ) -> None:
        self._process = process
        self._caller = caller
        self._language = language
        self._answer = answer
        self._lines_read = 0  # a completion that comes after its line was sent is dropped
        self._on_terminal = process.term_type is not None
        # With a terminal, AsyncSSH wraps the channel in its line editor.
        self._editor = cast("asyncssh.SSHLineEditorChannel", process.channel)

    async def run(self) -> int:
        """The exit code of the last command."""
        process = self._process
        if self._on_terminal:
            self._editor.register_key("\t", self._on_tab)
        code = 0
        while not process.is_closing():
            if self._on_terminal:
                process.stdout.write(PROMPT)
            try:
                line = await process.stdin.readline()
            except asyncssh.BreakReceived:  # Ctrl-C: a new line
                self._editor.clear_input()
                process.stdout.write("^C\n")
                continue
            except asyncssh.TerminalSizeChanged:
                continue
            except asyncssh.SignalReceived:
                break
            self._lines_read += 1
            if not line:
                if self._on_terminal:
                    process.stdout.write("\n")
                break
            words = line.strip()
            if words in _LEAVE:
                break
            if words:
                code = await self._answer(words)
        return code

    def _on_tab(self, line: str, position: int) -> tuple[str, int]:
        start = self._process.channel.get_connection().create_task
        start(self._complete(line, position, self._lines_read))
        return line, position

    async def _complete(self, line: str, position: int, number: int) -> None:
        """Finish the word at the cursor as far as all candidates agree, else list them."""
        try:
            words = await self._language.complete(self._caller, line[:position])
        except AtollError:
            return
        stem, last = split_last(line[:position])
        words = sorted(word for word in words if word.startswith(last))
        if not words or self._process.is_closing() or number != self._lines_read:
            return
        grown = stem + common_start(words) + (" " if len(words) == 1 else "")
        if len(words) > 1 and len(grown) <= position:
            self._process.stdout.write("\n" + "  ".join(words) + "\n" + PROMPT)
            return
        self._editor.set_input(grown + line[position:], len(grown))
        self._process.stdout.write("")  # shows the new input
