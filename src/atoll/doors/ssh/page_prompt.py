"""The lobby's prompt in a page: the very session of `session`, on keys and a screen of a terminal there.

What stands in for AsyncSSH's channel is below: keys come as bytes and are pulled, the screen takes text
at once. `ssh <vm>` typed at this prompt joins its streams here, since AsyncSSH joins only its own.
"""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import asyncssh

from atoll.base.aio import TaskGroup
from atoll.base.errors import AtollError
from atoll.domain.account import Caller
from atoll.doors.ssh.lobby import served
from atoll.doors.ssh.process import TermSize
from atoll.doors.ssh.relay import VmSide
from atoll.doors.ssh.session import History, Language, Session, VmOpener

TERM = "xterm-256color"
_CHUNK = 1 << 15
_HELD = 1 << 16  # characters typed and not read; whoever types more waits


@dataclass(frozen=True, slots=True)
class _Signed:
    """The guest of a session: known, and at the lobby by intent."""

    caller: Caller
    user: str = "atoll"
    trouble: AtollError | None = None
    advice: str = ""


class _Keys:
    """A keyboard as AsyncSSH has it: a change of size interrupts whoever reads."""

    def __init__(self) -> None:
        self._held = ""
        self._resized: asyncssh.TerminalSizeChanged | None = None
        self._is_over = False
        self._came = asyncio.Event()
        self._taken = asyncio.Event()
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")

    async def type(self, data: bytes) -> None:
        self._held += self._decoder.decode(data)
        self._came.set()
        while len(self._held) > _HELD and not self._is_over:
            self._taken.clear()
            await self._taken.wait()

    def resize(self, columns: int, rows: int) -> None:
        self._resized = asyncssh.TerminalSizeChanged(columns, rows, 0, 0)
        self._came.set()

    def end(self) -> None:
        self._is_over = True
        self._came.set()
        self._taken.set()

    async def read(self, n: int = -1) -> str:
        while not (self._held or self._resized or self._is_over):
            self._came.clear()
            await self._came.wait()
        if self._resized is not None:
            resized, self._resized = self._resized, None
            raise resized
        most = len(self._held) if n < 0 else n
        taken, self._held = self._held[:most], self._held[most:]
        self._taken.set()
        return taken

    async def readline(self) -> str:
        raise NotImplementedError("a session with a terminal reads keys")


class _Screen:
    def __init__(self, show: Callable[[bytes], None], has_room: asyncio.Event) -> None:
        self._show = show
        self._has_room = has_room

    def write(self, data: str) -> None:
        self._show(data.encode("utf-8", "surrogateescape"))

    async def drain(self) -> None:
        await self._has_room.wait()


class PagePrompt:
    """One prompt of `caller`; `show` gets all output."""

    command: str | None = None
    subsystem: str | None = None
    term_type: str | None = TERM

    def __init__(
        self,
        *,
        caller: Caller,
        language: Language,
        history: History,
        opener: VmOpener,
        size: tuple[int, int],
        show: Callable[[bytes], None],
    ) -> None:
        self.term_size: TermSize = (*size, 0, 0)
        self.env: Mapping[str, str] = {}
        self.stdin = _Keys()
        self.may_print = asyncio.Event()
        self.may_print.set()
        self.stdout = self.stderr = _Screen(show, self.may_print)
        self._closing = asyncio.Event()
        self._user = caller.account.id
        self._session = _PageSession(
            language=language, history=history, opener=opener, process=self, visitor=_Signed(caller)
        )

    async def run(self) -> str:
        """Serve until `exit`; how it ended, for people."""
        await served(self._session, self._user)
        return "You have left the prompt."

    async def write(self, data: bytes) -> None:
        """Type; waits while too much is typed ahead."""
        await self.stdin.type(data)

    def resize(self, columns: int, rows: int) -> None:
        """Another size."""
        self.term_size = (columns, rows, 0, 0)
        self.stdin.resize(columns, rows)

    def pause(self) -> None:
        """Take no more from what goes on; what the prompt itself prints is little."""
        self.may_print.clear()

    def resume(self) -> None:
        """Go on."""
        self.may_print.set()

    def hang_up(self) -> None:
        """End it; what a command has begun goes on."""
        self._closing.set()
        self.stdin.end()
        self.may_print.set()

    def is_closing(self) -> bool:
        """See Channel."""
        return self._closing.is_set()

    async def hung_up(self) -> None:
        """See Channel."""
        await self._closing.wait()


class _PageSession(Session):
    """A session whose channel is not AsyncSSH's."""

    async def _attach(self, vm: VmSide, command: str) -> asyncssh.SSHCompletedProcess:
        page, terminal = self._process, self._terminal
        assert isinstance(page, PagePrompt), "it is the only channel of such a session"
        assert terminal is not None, "a page has a terminal"
        async with vm.create_process(
            command or None,
            term_type=TERM,
            term_size=page.term_size,
            encoding="utf-8",
            errors="surrogateescape",
            stderr=asyncssh.STDOUT,
        ) as inner:
            inner.stdin.write(terminal.typed_ahead())
            async with TaskGroup() as group:
                typing = group.create_task(_type(page, inner))
                while data := await inner.stdout.read(_CHUNK):
                    page.stdout.write(data)
                    await page.may_print.wait()
                typing.cancel()
            return await inner.wait(check=False)


async def _type(page: PagePrompt, inner: asyncssh.SSHClientProcess[str]) -> None:
    """Keys and sizes to the command, until it ends; hanging up ends it."""
    while not inner.is_closing():
        try:
            keys = await page.stdin.read(_CHUNK)
        except asyncssh.TerminalSizeChanged as resized:
            inner.change_terminal_size(resized.width, resized.height)
            continue
        if not keys:
            inner.close()
            return
        try:
            inner.stdin.write(keys)
            await inner.stdin.drain()
        except (asyncssh.Error, OSError):  # it has just ended
            return
