"""One request must stay one: what no two servers read alike.

Whatever arrives, a VM gets requests of one reading only or nothing, and the next visitor's answer is
their own. HAProxy keeps connections to a VM open and shares them, so a second reading would be theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from atoll.domain.account import Account
from framework.edge import Edge, running_edge
from framework.h2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    H2,
    HEADERS,
    RST,
    block,
    frame,
    get,
)  # fmt: skip
from framework.published import public
from framework.raw import Recorder, Wire, nothing_is_left_over, said

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]
SOON_S = 0.5  # a request without an end gets no answer; what must not happen has happened by then
HIDDEN = "GET /smuggled HTTP/1.1\r\nHost: web.atoll.localhost\r\nX-Atoll-User-Id: eve\r\n\r\n"


FRAMINGS = {
    "CL.TE": ("Content-Length: {n}", "Transfer-Encoding: chunked"),
    "TE.CL": ("Transfer-Encoding: chunked", "Content-Length: 4"),
    "CL.CL": ("Content-Length: 0", "Content-Length: {n}"),
    "CL.CL same": ("Content-Length: {n}", "Content-Length: {n}"),
    "CL list": ("Content-Length: 0, {n}",),
    "CL plus": ("Content-Length: +{n}",),
    "CL minus": ("Content-Length: -1",),
    "CL hex": ("Content-Length: 0x1f",),
    "CL blank": ("Content-Length:",),
    "CL inner blank": ("Content-Length: 1 0",),
    "CL fraction": ("Content-Length: 5.0",),
    "CL huge": ("Content-Length: 18446744073709551617",),
    "CL zeros": ("Content-Length: 00000000000000000000000000{n}",),
    "CL before colon": ("Content-Length : {n}",),
    "CL folded": ("Content-Length:\r\n {n}",),
    "CL underscore": ("Content_Length: {n}",),
    "CL NUL": ("Content-Length: 0\0{n}",),
    "CL VT": ("Content-Length:\x0b{n}",),
    "TE.TE": ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
    "TE x": ("Transfer-Encoding: x", "Content-Length: {n}"),
    "TE twice": ("Transfer-Encoding: chunked, chunked",),
    "TE list": ("Transfer-Encoding: chunked, identity",),
    "TE identity list": ("Transfer-Encoding: identity, chunked",),
    "TE gzip": ("Transfer-Encoding: gzip, chunked",),
    "TE quoted": ('Transfer-Encoding: "chunked"',),
    "TE case": ("Transfer-Encoding: ChUnKeD",),
    "TE tab": ("Transfer-Encoding:\tchunked",),
    "TE VT": ("Transfer-Encoding: \x0bchunked",),
    "TE FF": ("Transfer-Encoding: chunked\x0c",),
    "TE NUL": ("Transfer-Encoding: chunked\0",),
    "TE high": ("Transfer-Encoding: \xa0chunked",),
    "TE before colon": ("Transfer-Encoding : chunked",),
    "TE folded": ("Transfer-Encoding:\r\n chunked",),
    "TE folded away": ("X: y\r\n Transfer-Encoding: chunked", "Content-Length: {n}"),
    "TE comma": ("Transfer-Encoding: ,chunked", "Content-Length: {n}"),
    "TE semicolon": ("Transfer-Encoding: chunked;q=1", "Content-Length: {n}"),
    "TE bare CR": ("X: y\rTransfer-Encoding: chunked", "Content-Length: {n}"),
    "TE bare LF": ("X: y\nTransfer-Encoding: chunked",),
    "TE two blanks": ("Transfer-Encoding:  chunked  ",),
    "TE underscore": ("Transfer_Encoding: chunked", "Content-Length: {n}"),
    "CL in Connection": ("Connection: content-length", "Content-Length: {n}"),
    "TE in Connection": ("Connection: transfer-encoding", "Transfer-Encoding: chunked"),
    "CL on upgrade": ("Connection: Upgrade", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__",
                      "Content-Length: {n}"),
}  # fmt: skip
BODIES = {
    "chunk that ends": f"0\r\n\r\n{HIDDEN}",
    "length that ends": f"1e\r\n{HIDDEN[:30]}\r\n0\r\n\r\n{HIDDEN}",
    "only hidden": HIDDEN,
}


class TestFraming:
    """Two lengths, or none that is certain."""

    @pytest.mark.parametrize("lines", FRAMINGS.values(), ids=FRAMINGS)
    @pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
    @pytest.mark.parametrize("method", ["POST", "GET"])
    async def test_one_request_stays_one(
        self, edge: Edge, ann: Account, web: Recorder, open_vm: Recorder, lines: tuple[str, ...],
        body: str, method: str,
    ) -> None:  # fmt: skip
        """What HAProxy itself reads as a second request meets every rule; it is then no secret one."""
        head = "\r\n".join([f"{method} /first HTTP/1.1", f"Host: {edge.host('open')}", *lines])
        head = head.replace("{n}", str(len(body)))
        async with await Wire.open(edge, name="open") as wire:
            await wire.send(f"{head}\r\n\r\n{body}".encode("latin-1"))
            await wire.answer(seconds=SOON_S)
        assert not web.raw  # `smuggled` names the private VM
        assert b"eve" not in b"".join(request.head for request in open_vm.seen)
        await nothing_is_left_over(edge, open_vm)

    @pytest.mark.parametrize(
        "body",
        [
            "5;a=b\r\nhello\r\n0\r\n\r\n",
            '5;a="\r\n"\r\nhello\r\n0\r\n\r\n',
            f"5;{'x' * 4000}\r\nhello\r\n0\r\n\r\n",
            "5\nhello\n0\n\n",
            "5;\nxxxx\r\nhello\r\n0\r\n\r\n",
            "5\rX\nhello\r\n0\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            " 5\r\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "-5\r\nhello\r\n0\r\n\r\n",
            "5_0\r\nhello\r\n0\r\n\r\n",
            "10000000000000005\r\nhello\r\n0\r\n\r\n",
            "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
            "fffffffffffffff0\r\nhello\r\n0\r\n\r\n",
            "\r\nhello\r\n0\r\n\r\n",
            "5\r\nhelloXX0\r\n\r\n",
            "5\r\nhello\r\n\r\n0\r\n\r\n",
            "5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n",
            "5\r\nhello\r\n0\r\nTransfer-Encoding: x\r\nX-Atoll-User-Id: eve\r\n\r\n",
            "5\r\nhello\r\n0\r\nno colon\r\n\r\n",
            "5\r\nhello\r\n0\r\n\n",
            "5\r\nhello\r\n00000000000000000\r\n\r\n",
        ],
    )
    async def test_chunks(self, edge: Edge, ann: Account, open_vm: Recorder, body: str) -> None:
        async with await Wire.open(edge, name="open") as wire:
            head = (
                f"POST /first HTTP/1.1\r\nHost: {edge.host('open')}\r\nTransfer-Encoding: chunked"
            )
            await wire.send(f"{head}\r\n\r\n{body}{HIDDEN}".encode())
            await wire.answer(seconds=SOON_S)
        await nothing_is_left_over(edge, open_vm)
        bodies = [request.body for request in open_vm.seen if request.target == b"/first"]
        assert bodies in ([], [b"hello"])

    @pytest.mark.parametrize(
        "first",
        [
            "GET /first HTTP/0.9",
            "GET /first",
            "GET /first HTTP/2.0",
            "GET /first HTTP/1.2",
            "GET /first HTTP/1.10",
            "GET /first  HTTP/1.1",
            "GET  /first HTTP/1.1",
            "GET /fi rst HTTP/1.1",
            "GET /first HTTP/1.1 ",
            "GET\t/first\tHTTP/1.1",
            "GET /first http/1.1",
            " GET /first HTTP/1.1",
            "G\xc9T /first HTTP/1.1",
            "GET /fi\0rst HTTP/1.1",
            "GET /fi\rrst HTTP/1.1",
            "PRI * HTTP/2.0",
            "GET /first#/smuggled HTTP/1.1",
            "GET first HTTP/1.1",
            "GET \\first HTTP/1.1",
            "CONNECT 127.0.0.1:22 HTTP/1.1",
            "CONNECT web.atoll.localhost:80 HTTP/1.1",
            "GET * HTTP/1.1",
            "OPTIONS * HTTP/1.1",
            "\r\n\r\nGET /first HTTP/1.1",
        ],
    )
    async def test_request_lines(
        self, edge: Edge, ann: Account, open_vm: Recorder, first: str
    ) -> None:
        async with await Wire.open(edge, name="open") as wire:
            await wire.send(f"{first}\r\nHost: {edge.host('open')}\r\n\r\n".encode("latin-1"))
            await wire.answer()
        assert all(request.head.count(b" HTTP/1.1\r\n") == 1 for request in open_vm.seen)
        assert all(request.head.split(b"\r\n")[0].count(b" ") == 2 for request in open_vm.seen)
        await nothing_is_left_over(edge, open_vm)

    @pytest.mark.parametrize(
        "text",
        [
            "GET /first HTTP/1.1\nHost: {host}\n\n",
            "GET /first HTTP/1.1\r\nHost: {host}\r\nX: y\nZ: z\r\n\r\n",
            "GET /first HTTP/1.1\r\nHost: {host}\r\nX: y\rZ: z\r\n\r\n",
            "GET /first HTTP/1.1\r\nHost: {host}\r\nX: y\r\r\n\r\n",
            "GET /first HTTP/1.1\r\nHost: {host}\r\n\rX: y\r\n\r\n",
        ],
    )
    async def test_ends_of_lines(
        self, edge: Edge, ann: Account, open_vm: Recorder, text: str
    ) -> None:
        async with await Wire.open(edge, name="open") as wire:
            await wire.send(text.format(host=edge.host("open")).encode())
            await wire.answer()
        await nothing_is_left_over(edge, open_vm)

    async def test_pipelined_requests_are_each_judged(
        self, edge: Edge, ann: Account, web: Recorder, open_vm: Recorder
    ) -> None:
        """A second request in the same packet, for another VM, is not the first one's friend."""
        token = await edge.token(ann, "open")
        async with await Wire.open(edge, name="open") as wire:
            one = f"GET /1 HTTP/1.1\r\nHost: {edge.host('open')}\r\nCookie: {token}\r\n\r\n"
            two = f"GET /2 HTTP/1.1\r\nHost: {edge.host('web')}\r\n\r\n"
            await wire.send(f"{one}{two}{one}".encode())
            statuses = [got.status if got else 0 for got in [await wire.answer() for _ in range(3)]]
        assert statuses == [200, 401, 200]
        assert not web.raw

    async def test_who_was_signed_in_before_on_a_connection_is_not_any_more(
        self, edge: Edge, ann: Account, web: Recorder, open_vm: Recorder
    ) -> None:
        token = await edge.token(ann, "web")
        async with await Wire.open(edge, name="web") as wire:
            head = f"GET /1 HTTP/1.1\r\nHost: {edge.host('web')}\r\n"
            for cookie, status in ((f"Cookie: {token}\r\n", 200), ("", 401)):
                await wire.send(f"{head}{cookie}\r\n".encode())
                got = await wire.answer()
                assert got is not None
                assert got.status == status
            await wire.send(f"GET / HTTP/1.1\r\nHost: {edge.host('open')}\r\n\r\n".encode())
            assert await wire.answer() is not None
        assert not open_vm.seen[0].values("x-atoll-user-id")


