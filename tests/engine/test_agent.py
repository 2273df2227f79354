"""The engine's client against the real agent in a process of its own, and against hostile ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from atoll.base.aio import TaskGroup, deadline, poll
from atoll.base.errors import Unavailable
from atoll.engine.agent import FrozenGuest, GuestAgent, GuestFailed
from atoll.guest import wire
from atoll.rpc.messages import Identity
from framework.agent_process import AgentProcess, guest_root, running

Answerer = Callable[[dict[str, object]], bytes]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return guest_root(tmp_path)


@pytest.fixture
def process(tmp_path: Path, root: Path) -> Iterator[AgentProcess]:
    with running(tmp_path / "agent.sock", root) as process:
        yield process


def identity(**changes: object) -> Identity:
    return Identity.model_validate(
        {
            "hostname": "web",
            "fresh": True,
            "user_ca": "ssh-ed25519 AAAA ca",
            "authorized_keys": ["ssh-ed25519 AAAA me"],
            **changes,
        }
    )


async def test_every_verb_answers_what_the_client_expects(
    process: AgentProcess, root: Path
) -> None:
    agent = await process.client()
    await agent.ping(seconds=5)
    hello = await agent.hello(seconds=5)
    assert (hello.version, hello.ready, hello.frozen) == (wire.VERSION, False, False)
    identified = await agent.identify(identity(), login_user="atoll", epoch="e1", seconds=5)
    assert (root / "etc/hostname").read_text() == "web\n"
    assert (root / "etc/machine-id").read_text().strip() == identified.machine_id
    assert (await agent.clock(time.time_ns(), seconds=5)).clock_moved_ns == 5
    assert (await agent.stat(seconds=5)).fs_total_bytes > 0
    assert (await agent.grow(seconds=5)).fs_bytes == 1 << 30
    assert (await agent.freeze(held_seconds=30, seconds=5)).mounts == ["/"]
    assert (await agent.hello(seconds=5)).frozen
    assert (await agent.thaw(seconds=5)).mounts == ["/"]
    await agent.shutdown("poweroff", seconds=5)
    (root / "run/atoll-ready").write_text("running\n")
    assert (await agent.wait_ready(seconds=5)).system == "running"
    await agent.close()


async def test_an_error_inside_names_itself(process: AgentProcess) -> None:
    agent = await process.client()
    with pytest.raises(GuestFailed, match="neither poweroff nor reboot"):
        await agent.shutdown("halt", seconds=5)
    with pytest.raises(GuestFailed, match="at most 60"):
        await agent.freeze(held_seconds=3600, seconds=5)
    await agent.ping(seconds=5)
    await agent.close()


async def test_a_frozen_guest_is_thawed_when_the_body_fails(process: AgentProcess) -> None:
    agent = await process.client()
    frozen = FrozenGuest(agent, held_seconds=30, seconds=5)

    async def body() -> None:
        async with frozen:
            assert frozen.mounts == ("/",)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await body()
    assert frozen.held is True
    assert not (await agent.hello(seconds=5)).frozen
    await agent.close()


async def test_a_frozen_guest_is_thawed_when_the_body_is_cancelled(process: AgentProcess) -> None:
    agent = await process.client()
    entered = asyncio.Event()

    async def body() -> None:
        async with FrozenGuest(agent, held_seconds=30, seconds=5):
            entered.set()
            await asyncio.Event().wait()

    async with TaskGroup() as group:
        task = group.create_task(body())
        await entered.wait()
        assert (await agent.hello(seconds=5)).frozen
        task.cancel()
    assert not (await agent.hello(seconds=5)).frozen
    await agent.close()


async def test_a_guest_that_let_go_early_is_known(process: AgentProcess) -> None:
    agent = await process.client()
    frozen = FrozenGuest(agent, held_seconds=0.05, seconds=5)
    async with frozen:

        async def let_go() -> bool | None:
            return not (await agent.hello(seconds=5)).frozen or None

        await poll(let_go, seconds=5, what="the watchdog")
    assert frozen.held is False
    await agent.close()


async def test_a_guest_that_did_not_freeze_was_not_held(process: AgentProcess) -> None:
    agent = await process.client()
    frozen = FrozenGuest(agent, held_seconds=3600, seconds=5)
    with pytest.raises(GuestFailed, match="at most 60"):
        await frozen.__aenter__()
    assert frozen.held is False
    await agent.close()


async def test_an_agent_that_was_killed_is_reached_again(process: AgentProcess) -> None:
    agent = await process.client()
    await agent.ping(seconds=5)
    process.kill()
    with pytest.raises(Unavailable):
        await agent.ping(seconds=5)
    process.start()

    async def answered() -> bool | None:
        try:
            await agent.ping(seconds=1)
        except Unavailable:
            return None
        return True

    assert await poll(answered, seconds=10, what="the agent")
    await agent.close()


async def test_a_second_client_finds_half_a_message_and_stale_answers(
    process: AgentProcess,
) -> None:
    """What a clone finds: its parent's half request in the port."""
    await (await process.client()).close()
    reader, writer = await asyncio.open_unix_connection(process.socket)
    half = wire.encode(wire.request("parent", 1, "hello", {}))
    writer.write(b"\x00garbage\xfe" + half[: len(half) // 2])
    writer.write(wire.encode(wire.request("parent", 2, "ping", {})))
    async with deadline(5, "the answer"):
        assert b'"id":2' in await reader.read(1 << 16)
    writer.write(half[:-3])
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    agent = await GuestAgent.connect(process.socket, seconds=5)
    await agent.ping(seconds=5)
    await agent.close()


@asynccontextmanager
async def guest(path: Path, answer: Answerer) -> AsyncIterator[GuestAgent]:
    """A client of a guest that answers each request with the bytes `answer` makes of it."""

    ended = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = wire.Reader()
        try:
            while data := await reader.read(1 << 16):
                for message in frames.feed(data):
                    writer.write(answer(message))
        finally:
            writer.transport.abort()
            ended.set()

    server = await asyncio.start_unix_server(talk, path)
    async with server:
        agent = await GuestAgent.connect(path, seconds=5)
        try:
            yield agent
        finally:
            await agent.close()
            async with deadline(5, "the guest's end"):
                await ended.wait()


def ok(message: dict[str, object], body: object, **changes: object) -> bytes:
    return wire.encode(
        {"v": 1, "nonce": message["nonce"], "id": message["id"], "ok": body, **changes}
    )


async def test_answers_meant_for_others_are_passed_over(tmp_path: Path) -> None:
    def answer(message: dict[str, object]) -> bytes:
        stale = ok(message, {"mounts": ["/lie"]}, nonce="parent")
        earlier = ok(message, {"mounts": ["/lie"]}, id=0)
        return b"\xfe0000" + stale + b"\xff\x00" + earlier + ok(message, {"mounts": ["/"]})

    async with guest(tmp_path / "s", answer) as agent:
        frozen = await agent.freeze(held_seconds=1, seconds=5)
        assert frozen.mounts == ["/"]


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"mounts": "text"},
        {"mounts": [1]},
        {"mounts": ["x" * 600]},
        {"mounts": ["/"] * 5000},
    ],
)
async def test_an_answer_of_another_shape_is_an_error(tmp_path: Path, body: object) -> None:
    async with guest(tmp_path / "s", lambda message: ok(message, body)) as agent:
        with pytest.raises(GuestFailed, match="not an answer"):
            await agent.freeze(held_seconds=1, seconds=5)


