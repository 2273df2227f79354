"""HTTP/2 frame by frame, without a library that would refuse to send what is wrong.

Headers are sent as literals without an index and without Huffman codes, so any name and any value
can be said; of answers the status is read.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from framework.edge import Edge
from framework.raw import ANSWER_S, Wire

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
_STATUS = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}  # RFC 7541, appendix A

Fields = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Frame:
    """As on the wire."""

    kind: int
    flags: int
    stream: int
    payload: bytes


@dataclass(slots=True)
class Ended:
    """How a stream ended: an answer, a reset (with its code), or the whole connection."""

    status: int = 0
    body: bytearray = field(default_factory=bytearray)
    reset: int | None = None
    is_gone: bool = False

    @property
    def is_refused(self) -> bool:
        """Whether nobody was given anything."""
        return self.is_gone or self.reset is not None or self.status >= 400


class H2:
    """One connection."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    @classmethod
    async def open(cls, edge: Edge, *, name: str = "web", settings: bytes = b"") -> Self:
        """Connect and say hello."""
        made = cls(await Wire.open(edge, name=name, alpn="h2"))
        await made.wire.send(PREFACE)
        await made.frame(SETTINGS, 0, 0, settings)
        return made

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *reason: object) -> None:
        await self.wire.__aexit__(*reason)

    async def frame(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        """Any frame."""
        await self.wire.send(frame(kind, flags, stream, payload))

    async def request(self, stream: int, fields: Fields, body: bytes | None = None) -> None:
        """HEADERS and, with a body, one DATA."""
        end = END_STREAM if body is None else 0
        await self.frame(HEADERS, END_HEADERS | end, stream, block(fields))
        if body is not None:
            await self.frame(DATA, END_STREAM, stream, body)

    async def read(self) -> Frame | None:
        """The next frame; None at the end of the connection."""
        try:
            async with asyncio.timeout(ANSWER_S):
                head = await self.wire.reader.readexactly(9)
                size = int.from_bytes(head[:3], "big")
                payload = await self.wire.reader.readexactly(size)
        except (asyncio.IncompleteReadError, OSError):
            return None
        return Frame(head[3], head[4], int.from_bytes(head[5:9], "big") & 0x7FFFFFFF, payload)

    async def ended(self, stream: int) -> Ended:
        """Read until this stream has ended."""
        result = Ended()
        while True:
            got = await self.read()
            if got is None or got.kind == GOAWAY:
                result.is_gone = True
                return result
            if got.kind == SETTINGS and not got.flags & ACK:
                await self.frame(SETTINGS, ACK, 0)
            if got.stream != stream:
                continue
            if got.kind == RST:
                result.reset = int.from_bytes(got.payload, "big")
                return result
            if got.kind == HEADERS and not result.status:
                result.status = _status(got.payload)
            if got.kind == DATA:
                result.body += got.payload
            if got.kind in (HEADERS, DATA) and got.flags & END_STREAM:
                return result

    async def answered(self) -> list[Frame]:
        """All that HAProxy had to say so far: the frames up to its answer to a PING."""
        await self.frame(PING, 0, 0, bytes(8))
        found = []
        while (got := await self.read()) is not None and got.kind != PING:
            found.append(got)
        return found


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Its bytes."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def block(fields: Fields) -> bytes:
    """A block of headers."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)


def get(host: str, path: str = "/", *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """The fields of an ordinary GET."""
    return [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", host.encode()),
        (b":path", path.encode()),
        *more,
    ]


def _text(text: bytes) -> bytes:
    size = len(text)
    if size < 127:
        return bytes([size]) + text
    size -= 127
    number = bytearray([127])
    while size >= 128:
        number.append(size % 128 | 128)
        size //= 128
    return bytes(number) + bytes([size]) + text


def _status(payload: bytes) -> int:
    """Of a block that begins with it, as HAProxy's does."""
    first = payload[0]
    if first & 0x80:
        return _STATUS[first & 0x7F]
    # A literal whose name is in the static table: index, length (its top bit: Huffman), digits.
    assert first & 0x0F in _STATUS or first & 0x3F in _STATUS, payload[:8]
    assert not payload[1] & 0x80, "a status in Huffman's code"
    return int(payload[2 : 2 + payload[1]])
