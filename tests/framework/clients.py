"""Clients as people and programs run them: beside the test, on a terminal, through a forwarded port."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import secrets
import socket
import struct
import subprocess
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

from atoll.base.aio import poll

_PORTS = range(10_000, 20_000)  # below net.ipv4.ip_local_port_range, and no port of ours


@asynccontextmanager
async def client(
    argv: list[str], *, env: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A client that runs beside the test and is ended with it."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True, env=env
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port nobody listens on at `address` right now.

    Not one that the kernel gives to clients: it could have it taken before its listener comes.
    """
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((address, port))
            return port


async def listening(port: int, address: str = "127.0.0.1", *, seconds: float = 15) -> None:
    """Wait until somebody accepts there."""

    async def connects() -> bool | None:
        try:
            _, writer = await asyncio.open_connection(address, port)
        except OSError:
            return None
        writer.close()
        await writer.wait_closed()
        return True

    await poll(connects, seconds=seconds, what=f"{address}:{port}")


async def exists(path: Path) -> None:
    """Wait until the file is there."""

    async def there() -> bool | None:
        return True if path.exists() else None

    await poll(there, seconds=15, what=str(path))


# What `shouter` serves, as a program for inside a VM, on its loopback.
SHOUTER = """\
import socket
server = socket.create_server(("127.0.0.1", 7000))
while True:
    connection, _ = server.accept()
    with connection:
        said = b""
        while part := connection.recv(65536):
            said += part
        connection.sendall(said.upper())
"""


@asynccontextmanager
async def shouter(address: str = "127.0.0.1") -> AsyncIterator[int]:
    """A TCP service that reads to the end of input, then answers in capitals: needs half-close."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, address, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def shout(port: int, text: bytes) -> bytes:
    """What the shouter behind a local port answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    writer.write_eof()
    try:
        async with asyncio.timeout(15):
            return await reader.read()
    finally:
        writer.close()


class Terminal:
    """A client on a pseudo-terminal, as a person uses it."""

    def __init__(self, argv: list[str], *, columns: int, rows: int) -> None:
        self._master, slave = pty.openpty()
        self._seen = b""
        self.resize(columns=columns, rows=rows)
        self._process = subprocess.Popen(
            argv,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        os.set_blocking(self._master, False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def resize(self, *, columns: int, rows: int) -> None:
        """As dragging the window's corner."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        """Keys."""
        os.write(self._master, text.encode())

    async def until(self, pattern: bytes) -> None:
        """Read until the pattern came; what came before it is forgotten."""

        async def found() -> bool | None:
            self._read()
            match = re.search(pattern, self._seen, re.DOTALL)
            if match is None:
                return None
            self._seen = self._seen[match.end() :]
            return True

        try:
            await poll(found, seconds=30, what=repr(pattern), every=0.01)
        except Exception as error:
            raise AssertionError(f"{pattern!r} not in {self._seen!r}") from error

    async def ended(self) -> int:
        """The client's exit code."""

        async def done() -> int | None:
            self._read()
            return self._process.poll()

        return await poll(done, seconds=15, what="end of the client")

    def _read(self) -> None:
        with suppress(OSError):  # nothing there, or the other end is closed
            self._seen += os.read(self._master, 65536)
