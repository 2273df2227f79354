"""The lobby: one command per `ssh host <command>`, or a prompt when none is given.

It parses nothing: a line goes to the language, its reply comes back as text and exit code. Text for
people and errors go to stderr, except on a terminal, where OpenSSH does not translate it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, cast

import asyncssh

from atoll.base.errors import AtollError, Internal, Invalid, NotFound
from atoll.base.log import get
from atoll.commands.reply import Reply
from atoll.domain.account import Caller, Route
from atoll.doors.ssh import target
from atoll.doors.ssh.relay import VmSide
from atoll.doors.ssh.visitor import Visitor

_log = get(__name__)
_STDIN_LIMIT = 1 << 20  # characters; the longest input a command takes is a script of 10 KiB
_LEAVE = frozenset(["exit", "quit", "logout"])
PROMPT = "atoll> "


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


class Lobby:
    """Serves the sessions that end here: commands, the prompt, and bad news."""

    def __init__(self, *, language: Language, opener: VmOpener) -> None:
        self._language = language
        self._opener = opener

    def session(self) -> asyncssh.SSHServerProcess[str]:
        """A new session channel for AsyncSSH."""
        return _Process(self.serve, None, 0, False)

    async def serve(self, process: asyncssh.SSHServerProcess[str]) -> None:
        """Handle one session channel to its end."""
        assert isinstance(process, _Process)
        visitor = process.channel.get_connection().get_owner()
        if not isinstance(visitor, Visitor):  # the connection is gone already
            return
        session = _Session(self._language, self._opener, process, visitor)
        try:
            code = await session.run()
        except AtollError as error:
            code = session.fail(error)
        except (asyncssh.Error, OSError):  # the client left
            code = Internal.exit
        except Exception:  # noqa: BLE001 - the door is where defects end
            _log.exception("lobby session failed", user=visitor.user)
            code = session.fail(Internal("This is a defect of Atoll", hint="Its log has details"))
        if not process.is_closing():
            process.exit(code)


class _Process(asyncssh.SSHServerProcess[str]):
    """Lets every subsystem start, so that `sftp host` is told why it cannot work."""

    def subsystem_requested(self, subsystem: str) -> bool:
        return True

    def session_started(self) -> None:
        channel = self._chan
        streams = (
            asyncssh.SSHReader[str](self, channel),
            asyncssh.SSHWriter[str](self, channel),
            asyncssh.SSHWriter[str](self, channel, asyncssh.EXTENDED_DATA_STDERR),
        )
        serving = self._start_process(*streams)
        assert serving is not None
        channel.get_connection().create_task(serving)

    @contextmanager
    def without_editor(self) -> Iterator[None]:
        """The terminal belongs to somebody else for a while: keys and output pass unchanged."""
        if self.term_type is None:
            yield
            return
        editor = cast("asyncssh.SSHLineEditorChannel", self._chan)
        editor.set_line_mode(False)
        editor.set_echo(False)
        self._chan = editor._orig_chan
        try:
            yield
        finally:
            self._chan = cast("asyncssh.SSHServerChannel[str]", editor)
            if not self.is_closing():
                editor.set_echo(True)
                editor.set_line_mode(True)


class _Session:
    """One channel of one visitor."""

    def __init__(
        self, language: Language, opener: VmOpener, process: _Process, visitor: Visitor
    ) -> None:
        self._language = language
        self._opener = opener
        self._process = process
        self._visitor = visitor
        self._lines_read = 0  # a completion that comes after its line was sent is dropped
        self._on_terminal = process.term_type is not None
        # With a terminal, AsyncSSH wraps the channel in its line editor.
        self._editor = cast("asyncssh.SSHLineEditorChannel", process.channel)

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
        """Read and run lines until `exit` or the end of input; the last exit code."""
        process = self._process
        if self._on_terminal:
            self._greet(caller)
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
                code = await self._answer(caller, words)
        return code

    async def _answer(self, caller: Caller, line: str) -> int:
        try:
            return await self._execute(caller, line)
        except AtollError as error:
            return self.fail(error)

    def _greet(self, caller: Caller) -> None:
        user = self._visitor.user
        if user not in target.LOBBY_USERS:
            self.note(f"You have no VM called {user[:60]!r}: this is the lobby.")
        self.note("Type help for the commands, exit to leave.")
        start = self._process.channel.get_connection().create_task

        def on_tab(line: str, position: int) -> tuple[str, int]:
            start(self._complete(caller, line, position, self._lines_read))
            return line, position

        self._editor.register_key("\t", on_tab)

    async def _complete(self, caller: Caller, line: str, position: int, number: int) -> None:
        """Finish the word at the cursor as far as all candidates agree, else list them."""
        try:
            words = await self._language.complete(caller, line[:position])
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


def wants_stdin(line: str) -> bool:
    """Whether a word of the line is `-` or `/dev/stdin`, also as `--flag=-`."""
    try:
        words = shlex.split(line)
    except ValueError:
        return False
    values = [word.partition("=")[2] if word.startswith("--") else word for word in words]
    return any(value in ("-", "/dev/stdin") for value in values)


def split_last(line: str) -> tuple[str, str]:
    """What stands before the last word, and that word (empty after a space)."""
    cut = max(line.rfind(" "), line.rfind("\t")) + 1
    return line[:cut], line[cut:]


def common_start(words: list[str]) -> str:
    """The longest text that all of the sorted words begin with."""
    first, last = words[0], words[-1]
    for index, letter in enumerate(first):
        if index >= len(last) or last[index] != letter:
            return first[:index]
    return first