H2_FIELDS = {
    "TE": ((b"transfer-encoding", b"chunked"),),
    "TE case": ((b"Transfer-Encoding", b"chunked"),),
    "connection": ((b"connection", b"keep-alive"),),
    "keep-alive": ((b"keep-alive", b"timeout=5"),),
    "proxy-connection": ((b"proxy-connection", b"x"),),
    "te": ((b"te", b"gzip"),),
    "CL differs": ((b"content-length", b"3"),),
    "CL twice": ((b"content-length", b"5"), (b"content-length", b"0")),
    "CL signed": ((b"content-length", b"+5"),),
    "CRLF in a value": ((b"x", b"y\r\n\r\n" + HIDDEN.encode()),),
    "LF in a value": ((b"x", b"y\n\n" + HIDDEN.encode()),),
    "CR in a value": ((b"x", b"y\rtransfer-encoding: chunked"),),
    "NUL in a value": ((b"x", b"y\0transfer-encoding: chunked"),),
    "CRLF in a name": ((b"x: y\r\n\r\n" + HIDDEN.lower().encode(), b"z"),),
    "colon in a name": ((b"transfer-encoding: chunked", b"x"),),
    "blank in a name": ((b"transfer-encoding ", b"chunked"),),
    "pseudo unknown": ((b":smuggled", b"x"),),
    "pseudo late": ((b"x", b"y"), (b":path", b"/smuggled")),
    "path twice": ((b":path", b"/smuggled"),),
    "method twice": ((b":method", b"GET"),),
    "authority twice": ((b":authority", b"web.atoll.localhost"),),
    "status": ((b":status", b"200"),),
}  # fmt: skip
H2_PSEUDO = {
    "CRLF in the path": (b":path", b"/ HTTP/1.1\r\nHost: web.atoll.localhost\r\n\r\nGET /smuggled"),
    "blank in the path": (b":path", b"/ HTTP/1.1 /smuggled"),
    "no slash": (b":path", b"smuggled"),
    "empty path": (b":path", b""),
    "whole URL as path": (b":path", b"https://web.atoll.localhost/smuggled"),
    "CRLF in the method": (b":method", b"GET /smuggled HTTP/1.1\r\n\r\nGET"),
    "blank in the method": (b":method", b"GET /smuggled"),
    "CRLF in the authority": (b":authority", b"open.atoll.localhost\r\n\r\nGET /smuggled"),
    "path in the authority": (b":authority", b"open.atoll.localhost/smuggled?"),
    "user in the authority": (b":authority", b"web.atoll.localhost@open.atoll.localhost"),
    "scheme": (b":scheme", b"https://web.atoll.localhost/smuggled?"),
    "CRLF in the scheme": (b":scheme", b"https\r\n"),
}


