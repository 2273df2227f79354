"""The prompt: lines in, one after another; on a terminal with an editor, history and completion."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import asyncssh

from atoll.doors.ssh.completion import Completion
from atoll.doors.ssh.editor import Editor
from atoll.doors.ssh.process import Channel
from atoll.doors.ssh.recall import Recall
from atoll.doors.ssh.terminal import Interrupted, Terminal
from atoll.doors.ssh.words import commands

_LEAVE = frozenset(["exit", "quit", "logout"])
PROMPT = "atoll> "


class Prompt:
    """Reads and runs lines until `exit` or the end of input."""

    def __init__(self, *, answer: Callable[[str], Awaitable[int]]) -> None:
        self._answer = answer

    async def run(self, lines: AsyncIterator[str]) -> int:
        """The exit code of the last command."""
        code = 0
        async for line in lines:
            if line in _LEAVE:
                break
            code = await self._answer(line)
        return code


async def piped_lines(process: Channel) -> AsyncIterator[str]:
    """The lines of a session without a terminal."""
    while not process.is_closing():
        try:
            line = await process.stdin.readline()
        except (asyncssh.BreakReceived, asyncssh.SignalReceived):
            return
        if not line:
            return
        if line.strip():
            yield line.strip()


class TerminalLines:
    """The lines somebody types, one command at a time."""

    def __init__(self, *, terminal: Terminal, recall: Recall, completion: Completion) -> None:
        self._recall = recall
        self._editor = Editor(
            terminal=terminal,
            recall=recall,
            on_tab=completion.on_tab,
            on_question=completion.on_question,
        )
        self._left: list[str] = []  # of a paste of several lines

    def forget_rest(self) -> None:
        """What was pasted behind the command that runs is not run."""
        self._left.clear()

    async def __aiter__(self) -> AsyncIterator[str]:
        while True:
            try:
                line = await self._editor.read(PROMPT)
            except Interrupted:
                continue
            if line is None:
                return
            self._left = commands(line)
            while self._left:
                command = self._left.pop(0)
                self._recall.add(command)
                yield command