@pytest.mark.parametrize("error", [None, "text", {"message": 5}, {"message": "\x1b[2J" * 9000}])
async def test_an_errors_words_are_cut_and_cleaned(tmp_path: Path, error: object) -> None:
    def answer(message: dict[str, object]) -> bytes:
        return wire.encode({"v": 1, "nonce": message["nonce"], "id": message["id"], "error": error})

    async with guest(tmp_path / "s", answer) as agent:
        with pytest.raises(GuestFailed) as caught:
            await agent.ping(seconds=5)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 600


async def test_silence_floods_and_endless_frames_end_at_the_deadline(tmp_path: Path) -> None:
    def flood(_: dict[str, object]) -> bytes:
        return b"x" * (3 << 20) + b"\xfe%08x%08x" % (wire.BODY_LIMIT, 0) + b"y" * 1000

    async with guest(tmp_path / "s", flood) as agent:
        started = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable, match=r"took over 0\.3 s"):
            await agent.ping(seconds=0.3)
        assert asyncio.get_running_loop().time() - started < 3


async def test_an_agent_of_an_older_vm_is_told_the_time_it_asks_for(tmp_path: Path) -> None:
    asked: list[object] = []

    def answer(message: dict[str, object]) -> bytes:
        asked.append(message["args"])
        return ok(message, {"machine_id": "a" * 32, "clock_moved_ns": 7, "problems": []})

    async with guest(tmp_path / "agent", answer) as agent:
        identified = await agent.identify(identity(), login_user="atoll", epoch="e", seconds=5)
    assert identified.machine_id == "a" * 32
    (args,) = asked
    assert isinstance(args, dict)
    assert abs(args["unix_time_ns"] - time.time_ns()) < 60e9


async def test_another_version_is_refused(tmp_path: Path) -> None:
    facts = dict.fromkeys(("boot_id", "machine_id", "hostname", "kernel", "system", "epoch"), "x")
    body = {**facts, "version": 99, "ready": True, "frozen": False}
    async with guest(tmp_path / "s", lambda message: ok(message, body)) as agent:
        with pytest.raises(GuestFailed, match="version 99"):
            await agent.hello(seconds=5)


async def test_no_socket_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no guest agent port"):
        await GuestAgent.connect(tmp_path / "none", seconds=5)