class Hasty:
    """A server that answers a head at once, and checks that what follows is the body it announced."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.swallowed: list[bytes] = []  # what was taken for a body and is none
        self.writers: list[asyncio.StreamWriter] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")
                await writer.drain()
                if b"content-length: 6\r\n" in head.lower():
                    body = await reader.readexactly(6)
                    if body != b"aaaaaa":
                        self.swallowed.append(body)
        writer.close()


@asynccontextmanager
async def hasty_at(address: str, edge: Edge, owner: Account) -> AsyncIterator[Hasty]:
    """One behind the VM `hasty`, which is public."""
    server = Hasty()
    async with await asyncio.start_server(server.handle, address, 8000):
        edge.cloud.put(public("hasty", address, owner))
        await edge.agreed()
        yield server
        for writer in server.writers:
            writer.close()
    edge.cloud.remove("hasty")
    await edge.agreed()


@pytest_asyncio.fixture(loop_scope="module")
async def hasty(edge: Edge, ann: Account) -> AsyncIterator[Hasty]:
    """At its address."""
    async with hasty_at("127.0.1.4", edge, ann) as server:
        yield server


def post(edge: Edge, name: str, size: int) -> list[tuple[bytes, bytes]]:
    """The fields of a POST that says how long its body is."""
    fields = [(b":method", b"POST"), *get(edge.host(name))[1:]]
    return [*fields, (b"content-length", str(size).encode())]


class TestEarlyAnswers:
    """Whoever answers before the body came must not take the next request's head for it."""

    @pytest.mark.parametrize("after", [HEADERS, DATA], ids=["head", "answer"])
    @pytest.mark.parametrize("body", [b"", b"aaa"])
    async def test_the_next_request_is_nobodys_body(
        self, edge: Edge, hasty: Hasty, after: int, body: bytes
    ) -> None:
        """Who sees the answer ends the body early, as curl does: shorter than it said."""
        for _ in range(5):
            async with await H2.open(edge, name="hasty") as h2:
                await h2.frame(HEADERS, END_HEADERS, 1, block(post(edge, "hasty", 6)))
                while (got := await h2.read()) is not None and (got.stream, got.kind) != (1, after):
                    pass
                await h2.frame(DATA, END_STREAM, 1, body)
                await h2.answered()
            async with await H2.open(edge, name="hasty") as h2:
                await h2.request(1, get(edge.host("hasty"), "/next"))
                assert (await h2.ended(1)).status == 403
        assert not hasty.swallowed
        assert [head.split()[1] for head in hasty.heads] == [b"/", b"/next"] * 5

    async def test_nor_is_it_controls(self, edge: Edge, ann: Account) -> None:
        """Which refuses a form of another site without a look at its body."""
        for _ in range(5):
            async with await H2.open(edge, name="") as h2:
                fields = [(b":path", b"/run/rm") if name == b":path" else (name, value)
                          for name, value in post(edge, "", 6)]  # fmt: skip
                fields.append((b"origin", b"https://evil.example"))
                await h2.frame(HEADERS, END_HEADERS, 1, block(fields))
                while (got := await h2.read()) is not None and (got.stream, got.kind) != (
                    1,
                    HEADERS,
                ):
                    pass
                await h2.frame(DATA, END_STREAM, 1)
                await h2.answered()
            assert (await edge.curl(edge.url("", "/ca.pem"))).status == 200

    async def test_a_length_without_a_body_is_not_passed_on(self, edge: Edge, hasty: Hasty) -> None:
        async with await H2.open(edge, name="hasty") as h2:
            await h2.request(1, post(edge, "hasty", 6))
            assert (await h2.ended(1)).status == 403
        (head,) = hasty.heads
        assert b"content-length" not in head.lower()

    async def test_connections_without_bodies_are_kept(self) -> None:
        """By an edge of its own: HAProxy keeps as many as it lately needed, to all VMs together."""
        async with running_edge() as edge:
            ann = await edge.account("ann@example.com")
            async with hasty_at("127.0.1.5", edge, ann) as hasty:
                for _ in range(20):
                    await edge.curl(edge.url("hasty"))
                assert len(hasty.writers) == 1
                for _ in range(5):
                    await edge.curl(edge.url("hasty"), "-d", "aaaaaa")
                assert len(hasty.writers) >= 5

    @pytest.mark.parametrize("size", [6, 9_000])
    async def test_who_is_refused_is_told_so(self, edge: Edge, ann: Account, size: int) -> None:
        """Before the body has come, too: not by a stream that ends without an answer."""
        for pause_s in (0.0, 0.005, 0.05):
            async with await H2.open(edge, name="web") as h2:
                await h2.frame(HEADERS, END_HEADERS, 1, block(post(edge, "web", size)))
                await asyncio.sleep(pause_s)
                await h2.frame(DATA, END_STREAM, 1, bytes(size))
                assert (await h2.ended(1)).status == 401
                assert not [got for got in await h2.answered() if got.kind == RST]


