"""HTTP byte by byte: a client that sends what no library would, and a server that keeps what it got."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

from framework.edge import Edge

ANSWER_S = 20.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as a strict server understands it."""

    head: bytes
    body: bytes

    @property
    def target(self) -> bytes:
        """What the request line asks for."""
        return self.head.split(b" ", 2)[1]

    def values(self, name: str) -> list[bytes]:
        """Of a header, whatever its case; the request line is none."""
        lines = self.head.split(b"\r\n")[1:]
        fields = (line.partition(b":") for line in lines if line)
        return [value.strip() for key, _, value in fields if key.lower() == name.encode()]

    @property
    def is_plain(self) -> bool:
        """Whether no two servers could read its end differently: one length, spelled one way."""
        lengths, codings = self.values("content-length"), self.values("transfer-encoding")
        lines = self.head.split(b"\r\n")[:-2]
        is_strict = all(
            line
            and b"\n" not in line
            and b"\r" not in line
            and b"\0" not in line
            and line[:1] not in b" \t"
            for line in lines
        )
        names = [line.partition(b":")[0] for line in lines[1:]]
        is_strict = is_strict and all(name and name.split() == [name] for name in names)
        return (
            is_strict
            and len(lengths) + len(codings) <= 1
            and all(length.isdigit() for length in lengths)
            and all(coding.lower() == b"chunked" for coding in codings)
        )


@dataclass(slots=True)
class Recorder:
    """A web server that keeps every byte, and answers each request with its number and target."""

    name: str
    address: str
    raw: bytearray = field(default_factory=bytearray)
    seen: list[Seen] = field(default_factory=list)
    unread: list[bytes] = field(default_factory=list)  # what it could not read as a request

    def clear(self) -> None:
        """Forget."""
        self.raw.clear()
        self.seen.clear()
        self.unread.clear()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while True:
                head = await self._until(reader, b"\r\n\r\n")
                try:
                    request = Seen(head, await self._body(head, reader))
                except ValueError:
                    self.unread.append(head)
                    break
                self.seen.append(request)
                said = b"%s %s" % (self.name.encode(), request.target)
                writer.write(
                    b"HTTP/1.1 200 OK\r\nx-upstream: %s\r\ncontent-length: %d\r\n\r\n"
                    % (self.name.encode(), len(said))
                )
                writer.write(b"" if head.startswith(b"HEAD ") else said)
                await writer.drain()
        writer.close()

    async def _until(self, reader: asyncio.StreamReader, mark: bytes) -> bytes:
        try:
            data = await reader.readuntil(mark)
        except asyncio.IncompleteReadError as error:
            self.raw += error.partial
            raise
        self.raw += data
        return data

    async def _exactly(self, reader: asyncio.StreamReader, count: int) -> bytes:
        try:
            data = await reader.readexactly(count)
        except asyncio.IncompleteReadError as error:
            self.raw += error.partial
            raise
        self.raw += data
        return data

    async def _body(self, head: bytes, reader: asyncio.StreamReader) -> bytes:
        request = Seen(head, b"")
        if request.values("transfer-encoding"):
            body = b""
            while size := int((await self._until(reader, b"\r\n")).partition(b";")[0], 16):
                body += (await self._exactly(reader, size + 2))[:-2]
            while await self._until(reader, b"\r\n") != b"\r\n":
                pass  # trailers; `raw` has them
            return body
        lengths = request.values("content-length")
        return await self._exactly(reader, int(lengths[0])) if lengths else b""


@asynccontextmanager
async def recorder(name: str, address: str, port: int = 8000) -> AsyncIterator[Recorder]:
    """Serve while the body runs."""
    made = Recorder(name, address)
    server = await asyncio.start_server(made.handle, address, port, reuse_address=True)
    try:
        yield made
    finally:
        server.close()


@dataclass(frozen=True, slots=True)
class Got:
    """One answer; names of headers in lower case."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Wire:
    """One TLS connection to the edge over which a test says what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(
        cls,
        edge: Edge,
        *,
        name: str = "web",
        source: str = "127.0.0.1",
        port: int = 0,
        alpn: str = "http/1.1",
    ) -> Self:
        """Connect with this VM's name as SNI, from `source`."""
        return cls(
            *await asyncio.open_connection(
                "127.0.0.1",
                port or edge.port,
                ssl=trusting(edge, alpn),
                server_hostname=edge.host(name),
                local_addr=(source, 0),
            )
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_reason: object) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def send(self, data: bytes) -> None:
        """As it is."""
        with contextlib.suppress(ConnectionError):  # the edge may have had enough: `answer` tells
            self.writer.write(data)
            await self.writer.drain()

    async def answer(self, *, has_body: bool = True, seconds: float | None = None) -> Got | None:
        """The next answer, 100 Continue passed over; None when the connection ended instead.

        With `seconds` also None when there is none by then; without, that is a TimeoutError.
        """
        try:
            async with asyncio.timeout(seconds or ANSWER_S):
                status, headers = 100, dict[bytes, bytes]()
                while status < 200 and status != 101:
                    status, headers = _head(await self.reader.readuntil(b"\r\n\r\n"))
                body = await self._body(headers) if has_body and status != 101 else b""
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        except TimeoutError:
            if seconds is None:
                raise
            return None
        return Got(status, headers, body)

    async def _body(self, headers: dict[bytes, bytes]) -> bytes:
        if headers.get(b"transfer-encoding") == b"chunked":
            body = b""
            while size := int(await self.reader.readline(), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readline()
            return body
        if b"content-length" in headers:
            return await self.reader.readexactly(int(headers[b"content-length"]))
        return await self.reader.read()

    async def ends(self, seconds: float) -> bytes:
        """What still comes until the edge closes; TimeoutError when it does not."""
        async with asyncio.timeout(seconds):
            try:
                return await self.reader.read()
            except OSError:
                return b""


def trusting(edge: Edge, alpn: str = "") -> ssl.SSLContext:
    """TLS that trusts the edge's CA and nothing else."""
    context = ssl.create_default_context(cafile=str(edge.keys / "ca.pem"))
    if alpn:
        context.set_alpn_protocols([alpn])
    return context


def _head(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    first, *lines = head.split(b"\r\n")[:-2]
    fields = (line.partition(b": ") for line in lines)
    return int(first.split()[1]), {name.lower(): value for name, _, value in fields}


async def said(edge: Edge, name: str, *lines: str, target: str = "/", body: str = "") -> Got | None:
    """The answer of a host to a GET, or a POST with a body, with these header lines."""
    async with await Wire.open(edge, name=name) as wire:
        method = "POST" if body else "GET"
        head = [f"{method} {target} HTTP/1.1", f"Host: {edge.host(name)}", *lines, "", body]
        await wire.send("\r\n".join(head).encode("latin-1"))
        return await wire.answer()


async def nothing_is_left_over(edge: Edge, open_vm: Recorder) -> None:
    """What the VM got has one reading, and whoever comes next gets their own answers."""
    assert not open_vm.unread
    assert all(request.is_plain for request in open_vm.seen), open_vm.raw
    assert not any(b"smuggled" in request.target for request in open_vm.seen)
    for number in range(3):
        got = await said(edge, "open", target=f"/innocent-{number}")
        assert got is not None
        assert got.status == 200
        assert got.body == f"open /innocent-{number}".encode()
