"""A command in a VM for the other doors: output as it comes, then the exit code.

Invariant: a command that nobody listens to any more does not run on. sshd leaves one without a terminal
to itself when the connection ends, so it is killed, with all it started, before we hang up.
"""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import AsyncGenerator
from typing import Literal, TypeAlias

import asyncssh

from atoll.base import log
from atoll.base.aio import deadline, shielded
from atoll.base.errors import AtollError, Unavailable
from atoll.domain.account import Route
from atoll.doors.ssh.session import VmOpener

HELD_BYTES = 1 << 20  # held when the reader is slow; then the VM's own window fills and it waits
SIGNALLED = 128  # a command ended by signal n has exit code 128 + n, as shells say
KILL_S = 15.0  # for an emulated, busy VM to run the lines below, and to end what they killed
# Kills what the other sessions of this connection started, from a session of its own. There is a
# connection for each command, so that is the command: its process group, and all its descendants in
# other groups too, each stopped before its children are read so that it starts no more. By signal, sshd
# would reach the group alone, and nothing at all when root is logged in.
KILL = r"""sh -c 'own=$$ up=$PPID
while read -r name </proc/$up/comm; do
  case $name in sshd*) break ;; esac
  own=$up; read -r _ _ _ up _ </proc/$up/stat
done 2>/dev/null
below() {
  for child in $(cat /proc/$1/task/*/children 2>/dev/null); do
    [ "$child" = "$own" ] && continue
    kill -s STOP "$child"
    echo "$2$child $child"
    below "$child"
  done
}
found=$(below $up -) 2>/dev/null
[ "$found" ] && kill -s KILL -- $found 2>/dev/null'"""
Item: TypeAlias = tuple[Literal["stdout", "stderr"], bytes] | int

_log = log.get("run")


class Runner:
    """Runs commands over the gateway's own way into VMs."""

    def __init__(self, *, opener: VmOpener) -> None:
        self._opener = opener

    async def run_in_vm(self, route: Route, command: str) -> AsyncGenerator[Item, None]:
        """Output, then the exit code; closing it early kills the command and what it started.

        Raises Unavailable when the VM does not answer, or is gone before the command ends.
        """
        connection = await self._opener.open_vm(route)
        output = _Output()
        try:
            try:
                channel, _ = await connection.create_session(lambda: output, command, encoding=None)
                channel.write_eof()
                while (item := await output.next()) is not None:
                    yield item
            except (asyncssh.Error, OSError) as error:
                raise Unavailable(f"{route.vm_name}: the command broke off: {error}") from error
            if output.code is None:
                raise Unavailable(f"{route.vm_name}: the VM went away before the command ended")
            yield output.code
        finally:
            try:
                await shielded(output.kill(connection), seconds=KILL_S + 1)
            except (AtollError, asyncssh.Error, OSError) as error:  # the VM hangs or is gone
                _log.warning("command not killed", vm=route.vm_id, reason=str(error))
            finally:
                connection.abort()


class _Output(asyncssh.SSHClientSession[bytes]):
    """Both streams in the order they came, held back when they are not fetched."""

    def __init__(self) -> None:
        self.code: int | None = None
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._chunks: deque[tuple[Literal["stdout", "stderr"], bytes]] = deque()
        self._held = 0
        self._news = asyncio.Event()
        self._over = asyncio.Event()
        self._is_wanted = True

    async def next(self) -> tuple[Literal["stdout", "stderr"], bytes] | None:
        """The next piece; None at the end."""
        while not self._chunks:
            if self._over.is_set():
                return None
            self._news.clear()
            await self._news.wait()
        chunk = self._chunks.popleft()
        self._held -= len(chunk[1])
        if self._held <= HELD_BYTES // 2 and self._channel is not None:
            self._channel.resume_reading()
        return chunk

    async def kill(self, connection: asyncssh.SSHClientConnection) -> None:
        """End the command with all it started, if it has not ended, and see it gone.

        Raises Unavailable when the VM does not say so in time.
        """
        if self._channel is None or self._over.is_set() or self.code is not None:
            return  # what a command left behind when it ended is out of reach
        self._is_wanted = False  # what it printed meanwhile stands in the way of its end
        self._chunks.clear()
        self._channel.resume_reading()
        async with deadline(KILL_S, "killing the command"):
            try:
                await connection.run(KILL)
            finally:
                if not self._over.is_set():  # no /proc there, or no shell: at least its group
                    self._channel.send_signal("KILL")
            await self._over.wait()

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = chan

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        if not self._is_wanted:
            return
        name: Literal["stdout", "stderr"] = "stderr" if datatype else "stdout"
        self._chunks.append((name, data))
        self._held += len(data)
        if self._held > HELD_BYTES and self._channel is not None:
            self._channel.pause_reading()
        self._news.set()

    def exit_status_received(self, status: int) -> None:
        self.code = status

    def exit_signal_received(self, name: str, core_dumped: bool, msg: str, lang: str) -> None:
        self.code = SIGNALLED + getattr(signal, f"SIG{name}", 0)

    def connection_lost(self, exc: Exception | None) -> None:
        self._over.set()
        self._news.set()
