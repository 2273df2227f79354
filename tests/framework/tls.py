"""TLS in front of control, for a browser: what HAProxy is to it, without its checks. Can be cut off."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from atoll.base.aio import TaskGroup
from atoll.doors.edge.certs import new_ca, new_leaf

_CHUNK = 1 << 18


@dataclass
class Front:
    """One port; `authority` is the CA a browser must trust."""

    port: int
    to: int
    authority: Path
    away: bytes  # the answer when control is
    is_cut: bool = False
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    def cut(self) -> None:
        """End every connection without a word, and take no new one until `mend`."""
        self.is_cut = True
        for writer in self._open:
            _abort(writer)

    def mend(self) -> None:
        """Connections work again."""
        self.is_cut = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        if self.is_cut:
            writer.transport.abort()
            return
        with suppress(OSError, BaseExceptionGroup):
            try:
                inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self.to)
            except OSError:
                await reader.read(_CHUNK)
                writer.write(self.away)
                writer.close()
                return
            ends = {writer, inner_writer}
            self._open |= ends
            try:
                async with TaskGroup() as group:
                    group.create_task(_copy(reader, inner_writer))
                    group.create_task(_copy(inner_reader, writer))
            finally:
                self._open -= ends
                for end in ends:
                    _abort(end)


def _abort(writer: asyncio.StreamWriter) -> None:
    if not writer.is_closing():
        writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def front(
    folder: Path, *, domain: str, port: int, to: int, away: bytes = b""
) -> AsyncIterator[Front]:
    """Serve `domain` on `port` while the body runs; plain bytes go to port `to`."""
    authority, context = own_certificate(folder, domain)
    made = Front(port, to, authority, away)
    server = await asyncio.start_server(made.serve, "127.0.0.1", port, ssl=context, limit=_CHUNK)
    try:
        yield made
    finally:
        server.close()
        made.cut()


def own_certificate(folder: Path, host: str) -> tuple[Path, ssl.SSLContext]:
    """The CA to trust, and what a server shows, for `host`."""
    now = dt.datetime.now(dt.UTC)
    ca = new_ca(host, now=now)
    (folder / "own-ca.pem").write_bytes(ca.certificate_pem())
    (folder / "own.pem").write_bytes(new_leaf(ca, host, now=now).pem())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "own.pem")
    return folder / "own-ca.pem", context
