"""Clients that keep the edge busy: slow, silent, oversized, flooding. Others are served meanwhile.

Each class has an edge of its own, since what it does counts against an address for a while.
"""

from __future__ import annotations

import asyncio
import resource
import ssl
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress

import pytest

from atoll.base.aio import TaskGroup
from atoll.doors.edge.haproxy import Limits
from framework.edge import Edge, running_edge
from framework.h2 import END_HEADERS, H2, HEADERS, PING, RST, SETTINGS, WINDOW, block, frame, get
from framework.published import public
from framework.raw import Recorder, Wire, recorder, said

pytestmark = pytest.mark.timeout(240)
OPEN = "127.0.1.2"
HEAD_S, CLIENT_S = 10.0, 60.0  # `timeout http-request`, `timeout client`


@asynccontextmanager
async def edge_with_open_vm() -> AsyncIterator[tuple[Edge, Recorder]]:
    """An edge before one public VM."""
    async with running_edge() as edge, recorder("open", OPEN) as open_vm:
        edge.cloud.put(public("open", OPEN, await edge.account("ann@example.com")))
        await edge.agreed()
        yield edge, open_vm


async def others_are_served(edge: Edge, *, within_s: float = 5.0) -> None:
    """Somebody at another address gets an answer, and soon."""
    async with asyncio.timeout(within_s):
        async with await Wire.open(edge, name="open", source="127.0.0.99") as wire:
            await wire.send(f"GET /other HTTP/1.1\r\nHost: {edge.host('open')}\r\n\r\n".encode())
            got = await wire.answer()
    assert got is not None
    assert got.status == 200


