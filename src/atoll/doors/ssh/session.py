"""One session in the lobby: its command or its prompt, and where text goes.

It parses nothing: a line goes to the language, its reply comes back as text and exit code. Text for
people and errors go to stderr, except on a terminal, where OpenSSH does not translate it. Nothing
anybody has written reaches a terminal raw: what one acts on is spelled out here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol, cast

import asyncssh

from atoll.base.aio import unless
from atoll.base.errors import AtollError, Invalid, NotFound
from atoll.base.log import get
from atoll.base.text import escape
from atoll.commands.colour import ERROR
from atoll.commands.complete import Choices
from atoll.commands.reply import Reply
from atoll.domain.account import Caller, Route
from atoll.doors.ssh import target
from atoll.doors.ssh.completion import Completion
from atoll.doors.ssh.editor import Editor
from atoll.doors.ssh.follow import follow, signalled
from atoll.doors.ssh.pager import Pager
from atoll.doors.ssh.process import Channel
from atoll.doors.ssh.prompt import InputEnded, PipedLines, Prompt, TerminalLines
from atoll.doors.ssh.recall import Recall
from atoll.doors.ssh.relay import VmSide
from atoll.doors.ssh.terminal import Interrupted, Terminal
from atoll.doors.ssh.watch import Watch
from atoll.doors.ssh.words import wants_json, wants_stdin

_log = get(__name__)
_STDIN_LIMIT = 1 << 20  # characters; the longest input a command takes is a script of 10 KiB
_INTERRUPTED = 130  # as a shell has it: 128 + SIGINT


class Language(Protocol):
    """The commands, behind every door the same."""

    async def execute(
        self,
        caller: Caller,
        line: str,
        *,
        stdin: bytes = b"",
        progress: Callable[[str], None] | None = None,
    ) -> Reply:
        """Run one line; raises AtollError."""

    def changes(self, line: str) -> bool:
        """Whether running a line would change something; raises AtollError."""

    async def choices(self, caller: Caller, line: str) -> Choices:
        """What can stand at the end of `line`."""


class History(Protocol):
    """Lines of earlier sessions."""

    async def recent(self, caller: Caller) -> Sequence[str]:
        """Oldest first; raises AtollError."""

    async def add(self, caller: Caller, line: str) -> None:
        """Keep a line, if it may be kept; raises AtollError."""


class VmOpener(Protocol):
    """Logs in to a VM."""

    async def open_vm(self, route: Route) -> VmSide:
        """Raises Unavailable, or NotFound for a caller who may not any more."""


class Guest(Protocol):
    """Who is there: a visitor over SSH, or somebody at a page's prompt."""

    @property
    def caller(self) -> Caller | None:
        """None: nobody that is known."""

    @property
    def user(self) -> str:
        """The user name they gave."""

    @property
    def trouble(self) -> AtollError | None:
        """Why the VM they named cannot be had."""

    @property
    def advice(self) -> str:
        """What a stranger is told."""


