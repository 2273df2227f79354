"""gRPC from a stock client through the real HAProxy to a stock server: every kind of call, unbuffered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from atoll.domain.account import Account
from framework.edge import Edge, running_edge, upstream
from framework.published import published

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
ADDRESS, OTHER = "127.0.1.8", "127.0.1.9"


async def once(request: bytes, context: Any) -> bytes:
    """Echo; says what headers came, and ends with words of its own."""
    sent = dict(context.invocation_metadata())
    context.set_trailing_metadata((("x-email", sent.get("x-atoll-email", "")), ("x-n", "1")))
    if request == b"fail":
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as you wish")
    return request + str("cookie" in sent).encode()


async def talk(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    """Echo each as it comes."""
    async for request in requests:
        yield request.upper()


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="edge")
async def _edge() -> AsyncIterator[Edge]:
    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Once": grpc.unary_unary_rpc_method_handler(once),
        "Talk": grpc.stream_stream_rpc_method_handler(talk),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.Echo", handlers),))
    server.add_insecure_port(f"{ADDRESS}:8000")
    await server.start()
    try:
        async with running_edge() as edge, upstream("plain", OTHER):
            yield edge
    finally:
        await server.stop(None)


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="ann")
async def _ann(edge: Edge) -> Account:
    ann = await edge.account("ann@example.com")
    edge.cloud.put(published("rpc", ADDRESS, {ann.id}))
    edge.cloud.put(published("plain", OTHER, {ann.id}))
    await edge.agreed()
    return ann


def channel(edge: Edge, name: str = "rpc") -> grpc.aio.Channel:
    """As a client of `<name>.<domain>` makes one; the name need not resolve here."""
    trust = grpc.ssl_channel_credentials((edge.keys / "ca.pem").read_bytes())
    authority = f"{edge.host(name)}:{edge.port}"
    options = [("grpc.ssl_target_name_override", authority)]
    return grpc.aio.secure_channel(f"ipv4:127.0.0.1:{edge.port}", trust, options)


def calling(made: grpc.aio.Channel) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
    """The method that `once` serves."""
    return made.unary_unary("/t.Echo/Once")


def talking(made: grpc.aio.Channel) -> grpc.aio.StreamStreamMultiCallable[bytes, bytes]:
    """The one that `talk` serves."""
    return made.stream_stream("/t.Echo/Talk")


async def test_a_call_its_trailers_and_its_failure(edge: Edge, ann: Account) -> None:
    who = (("cookie", await edge.token(ann, "rpc")), ("x-atoll-email", "forged"))
    async with channel(edge) as made:
        echo = calling(made)
        call = echo(b"hi ", metadata=who, timeout=20)
        assert await call == b"hi False"
        assert dict(await call.trailing_metadata()) == {"x-email": ann.email, "x-n": "1"}
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await echo(b"fail", metadata=who, timeout=20)
    assert (failed.value.code(), failed.value.details()) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "as you wish",
    )


async def test_both_sides_talk_at_once(edge: Edge, ann: Account) -> None:
    who = (("cookie", await edge.token(ann, "rpc")),)
    async with channel(edge) as made:
        call = talking(made)(metadata=who, timeout=30)
        for word in (b"one", b"two", b"x" * 2_000_000):
            await call.write(word)
            assert await asyncio.wait_for(call.read(), 10) == word.upper()
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


async def test_a_stream_ends_with_the_grant(edge: Edge, ann: Account) -> None:
    bob = await edge.account("bob@example.com")
    edge.cloud.put(published("rpc", ADDRESS, {ann.id, bob.id}))
    await edge.agreed()
    async with channel(edge) as made:
        who = (("cookie", await edge.token(bob, "rpc")),)
        call = talking(made)(metadata=who, timeout=30)
        await call.write(b"one")
        assert await call.read() == b"ONE"
        edge.cloud.put(published("rpc", ADDRESS, {ann.id}))
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await asyncio.wait_for(call.read(), 10)
    assert ended.value.code() != grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("rpc", grpc.StatusCode.UNAUTHENTICATED),
        ("nosuch", grpc.StatusCode.UNAUTHENTICATED),
        ("plain", grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_who_may_not_and_what_speaks_no_grpc(
    edge: Edge, ann: Account, name: str, code: grpc.StatusCode
) -> None:
    who = (("cookie", await edge.token(ann, name)),) if name == "plain" else ()
    async with channel(edge, name) as made:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await calling(made)(b"", metadata=who, timeout=20)
    assert failed.value.code() == code
