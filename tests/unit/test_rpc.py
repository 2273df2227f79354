"""Engine RPC over a real unix socket: both ends, and peers that keep to no rule.

The uid of a peer is the kernel's word and cannot be faked here; a caller that is not allowed is
played by a server that allows nobody.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from atoll.base.aio import TaskGroup, poll, together
from atoll.base.errors import Conflict, Internal, Invalid, NotFound, Unavailable
from atoll.rpc import server as rpc_server
from atoll.rpc.client import EngineClient, _frame
from atoll.rpc.messages import (
    ANSWER_BYTES,
    GIB,
    MIB,
    REQUEST_BYTES,
    Console,
    Create,
    Delete,
    Empty,
    Event,
    GetVm,
    Identity,
    ListVms,
    Message,
    Spec,
    StatVm,
    Text,
    Vm,
    Vms,
    VmState,
)
from atoll.rpc.server import RpcServer

VM = "vm-000000000001"
SPEC = Spec(image="debian", cpus=1, memory_bytes=512 * MIB, disk_bytes=10 * GIB)


class Engine:
    """Answers a few requests; `go` lets those that wait end."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.waiting = 0
        self.cancelled = 0

    async def __call__(self, request: Message) -> Message:
        match request:
            case GetVm(vm=vm):
                return Vm(vm=vm, owner="ann", spec=SPEC, state=VmState.RUNNING)
            case ListVms():
                return Vms(vms=())
            case Delete():
                raise Conflict("it is busy", hint="Wait", vm=VM)
            case StatVm():
                raise RuntimeError("a defect")
            case Console():
                self.waiting += 1
                try:
                    await self.go.wait()
                except asyncio.CancelledError:
                    self.cancelled += 1
                    raise
                return Text(text="let go")
        raise NotFound("nothing")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engine.sock"


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
async def served(path: Path, engine: Engine) -> AsyncIterator[RpcServer]:
    server = RpcServer(path=path, handler=engine, allowed={os.geteuid()})
    async with asyncio.timeout(20), server.serving():
        yield server


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[EngineClient]:
    client = EngineClient(socket=path)
    try:
        yield client
    finally:
        await client.close()


async def until(check: Any) -> None:
    async def is_so() -> bool | None:
        return True if check() else None

    await poll(is_so, seconds=10, every=0.005, what="the test's condition")


