"""A VM's sshd in this process: runs commands for real, each in a process group that takes signals.

A session with a terminal gets a real one, and bash on it if no command is named.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncssh

from atoll.base.aio import TaskGroup
from atoll.domain.account import Route
from atoll.doors.ssh.relay import VmSide

CHUNK = 1 << 15


class FakeSshd:
    """Lets everybody in; what the gateway's opener is to a Runner."""

    def __init__(self) -> None:
        self.port = 0
        self._group = TaskGroup()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[FakeSshd]:
        """Answer on a port of loopback."""
        key = asyncssh.generate_private_key("ssh-ed25519")
        async with self._group:
            server = await asyncssh.create_server(
                lambda: _Anybody(self._group),
                "127.0.0.1",
                0,
                server_host_keys=[key],
                encoding=None,
            )
            self.port = server.sockets[0].getsockname()[1]
            yield self
            server.close()
            await server.wait_closed()

    async def open_vm(self, route: Route) -> VmSide:
        """A connection, as SshDoor opens it."""
        loop = asyncio.get_running_loop()
        client = _Client(loop.create_future())
        options = await asyncssh.SSHClientConnectionOptions.construct(
            config=[], known_hosts=None, client_keys=None, agent_path=None, username="atoll",
            client_factory=lambda: client,
        )  # fmt: skip
        _, side = await loop.create_connection(
            lambda: VmSide(loop, options, wait=None), "127.0.0.1", self.port
        )
        await client.ready
        return side


class _Client(asyncssh.SSHClient):
    def __init__(self, ready: asyncio.Future[None]) -> None:
        self.ready = ready

    def auth_completed(self) -> None:
        self.ready.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(exc or asyncssh.ConnectionLost("connection closed"))


class _Anybody(asyncssh.SSHServer):
    def __init__(self, group: TaskGroup) -> None:
        self._group = group

    def session_requested(self) -> _Session:
        return _Session(self._group)

    def begin_auth(self, username: str) -> bool:
        return False


class _Session(asyncssh.SSHServerSession[bytes]):
    def __init__(self, group: TaskGroup) -> None:
        self._group = group
        self._command = ""
        self._master: int | None = None  # of its terminal
        self._slave = -1
        self._typed = b""
        self._child: asyncio.subprocess.Process | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def pty_requested(
        self, term_type: str, term_size: tuple[int, int, int, int], term_modes: object
    ) -> bool:
        self._master, self._slave = os.openpty()
        os.set_blocking(self._master, False)
        self._env = {**os.environ, "TERM": term_type, "PS1": "$ ", "HISTFILE": ""}
        self.terminal_size_changed(*term_size)
        return True

    def shell_requested(self) -> bool:
        self._command = "exec bash --norc --noprofile -i"
        return self._master is not None

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        if self._master is not None:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", height, width, 0, 0))

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        if self._master is not None:
            self._typed += data
            self._type()

    def exec_requested(self, command: str) -> bool:
        self._command = command
        return True

    def session_started(self) -> None:
        self._group.create_task(self._run() if self._master is None else self._run_on_terminal())

    def eof_received(self) -> bool:
        return True  # the command goes on

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def signal_received(self, name: str) -> None:
        if self._child is not None and self._child.returncode is None:
            os.killpg(self._child.pid, signal.Signals[f"SIG{name}"])

    def connection_lost(self, exc: Exception | None) -> None:
        self._may_write.set()  # like OpenSSH's it leaves the command alone; a broken pipe ends it
        if self._master is not None and self._child is not None and self._child.returncode is None:
            os.killpg(self._child.pid, signal.SIGHUP)

    async def _run(self) -> None:
        pipe = asyncio.subprocess.PIPE
        self._child = child = await asyncio.create_subprocess_shell(
            self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
        )
        async with TaskGroup() as group:
            group.create_task(self._copy(child.stdout, None))
            group.create_task(self._copy(child.stderr, asyncssh.EXTENDED_DATA_STDERR))
        code = await child.wait()
        if self._channel.is_closing():
            return
        if code < 0:
            self._channel.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))
        else:
            self._channel.exit(code)

    async def _copy(self, stream: asyncio.StreamReader | None, kind: int | None) -> None:
        assert stream is not None
        while data := await stream.read(CHUNK):
            await self._may_write.wait()
            if not self._channel.is_closing():
                self._channel.write(data, kind)

    # -- on a terminal

    async def _run_on_terminal(self) -> None:
        assert self._master is not None
        self._child = child = await asyncio.create_subprocess_shell(
            self._command,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env=self._env,
            start_new_session=True,
            preexec_fn=_own_terminal,
        )
        os.close(self._slave)
        self._type()
        await self._show()
        asyncio.get_running_loop().remove_writer(self._master)
        os.close(self._master)
        self._master = None
        code = await child.wait()
        if not self._channel.is_closing():
            self._channel.exit(code if code >= 0 else 128 - code)

    async def _show(self) -> None:
        """Output as it comes, until nothing has the terminal any more."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        assert self._master is not None
        loop.add_reader(self._master, ready.set)
        try:
            while True:
                await ready.wait()
                await self._may_write.wait()
                ready.clear()
                with suppress(BlockingIOError):
                    data = os.read(self._master, CHUNK)
                    if not self._channel.is_closing():
                        self._channel.write(data)
        except OSError:  # EIO: the last process is gone
            return
        finally:
            loop.remove_reader(self._master)

    def _type(self) -> None:
        """As much as the terminal takes; a program that does not read fills it."""
        assert self._master is not None
        loop = asyncio.get_running_loop()
        with suppress(BlockingIOError):
            self._typed = self._typed[os.write(self._master, self._typed[:1024]) :]
        if self._typed:
            loop.add_writer(self._master, self._type)
            if len(self._typed) > CHUNK:
                self._channel.pause_reading()
        else:
            loop.remove_writer(self._master)
            self._channel.resume_reading()


def _own_terminal() -> None:
    """In the child: its terminal becomes the one that Ctrl-C and the window's size speak of."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
