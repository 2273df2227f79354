"""The prompt: lines in, one after another; on a terminal with an editor, history and completion."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncssh

from atoll.doors.ssh.completion import Completion
from atoll.doors.ssh.editor import Editor
from atoll.doors.ssh.process import Channel
from atoll.doors.ssh.recall import Recall
from atoll.doors.ssh.terminal import Interrupted, Terminal
from atoll.doors.ssh.words import commands

_AHEAD = 1 << 16  # characters
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


class InputEnded(Exception):
    """The input of a session without a terminal is over, and so is what went on until then."""


class PipedLines:
    """The lines of a session without a terminal."""

    def __init__(self, process: Channel) -> None:
        self._process = process
        self._ahead: deque[str] = deque()  # read while a command went on
        self._is_over = False

    async def __aiter__(self) -> AsyncIterator[str]:
        while (line := await self._next()) is not None:
            if line.strip():
                yield line.strip()

    async def end(self) -> None:
        """Read ahead to the end of input; raises InputEnded there."""
        held = 0
        while held < _AHEAD:
            line = await self._read()
            if line is None:
                raise InputEnded
            held += len(line)
            self._ahead.append(line)
        await asyncio.Event().wait()  # the rest waits on the client's side

    async def _next(self) -> str | None:
        if self._process.is_closing():
            return None  # nobody is there who would want to know what came of the rest
        return self._ahead.popleft() if self._ahead else await self._read()

    async def _read(self) -> str | None:
        if self._is_over:
            return None
        try:
            line = await self._process.stdin.readline()
        except (asyncssh.BreakReceived, asyncssh.SignalReceived):
            line = ""
        self._is_over = not line
        return line or None


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