class Raw:
    """A peer that writes what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, line: bytes) -> dict[str, Any]:
        self.writer.write(line + b"\n")
        answer: dict[str, Any] = json.loads(await self.reader.readline())
        return answer


@asynccontextmanager
async def raw(path: Path) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_unix_connection(path, limit=ANSWER_BYTES)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()


def frame(**changed: object) -> bytes:
    good = {"id": 1, "method": "get-vm", "seconds": 5, "params": {"vm": VM}}
    return json.dumps(good | changed).encode()


@pytest.mark.usefixtures("served")
class TestCalls:
    async def test_an_answer_is_typed(self, path: Path) -> None:
        async with connected(path) as client:
            vm = await client.call(GetVm(vm=VM), Vm, seconds=5)
        assert vm == Vm(vm=VM, owner="ann", spec=SPEC, state=VmState.RUNNING)

    async def test_an_error_keeps_its_kind_hint_and_fields(self, path: Path) -> None:
        async with connected(path) as client:
            with pytest.raises(Conflict, match=r"^it is busy\. Wait$") as caught:
                await client.call(Delete(op="op-000000000001", vm=VM), Empty, seconds=5)
        assert caught.value.fields == {"vm": VM}

    async def test_a_defect_is_an_answer_too(self, path: Path) -> None:
        from atoll.rpc.messages import Stat

        async with connected(path) as client:
            with pytest.raises(Internal, match="RuntimeError: a defect"):
                await client.call(StatVm(vm=VM), Stat, seconds=5)
            assert await client.call(ListVms(), Vms, seconds=5) == Vms(vms=())

    async def test_a_slow_one_holds_up_nobody(self, path: Path, engine: Engine) -> None:
        async with connected(path) as client, TaskGroup() as group:
            slow = group.create_task(client.call(Console(vm=VM), Text, seconds=10))
            await until(lambda: engine.waiting)
            await together(*(client.call(GetVm(vm=VM), Vm, seconds=5) for _ in range(300)))
            assert not slow.done()
            engine.go.set()
        assert slow.result().text == "let go"

    async def test_a_deadline_ends_both_sides(self, path: Path, engine: Engine) -> None:
        async with connected(path) as client:
            with pytest.raises(Unavailable, match="took over"):
                await client.call(Console(vm=VM), Text, seconds=0.05)
            await until(lambda: engine.cancelled == 1)
            await client.call(ListVms(), Vms, seconds=5)  # a late answer confuses nothing

    async def test_a_request_too_large_is_refused_before_it_is_sent(
        self, path: Path, engine: Engine
    ) -> None:
        keys = tuple("k" * 16_384 for _ in range(256))
        large = Create(
            op="op-000000000001",
            vm=VM,
            owner="ann",
            spec=SPEC,
            identity=Identity(hostname="web", fresh=True, authorized_keys=keys),
        )
        from atoll.rpc.messages import Outcome

        async with connected(path) as client, TaskGroup() as group:
            other = group.create_task(client.call(Console(vm=VM), Text, seconds=10))
            await until(lambda: engine.waiting)
            with pytest.raises(Invalid, match="is over"):
                await client.call(large, Outcome, seconds=5)
            engine.go.set()
        assert other.result().text == "let go"


@pytest.mark.usefixtures("served")
class TestHostileCallers:
    @pytest.mark.parametrize(
        "line",
        [
            b"",
            b"{",
            b"[]",
            b"null",
            b"\xff\xfe\x00",
            b"[" * 100_000,
            b'{"id": 1e999, "method": "get-vm", "seconds": 1}',
            frame(method="no-such"),
            frame(method=["get-vm"]),
            frame(method=None),
            frame(params=None),
            frame(params={"vm": "../../etc"}),
            frame(params={"vm": VM, "more": 1}),
            frame(params=[1]),
            frame(seconds=0),
            frame(seconds=-1),
            frame(seconds=1e9),
            frame(seconds="soon"),
            frame(seconds=float("nan")),
            frame(seconds=float("inf")),
            frame(id="x"),
            frame(id=None),
            frame(method="subscribe", params={"more": 1}),
            frame(method="subscribe", seconds=-1),
        ],
        ids=lambda line: line[:40].decode(errors="replace"),
    )
    async def test_a_bad_frame_gets_an_error_and_harms_no_other(
        self, path: Path, engine: Engine, line: bytes
    ) -> None:
        async with raw(path) as peer:
            peer.writer.write(frame(id=7, method="console") + b"\n")
            await until(lambda: engine.waiting)
            answer = await peer.say(line)
            assert answer["error"]["code"] == "invalid"
            engine.go.set()
            assert json.loads(await peer.reader.readline()) == {
                "id": 7,
                "result": {"text": "let go"},
            }

    async def test_an_endless_line_ends_the_connection_and_no_other(self, path: Path) -> None:
        async with connected(path) as client:
            await client.call(ListVms(), Vms, seconds=5)
            async with raw(path) as peer:
                with pytest.raises((ConnectionError, EOFError)):
                    await _flood(peer)
            await client.call(ListVms(), Vms, seconds=5)

    async def test_a_caller_that_hangs_up_stops_nothing(self, path: Path, engine: Engine) -> None:
        async with raw(path) as peer:
            peer.writer.write(frame(method="console") + b"\n")
            await until(lambda: engine.waiting)
        async with connected(path) as client:
            await client.call(ListVms(), Vms, seconds=5)
        assert engine.cancelled == 0
        engine.go.set()


async def _flood(peer: Raw) -> None:
    for _ in range(REQUEST_BYTES * 4 // 65_536):
        peer.writer.write(b"x" * 65_536)
        await peer.writer.drain()
    await peer.reader.readexactly(1)


async def test_a_uid_that_is_not_allowed_is_not_heard(path: Path, engine: Engine) -> None:
    server = RpcServer(path=path, handler=engine, allowed={os.geteuid() + 1})
    async with server.serving(), raw(path) as peer:
        peer.writer.write(frame() + b"\n")
        with pytest.raises((ConnectionError, EOFError)):
            await peer.reader.readexactly(1)


async def test_the_socket_is_private_and_gone_afterwards(path: Path, engine: Engine) -> None:
    async with RpcServer(path=path, handler=engine, allowed={os.geteuid()}).serving():
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()


class TestLostConnections:
    async def test_what_is_in_flight_fails_and_the_next_call_connects_anew(
        self, path: Path, engine: Engine
    ) -> None:
        async with connected(path) as client:
            for _ in range(2):
                server = RpcServer(path=path, handler=engine, allowed={os.geteuid()})
                async with TaskGroup() as group:
                    async with server.serving():
                        await client.call(ListVms(), Vms, seconds=5)
                        before = engine.waiting
                        call = group.create_task(_failing(client))
                        await until(lambda before=before: engine.waiting > before)
                    assert engine.cancelled == engine.waiting  # told to end, and waited for
                assert "went away" in call.result().message
            with pytest.raises(Unavailable, match="does not listen"):
                await client.call(ListVms(), Vms, seconds=5)

    @pytest.mark.usefixtures("served")
    async def test_closing_fails_what_is_in_flight(self, path: Path, engine: Engine) -> None:
        client = EngineClient(socket=path)
        async with TaskGroup() as group:
            call = group.create_task(_failing(client))
            await until(lambda: engine.waiting)
            await client.close()
        assert "went away" in call.result().message
        await client.call(ListVms(), Vms, seconds=5)
        await client.close()

    @pytest.mark.parametrize("answer", [b"[]\n", b"7\n", b"{\n", b'{"id": 1, "error": 3}\n'])
    async def test_nonsense_from_the_other_end_is_no_hang(self, path: Path, answer: bytes) -> None:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(answer)
            await writer.drain()
            writer.close()

        other = await asyncio.start_unix_server(accept, path)
        async with other, connected(path) as client:
            with pytest.raises(Unavailable):
                await client.call(ListVms(), Vms, seconds=5)


async def _failing(client: EngineClient) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        await client.call(Console(vm=VM), Text, seconds=10)
    return caught.value


class TestEvents:
    async def test_subscribers_hear_what_is_published(self, path: Path, served: RpcServer) -> None:
        heard = asyncio.Queue[Event]()

        async def listen() -> None:
            async for event in EngineClient(socket=path).events():
                heard.put_nowait(event)

        async with TaskGroup() as group:
            tasks = [group.create_task(listen()) for _ in range(2)]
            await until(lambda: len(served._subscribers) == 2)
            event = Event(at=1.0, kind="vm-state", vm=VM, state=VmState.RUNNING)
            served.publish(event)
            assert [await heard.get(), await heard.get()] == [event, event]
            for task in tasks:
                task.cancel()

    async def test_one_that_leaves_is_forgotten_without_an_event(
        self, path: Path, served: RpcServer
    ) -> None:
        async with raw(path) as peer:
            await peer.say(frame(method="subscribe", params={}))
            assert len(served._subscribers) == 1
        await until(lambda: not served._subscribers and not served._tasks)

    async def test_one_that_does_not_read_is_cut_off(
        self, path: Path, served: RpcServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rpc_server, "EVENTS_QUEUED", 10)
        async with raw(path) as peer:
            await peer.say(frame(method="subscribe", params={}))
            event = Event(at=1.0, kind="progress", detail="x" * 100_000)

            async def is_cut_off() -> bool | None:
                served.publish(event)
                return None if served._subscribers else True

            await poll(is_cut_off, seconds=10, every=0.001, what="its end")
            await until(lambda: not served._tasks)
            with pytest.raises((ConnectionError, EOFError)):
                await peer.reader.readexactly(1 << 30)

    async def test_they_end_with_the_engine(self, path: Path, engine: Engine) -> None:
        server = RpcServer(path=path, handler=engine, allowed={os.geteuid()})

        async def listen() -> str:
            with pytest.raises(Unavailable) as caught:
                async for _ in EngineClient(socket=path).events():
                    pass
            return caught.value.message

        async with TaskGroup() as group:
            async with server.serving():
                task = group.create_task(listen())
                await until(lambda: server._subscribers)
        assert "events" in task.result()


def test_a_field_that_says_nothing_is_not_sent() -> None:
    """An engine of an earlier release, not replaced yet, would refuse what it does not know."""
    identity = Identity(hostname="web", fresh=True)
    spec = Spec(image="debian", cpus=1, memory_bytes=1 << 30, disk_bytes=1 << 30)
    create = Create(
        op="op-000000000000", vm="vm-000000000000", owner="acct-a", spec=spec, identity=identity
    )
    sent = json.loads(_frame(1, "create", create, 1.0))["params"]
    assert sent["identity"] == {"hostname": "web", "fresh": True}
    assert Create.model_validate(sent) == create
