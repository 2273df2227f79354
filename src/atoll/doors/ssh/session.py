"""One session in the lobby: its command or its prompt, and where text goes.

It parses nothing: a line goes to the language, its reply comes back as text and exit code. Text for
people and errors go to stderr, except on a terminal, where OpenSSH does not translate it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import asyncssh

from atoll.base.errors import AtollError, Invalid, NotFound
from atoll.commands.reply import Reply
from atoll.domain.account import Caller, Route
from atoll.doors.ssh import target
from atoll.doors.ssh.process import Process
from atoll.doors.ssh.prompt import Prompt
from atoll.doors.ssh.relay import VmSide
from atoll.doors.ssh.visitor import Visitor
from atoll.doors.ssh.words import wants_stdin

_STDIN_LIMIT = 1 << 20  # characters; the longest input a command takes is a script of 10 KiB


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

    async def complete(self, caller: Caller, line: str) -> list[str]:
        """Words that can replace the last word of `line` (the empty one after a space)."""


class VmOpener(Protocol):
    """Logs in to a VM."""

    async def open_vm(self, route: Route) -> VmSide:
        """Raises Unavailable."""


class Session:
    """One channel of one visitor."""

    def __init__(
        self, language: Language, opener: VmOpener, process: Process, visitor: Visitor
    ) -> None:
        self._language = language
        self._opener = opener
        self._process = process
        self._visitor = visitor
        self._on_terminal = process.term_type is not None

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
        return await self._execute(visitor.caller, process.command, await self._stdin())

    def note(self, text: str) -> None:
        """A line that is not the command's result."""
        self._write(text + "\n", is_result=False)

    def fail(self, error: AtollError) -> int:
        """Say what failed and what to type next; the exit code to end with."""
        self.note(f"atoll: {error.message}" + (f"\n{error.hint}" if error.hint else ""))
        return error.exit

    def _write(self, text: str, *, is_result: bool) -> None:
        if self._process.is_closing():
            return
        is_main = is_result or self._on_terminal
        (self._process.stdout if is_main else self._process.stderr).write(text)

    async def _check_user(self, caller: Caller, command: str) -> None:
        """`ssh wbe@host rm notes` must not become the lobby's `rm` when a VM is called web."""
        user = self._visitor.user
        vms = [word.strip() for word in await self._language.complete(caller, "ssh ")]
        meant = target.mistaken(user, vms)
        if meant is not None:
            raise NotFound(
                f"There is no VM {user[:60]!r}",
                hint=f"For VM '{meant}' write {meant}@ before the host; for the lobby, atoll@",
            )

    async def _stdin(self) -> bytes:
        """All of stdin, if the command names it: others must not wait for its end."""
        if not wants_stdin(self._process.command or ""):
            return b""
        read: list[str] = []
        size = 0
        while chunk := await self._process.stdin.read(65536):
            read.append(chunk)
            size += len(chunk)
            if size > _STDIN_LIMIT:
                raise Invalid(f"More than {_STDIN_LIMIT >> 20} MiB on stdin")
        return "".join(read).encode("utf-8", "surrogateescape")

    async def _execute(self, caller: Caller, line: str, stdin: bytes = b"") -> int:
        reply = await self._language.execute(caller, line, stdin=stdin, progress=self.note)
        if reply.run_in_vm is not None:
            return await self._run_in_vm(reply.run_in_vm, reply.command)
        if reply.text:
            self._write(reply.text + "\n", is_result=True)
        return reply.exit

    async def _prompt(self, caller: Caller) -> int:
        async def answer(line: str) -> int:
            try:
                return await self._execute(caller, line)
            except AtollError as error:
                return self.fail(error)

        if self._on_terminal:
            self._greet()
        prompt = Prompt(
            process=self._process, caller=caller, language=self._language, answer=answer
        )
        return await prompt.run()

    def _greet(self) -> None:
        user = self._visitor.user
        if user not in target.LOBBY_USERS:
            self.note(f"You have no VM called {user[:60]!r}: this is the lobby.")
        self.note("Type help for the commands, exit to leave.")

    async def _run_in_vm(self, route: Route, command: str) -> int:
        """`ssh <vm> [command]` inside the lobby: a session in the VM on the same streams."""
        process = self._process
        vm = await self._opener.open_vm(route)
        try:
            with process.without_editor():
                async with vm.create_process(
                    command or None,
                    term_type=process.term_type,
                    term_size=process.term_size,
                    term_modes=process.term_modes,
                    encoding="utf-8",
                    errors="surrogateescape",
                    stdin=process.stdin,
                    stdout=process.stdout,
                    stderr=asyncssh.STDOUT if self._on_terminal else process.stderr,
                    recv_eof=False,  # the prompt goes on with the same streams
                ) as inner:
                    done = await inner.wait(check=False)
        finally:
            vm.leave(asyncssh.DISC_BY_APPLICATION, "done")
        return done.exit_status if done.exit_status is not None and done.exit_status >= 0 else 255
