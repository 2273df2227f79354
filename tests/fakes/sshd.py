"""A VM's sshd in this process: runs commands for real, each in a process group that takes signals."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

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
        connection = await asyncssh.connect(
            "127.0.0.1", self.port, known_hosts=None, config=[], client_keys=None, username="atoll"
        )
        return cast("VmSide", connection)


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
        self._child: asyncio.subprocess.Process | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def exec_requested(self, command: str) -> bool:
        self._command = command
        return True

    def session_started(self) -> None:
        self._group.create_task(self._run())

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
