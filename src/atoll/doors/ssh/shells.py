"""What runs in a terminal of the web page: a shell in a VM, or the lobby's prompt.

A shell goes the gateway's own way into the VM, on a connection of its own that ends with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncssh

from atoll.base.aio import deadline
from atoll.base.errors import Unavailable
from atoll.domain.account import Caller, Route
from atoll.doors.ssh.page_prompt import TERM, PagePrompt
from atoll.doors.ssh.relay import VmSide
from atoll.doors.ssh.session import History, Language, VmOpener

# What is under way when a reader stops is shown after Ctrl-C all the same. One machine: no need for more.
_WINDOW = 128 << 10
OPEN_S = 15.0  # as long as a login may take
_TYPED = 64 << 10  # bytes the VM has not taken; whoever types more waits


class VmShell(asyncssh.SSHClientSession[bytes]):
    """A login shell in a VM, on a terminal."""

    def __init__(self, vm: VmSide, route: Route, show: Callable[[bytes], None]) -> None:
        self._vm = vm
        self._name = route.vm_name
        self._show = show
        self._over = asyncio.Event()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._code: int | None = None
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None

    # -- what a terminal asks of it

    async def run(self) -> str:
        """Serve until the shell ends; how it ended, for people."""
        try:
            await self._over.wait()
        finally:
            self._vm.leave(asyncssh.DISC_BY_APPLICATION, "done")
        if self._code is None:
            return f"The connection to {self._name} ended."
        code = f" with exit code {self._code}" if self._code else ""
        return f"The shell in {self._name} ended{code}."

    async def write(self, data: bytes) -> None:
        """Type; waits while the VM takes no more."""
        if self._channel is not None and not self._channel.is_closing():
            self._channel.write(data)
            await self._may_write.wait()

    def resize(self, columns: int, rows: int) -> None:
        """Another size."""
        if self._channel is not None and not self._channel.is_closing():
            self._channel.change_terminal_size(columns, rows)

    def pause(self) -> None:
        """Take no more output; the VM's window fills, and its program waits."""
        if self._channel is not None:
            self._channel.pause_reading()

    def resume(self) -> None:
        """Go on."""
        if self._channel is not None:
            self._channel.resume_reading()

    def hang_up(self) -> None:
        """End it as a closed window does: the shell gets SIGHUP."""
        self._over.set()
        self._may_write.set()

    # -- what AsyncSSH tells

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = chan
        chan.set_write_buffer_limits(high=_TYPED)

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        self._show(data)

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def exit_status_received(self, status: int) -> None:
        self._code = status

    def exit_signal_received(self, name: str, core_dumped: bool, msg: str, lang: str) -> None:
        self._code = 255

    def connection_lost(self, exc: Exception | None) -> None:
        self.hang_up()


class Shells:
    """Starts them."""

    def __init__(self, *, opener: VmOpener, language: Language, history: History) -> None:
        self._opener = opener
        self._language = language
        self._history = history

    async def in_vm(
        self, route: Route, size: tuple[int, int], show: Callable[[bytes], None]
    ) -> VmShell:
        """A shell in a VM; raises Unavailable."""
        vm = await self._opener.open_vm(route)
        shell = VmShell(vm, route, show)
        try:
            async with deadline(OPEN_S, f"a shell in {route.vm_name}"):
                await vm.create_session(
                    lambda: shell,
                    term_type=TERM,
                    term_size=(*size, 0, 0),
                    encoding=None,
                    window=_WINDOW,
                )
        except (asyncssh.Error, OSError) as error:
            vm.abort()
            raise Unavailable(f"{route.vm_name}: no shell there: {error}") from error
        except BaseException:
            vm.abort()
            raise
        return shell

    async def prompt(
        self, caller: Caller, size: tuple[int, int], show: Callable[[bytes], None]
    ) -> PagePrompt:
        """The lobby's prompt."""
        return PagePrompt(
            caller=caller,
            language=self._language,
            history=self._history,
            opener=self._opener,
            size=size,
            show=show,
        )