class TestDowngrade:
    """HTTP/2 outside, HTTP/1.1 to the VM: what was one frame must not become two requests."""

    @pytest.mark.parametrize("fields", H2_FIELDS.values(), ids=H2_FIELDS)
    async def test_fields(
        self, edge: Edge, ann: Account, web: Recorder, open_vm: Recorder,
        fields: tuple[tuple[bytes, bytes], ...],
    ) -> None:  # fmt: skip
        head = get(edge.host("open"), "/first", *fields)
        head[0] = (b":method", b"POST")
        async with await H2.open(edge, name="open") as h2:
            await h2.request(1, head, b"hello")
            result = await h2.ended(1)
        assert result.is_refused
        assert not any(request.target != b"/first" for request in open_vm.seen)
        assert not web.raw
        await nothing_is_left_over(edge, open_vm)

    @pytest.mark.parametrize("field", H2_PSEUDO.values(), ids=H2_PSEUDO)
    async def test_pseudo_fields(
        self, edge: Edge, ann: Account, web: Recorder, open_vm: Recorder, field: tuple[bytes, bytes]
    ) -> None:
        head = [field if name == field[0] else (name, value) for name, value in
                get(edge.host("open"), "/first")]  # fmt: skip
        async with await H2.open(edge, name="open") as h2:
            await h2.request(1, head)
            await h2.ended(1)
        assert not web.raw
        assert all(request.head.split(b"\r\n")[0].count(b" ") == 2 for request in open_vm.seen)
        await nothing_is_left_over(edge, open_vm)

    async def test_a_body_longer_than_it_said(
        self, edge: Edge, ann: Account, open_vm: Recorder
    ) -> None:
        head = get(edge.host("open"), "/first", (b"content-length", b"1"))
        head[0] = (b":method", b"POST")
        async with await H2.open(edge, name="open") as h2:
            await h2.frame(HEADERS, END_HEADERS, 1, block(head))
            await h2.frame(DATA, 0, 1, b"x" + HIDDEN.encode())
            await h2.frame(DATA, END_STREAM, 1, HIDDEN.encode())
            assert (await h2.ended(1)).is_refused
        await nothing_is_left_over(edge, open_vm)

    async def test_headers_after_the_body_are_trailers(
        self, edge: Edge, ann: Account, open_vm: Recorder
    ) -> None:
        more = ((b"transfer-encoding", b"x"), (b":path", b"/smuggled"))
        for field in more:
            head = get(edge.host("open"), "/first")
            head[0] = (b":method", b"POST")
            async with await H2.open(edge, name="open") as h2:
                await h2.frame(HEADERS, END_HEADERS, 1, block(head))
                await h2.frame(DATA, 0, 1, b"hello")
                await h2.frame(HEADERS, END_HEADERS | END_STREAM, 1, block([field]))
                assert (await h2.ended(1)).is_refused
        await nothing_is_left_over(edge, open_vm)

    async def test_no_h2c_by_upgrade(self, edge: Edge, ann: Account, open_vm: Recorder) -> None:
        """A VM that changes to h2c would read what follows without any rule of ours."""
        got = await said(
            edge, "open", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAAQAAP__",
        )  # fmt: skip
        assert got is not None
        assert got.status == 200
        for request in open_vm.seen:
            assert not request.values("upgrade")
            assert not request.values("connection")

    async def test_a_block_in_pieces_with_something_between(
        self, edge: Edge, ann: Account, open_vm: Recorder
    ) -> None:
        head = block(get(edge.host("open"), "/first"))
        async with await H2.open(edge, name="open") as h2:
            await h2.wire.send(
                frame(HEADERS, END_STREAM, 1, head[:10])
                + frame(HEADERS, END_STREAM | END_HEADERS, 3, head)
                + frame(CONTINUATION, END_HEADERS, 1, head[10:])
            )
            assert (await h2.ended(1)).is_gone
        assert not open_vm.seen