class Session:
    """One channel of one guest."""

    def __init__(
        self,
        *,
        language: Language,
        history: History,
        opener: VmOpener,
        process: Channel,
        visitor: Guest,
    ) -> None:
        self._language = language
        self._history = history
        self._opener = opener
        self._process = process
        self._visitor = visitor
        self._terminal = Terminal(process) if process.term_type is not None else None
        self._lines: PipedLines | None = None  # of a prompt without a terminal

    async def run(self) -> int:
        visitor, process = self._visitor, self._process
        if visitor.caller is None:
            self.note(visitor.advice)
            return 1
        if visitor.trouble is not None:
            raise visitor.trouble
        if process.subsystem is not None:
            raise Invalid(
                f"The lobby has no {process.subsystem[:40]!r}",
                hint="Name a VM before the @, as in: sftp <vm>@<host>",
            )
        if process.command is None:
            return await self._prompt(visitor.caller)
        await self._check_user(visitor.caller, process.command)
        return await self._run_one(visitor.caller, process.command)

    async def _run_one(self, caller: Caller, command: str) -> int:
        stdin = await self._stdin(command)
        try:
            return await self._execute(caller, command, stdin)
        except Interrupted:
            return self._leave(command)

    def _leave(self, line: str) -> int:
        """Ctrl-C ends the waiting; the journal brings what was begun to its end."""
        self.note("^C")
        if self._language.changes(line):  # it was read once already, so this raises nothing
            self.note("What it began goes on. Try: ls")
        return _INTERRUPTED

    def note(self, text: str) -> None:
        """A line that is not the command's result."""
        self._write(text + "\n", is_result=False)

    def fail(self, error: AtollError) -> int:
        """Say what failed and what to type next; the exit code to end with."""
        if self._terminal is not None:
            self._terminal.write(f"atoll: {error.message}", ERROR)
            self._terminal.write(f"\n{error.hint}\n" if error.hint else "\n")
        else:
            self.note(f"atoll: {error.message}" + (f"\n{error.hint}" if error.hint else ""))
        return error.exit

    def _write(self, text: str, *, is_result: bool) -> None:
        if self._terminal is not None:
            self._terminal.write(text)
        elif not self._process.is_closing():
            (self._process.stdout if is_result else self._process.stderr).write(escape(text))

    async def _check_user(self, caller: Caller, command: str) -> None:
        """`ssh wbe@host rm notes` must not become the lobby's `rm` when a VM is called web."""
        user = self._visitor.user
        choices = await self._language.choices(caller, "ssh ")
        vms = [choice.word for choice in choices.items if choice.is_value]
        meant = target.mistaken(user, vms)
        if meant is not None:
            raise NotFound(
                f"There is no VM {user[:60]!r}",
                hint=f"For VM '{meant}' write {meant}@ before the host; for the lobby, atoll@",
            )

    async def _stdin(self, line: str) -> bytes:
        """All of stdin, if the command names it: others must not wait for its end."""
        if not wants_stdin(line):
            return b""
        read: list[str] = []
        size = 0
        while chunk := await self._more_stdin():
            read.append(chunk)
            size += len(chunk)
            if size > _STDIN_LIMIT:
                raise Invalid(f"More than {_STDIN_LIMIT >> 20} MiB on stdin")
        return "".join(read).encode("utf-8", "surrogateescape")

    async def _more_stdin(self) -> str:
        if self._terminal is None:
            return await self._process.stdin.read(65536)
        try:
            line = await Editor(terminal=self._terminal, recall=Recall()).read("")
        except Interrupted as error:
            raise Invalid("Input was broken off; nothing was done") from error
        return "" if line is None else line + "\n"

    async def _execute(self, caller: Caller, line: str, stdin: bytes = b"") -> int:
        work = self._language.execute(caller, line, stdin=stdin, progress=self.note)
        reply = await (work if self._terminal is None else self._terminal.until_done(work))
        if reply.run_in_vm is not None:
            return await self._run_in_vm(reply.run_in_vm, reply.command)
        if reply.more is not None:
            await self._go_on(reply)
        elif reply.text and self._terminal is not None:
            await Pager(self._terminal).show(reply.text, is_whole=wants_json(line))
        elif reply.text:
            self._write(reply.text + "\n", is_result=True)
        return reply.exit

    async def _go_on(self, reply: Reply) -> None:
        """Print until nobody wants more; raises Interrupted on Ctrl-C."""
        process = self._process
        if reply.is_redrawn and self._terminal is not None and not self._terminal.is_dumb:
            await Watch(process, self._terminal).show(reply)
            return
        printing = follow(process, reply, lambda text: self._write(text, is_result=True))
        if self._terminal is not None:
            await self._terminal.until_done(printing)
        elif self._lines is None:
            await unless(printing, signalled(process))
        else:
            with suppress(InputEnded):
                await unless(printing, self._lines.end())

    async def _prompt(self, caller: Caller) -> int:
        if self._terminal is None:
            self._lines = PipedLines(self._process)
            return await Prompt(answer=lambda line: self._answer(caller, line)).run(
                aiter(self._lines)
            )
        self._greet()
        lines = TerminalLines(
            terminal=self._terminal,
            recall=Recall(await self._remembered(caller)),
            completion=Completion(language=self._language, caller=caller),
        )

        async def answer(line: str) -> int:
            await self._remember(caller, line)
            try:
                return await self._answer(caller, line)
            except Interrupted:
                lines.forget_rest()
                return self._leave(line)

        return await Prompt(answer=answer).run(aiter(lines))

    async def _answer(self, caller: Caller, line: str) -> int:
        try:
            stdin = b"" if self._terminal is None else await self._stdin(line)
            return await self._execute(caller, line, stdin)
        except AtollError as error:
            return self.fail(error)

    async def _remembered(self, caller: Caller) -> Sequence[str]:
        try:
            return await self._history.recent(caller)
        except AtollError as error:  # the prompt works without
            _log.warning("history not read", reason=str(error))
            return ()

    async def _remember(self, caller: Caller, line: str) -> None:
        try:
            await self._history.add(caller, line)
        except AtollError as error:
            _log.warning("history not kept", reason=str(error))

    def _greet(self) -> None:
        user = self._visitor.user
        if user not in target.LOBBY_USERS:
            self.note(f"You have no VM called {user[:60]!r}: this is the lobby.")
        self.note("Type help for the commands, exit to leave.")

    async def _run_in_vm(self, route: Route, command: str) -> int:
        """`ssh <vm> [command]` inside the lobby: a session in the VM on the same streams."""
        vm = await self._opener.open_vm(route)
        try:
            done = await self._attach(vm, command)
        finally:
            vm.leave(asyncssh.DISC_BY_APPLICATION, "done")
        if done.exit_status is None and done.exit_signal is None:
            self.note(f"The connection to {route.vm_name} ended.")
        code = done.exit_status
        return code if code is not None and code >= 0 else 255

    async def _attach(self, vm: VmSide, command: str) -> asyncssh.SSHCompletedProcess:
        """Join our streams with those of a command there until it ends."""
        process = cast("asyncssh.SSHServerProcess[str]", self._process)  # AsyncSSH joins its own
        async with vm.create_process(
            command or None,
            term_type=process.term_type,
            term_size=process.term_size,
            term_modes=process.term_modes,
            encoding="utf-8",
            errors="surrogateescape",
            stdout=process.stdout,
            stderr=asyncssh.STDOUT if self._terminal is not None else process.stderr,
            recv_eof=False,  # the prompt goes on with the same streams
        ) as inner:
            if self._terminal is not None:
                inner.stdin.write(self._terminal.typed_ahead())
            await inner.redirect(stdin=cast("asyncssh.SSHReader[bytes]", process.stdin))
            return await inner.wait(check=False)