class TestSlow:
    """Who sends a byte now and then."""

    async def test_slow_clients_are_shown_the_door(self) -> None:
        """All at once: half a head, a head drop by drop, a block of headers that never ends."""
        async with edge_with_open_vm() as (edge, open_vm):
            began = time.monotonic()
            async with TaskGroup() as group:
                jobs = [
                    group.create_task(self._half_a_head(edge)),
                    group.create_task(self._drop_by_drop(edge)),
                    group.create_task(self._h2_without_a_head(edge)),
                ]
                await others_are_served(edge)
            ended = [job.result() - began for job in jobs]
            assert max(ended) < HEAD_S + 10, ended
            assert not [seen for seen in open_vm.seen if seen.target != b"/other"]

    @pytest.mark.slow
    async def test_half_a_tls_hello_has_a_minute(self) -> None:
        """HAProxy 2.6 has only `timeout client` for it."""
        async with edge_with_open_vm() as (edge, open_vm):
            began = time.monotonic()
            async with TaskGroup() as group:
                jobs = [
                    group.create_task(self._silent(edge)),
                    group.create_task(self._half_a_hello(edge)),
                ]
                await others_are_served(edge)
            ended = [job.result() - began for job in jobs]
            assert max(ended) < CLIENT_S + 15, ended
            assert not [seen for seen in open_vm.seen if seen.target != b"/other"]

    async def _silent(self, edge: Edge) -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
        return await self._until_closed(reader, writer)

    async def _half_a_hello(self, edge: Edge) -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
        outgoing = ssl.MemoryBIO()
        hello = ssl.create_default_context().wrap_bio(
            ssl.MemoryBIO(), outgoing, server_hostname=edge.host("open")
        )
        with suppress(ssl.SSLWantReadError):
            hello.do_handshake()
        writer.write(outgoing.read()[:100])
        return await self._until_closed(reader, writer)

    async def _half_a_head(self, edge: Edge) -> float:
        wire = await Wire.open(edge, name="open")
        await wire.send(f"GET / HTTP/1.1\r\nHost: {edge.host('open')}\r\nX: ".encode())
        got = await wire.answer()
        assert got is not None
        assert got.status == 408
        return await self._until_closed(wire.reader, wire.writer)

    async def _drop_by_drop(self, edge: Edge) -> float:
        """A byte a second keeps no connection alive: the whole head has its time."""
        wire = await Wire.open(edge, name="open")
        await wire.send(f"GET / HTTP/1.1\r\nHost: {edge.host('open')}\r\n".encode())
        for number in range(60):
            await wire.send(b"X-%d: y\r\n" % number)
            got = await wire.answer(seconds=1.0)
            if got is not None:
                assert got.status == 408
                break
        return await self._until_closed(wire.reader, wire.writer)

    async def _h2_without_a_head(self, edge: Edge) -> float:
        """A block of headers that never ends."""
        h2 = await H2.open(edge, name="open")
        await h2.frame(HEADERS, 0, 1, block(get(edge.host("open")))[:20])
        return await self._until_closed(h2.wire.reader, h2.wire.writer)

    async def _until_closed(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> float:
        try:
            async with asyncio.timeout(CLIENT_S + 30):
                with suppress(OSError):
                    await reader.read()
        except TimeoutError:
            pass  # the time says it
        finally:
            writer.transport.abort()
        return time.monotonic()


class TestIdle:
    """Ten thousand connections that do nothing."""

    async def test_one_address_cannot_take_all(self) -> None:
        """Beyond its share it is refused at once, before any TLS; what it holds hinders nobody."""
        with descriptors(20_000):
            async with edge_with_open_vm() as (edge, _), AsyncExitStack() as held:
                limit = Limits().connections
                for _ in range(10_000 // 500):
                    async with TaskGroup() as group:
                        for _ in range(500):
                            group.create_task(self._hold(edge, held))
                await others_are_served(edge)
                count = await self._connections(edge)
                assert limit <= count <= limit + 10

    async def _hold(self, edge: Edge, held: AsyncExitStack, source: str = "127.0.0.1") -> None:
        with suppress(ConnectionError):  # refused
            _, writer = await asyncio.open_connection(
                "127.0.0.1", edge.port, local_addr=(source, 0)
            )
            held.callback(writer.transport.abort)

    async def _connections(self, edge: Edge) -> int:
        said = await edge.runtime.ask("show info")
        return int(said.partition("\nCurrConns: ")[2].split()[0])


@contextmanager
def descriptors(count: int) -> Iterator[None]:
    """This process may open so many files meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.fail(f"{count} descriptors are needed, the limit is {hard}: raise `ulimit -Hn`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class TestOversized:
    """More than a head may have."""

    async def test_heads_that_do_not_fit_are_refused(self) -> None:
        async with edge_with_open_vm() as (edge, open_vm):
            for lines in (
                [f"X: {'x' * 20_000}"],
                [f"X-{number}: y" for number in range(150)],
                [f"Cookie: {'a=b; ' * 5_000}c=d"],
                [f"{'x' * 20_000}: y"],
            ):
                got = await said(edge, "open", *lines)
                assert got is None or got.status in (400, 431)
            got = await said(edge, "open", target=f"/{'x' * 20_000}")
            assert got is None or got.status in (400, 414)
            assert not open_vm.raw
            got = await said(edge, "open", *(f"X-{number}: {'y' * 80}" for number in range(60)))
            assert got is not None
            assert got.status == 200

    async def test_h2_heads_that_do_not_fit_are_refused(self) -> None:
        async with edge_with_open_vm() as (edge, open_vm):
            big = [(b"x-%d" % number, b"y" * 1000) for number in range(30)]
            many = [(b"x-%d" % number, b"y") for number in range(300)]
            for fields in (big, many):
                async with await H2.open(edge, name="open") as h2:
                    await h2.request(1, get(edge.host("open"), "/", *fields))
                    assert (await h2.ended(1)).is_refused
            async with await H2.open(edge, name="open") as h2:  # a bomb: small on the wire
                await h2.frame(SETTINGS, 0, 0, struct.pack(">HI", 1, 0xFFFFFFFF))
                entry = b"\x40" + bytes([1]) + b"x" + b"\x7f\x81\x1e" + b"y" * 3968
                again = b"\xbe" * 4000
                await h2.frame(HEADERS, 5, 1, block(get(edge.host("open"))) + entry + again)
                assert (await h2.ended(1)).is_refused
            assert not open_vm.raw
            await others_are_served(edge)


class TestFloods:
    """HTTP/2 frames that cost the sender nothing."""

    @pytest.mark.parametrize("kind", ["rapid reset", "settings", "ping", "window", "empty data"])
    async def test_others_are_served_during_and_after(self, kind: str) -> None:
        async with edge_with_open_vm() as (edge, _):
            async with TaskGroup() as group:
                floods = [group.create_task(self._flood(edge, kind)) for _ in range(4)]
                await others_are_served(edge, within_s=10)
                for flood in floods:
                    await flood
            await others_are_served(edge)
            assert edge.haproxy is not None
            assert edge.haproxy.returncode is None

    async def _flood(self, edge: Edge, kind: str) -> None:
        head = block(get(edge.host("open"), "/flood"))
        async with await H2.open(edge, name="open") as h2:
            with suppress(TimeoutError):
                async with asyncio.timeout(3):
                    for number in range(0, 40_000, 200):
                        await h2.wire.send(
                            b"".join(
                                self._frames(kind, 2 * n + 1, head)
                                for n in range(number, number + 200)
                            )
                        )

    def _frames(self, kind: str, stream: int, head: bytes) -> bytes:
        match kind:
            case "rapid reset":
                cancel = frame(RST, 0, stream, struct.pack(">I", 8))
                return frame(HEADERS, END_HEADERS | 1, stream, head) + cancel
            case "settings":
                return frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65_535))
            case "ping":
                return frame(PING, 0, 0, b"12345678")
            case "window":
                return frame(WINDOW, 0, 0, struct.pack(">I", 1))
        return frame(HEADERS, END_HEADERS, 1, head) if stream == 1 else frame(0, 0, 1)
