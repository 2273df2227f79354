"""Commands in a VM from end to end: HTTP over a socket, uvicorn, the language, SSH, a real process."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.base.aio import TaskGroup, poll
from atoll.base.errors import Exhausted
from atoll.doors.front.serve import listening, serve
from atoll.doors.ssh.run import Runner
from atoll.rpc.messages import Create
from atoll.store import operations
from contracts.run_in_vm import STUBBORN, gone
from fakes.engine import FakeEngine
from fakes.sshd import FakeSshd
from framework import clients
from framework.api import Door, door
from framework.cloud import Control, control


async def test_small_answers_are_sent_at_once() -> None:
    """Header and body are two writes; the second would wait 40 ms for the client's delayed ACK."""
    accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    with listening(0) as sock:
        server = await asyncio.start_server(
            lambda _, writer: accepted.put_nowait(writer), sock=sock
        )
        async with server:
            _, client = await asyncio.open_connection(*sock.getsockname())
            ours = await accepted.get()
            within = ours.get_extra_info("socket")
            assert within.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            client.close()
            ours.close()


class Server:
    """Where it listens."""

    def __init__(self, api: Door, port: int, cloud: Control) -> None:
        self.api = api
        self.port = port
        self.cloud = cloud

    async def ask(
        self, line: str, accept: str = "*/*", key: str = ""
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send a request; the answer is still to be read."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        body = line.encode()
        writer.write(
            f"POST /exec HTTP/1.1\r\nHost: atoll.localhost\r\nAccept: {accept}\r\n"
            f"{f'Idempotency-Key: {key}' if key else 'X-None: 1'}\r\n"
            f"Authorization: Bearer {self.api.token}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        return reader, writer


@pytest.fixture(name="server")
async def _server(tmp_path: Path) -> AsyncIterator[Server]:
    engine, port = FakeEngine(tmp_path / "engine.sock"), clients.free_port()
    async with (
        FakeSshd().serving() as vm,
        engine.serving(),
        control(tmp_path / "control", engine, loops=True) as cloud,
        door(cloud, tmp_path, runner=Runner(opener=vm)) as api,
        TaskGroup() as group,
    ):
        await cloud.run("new --name web")
        task = group.create_task(serve(api.app, port=port))
        await clients.listening(port, seconds=30)
        yield Server(api, port, cloud)
        task.cancel()


async def test_lines_and_a_client_that_closes(server: Server) -> None:
    reader, writer = await server.ask(f"ssh web '{STUBBORN}'", "application/x-ndjson")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    await reader.readuntil(b"\r\n")  # the length of the chunk
    line = json.loads(await reader.readuntil(b"\n"))
    pids = [int(word) for word in base64.b64decode(line["stdout"]).split()]
    assert len(pids) == 2
    writer.close()
    for pid in pids:
        await gone(pid)


async def test_plain_and_a_client_that_closes(server: Server, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    _, writer = await server.ask(f"ssh web 'echo $$ >{mark}.new; mv {mark}.new {mark}; sleep 600'")

    async def started() -> int | None:
        return int(mark.read_text()) if mark.exists() else None

    pid = await poll(started, seconds=10, what="the command to start")
    writer.close()
    await gone(pid)


async def test_plain(server: Server) -> None:
    reader, writer = await server.ask("ssh web 'echo out; echo err >&2; exit 3'")
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    assert "x-exe-exit: 3\r\n" in head
    assert sorted((await reader.readexactly(8)).split()) == [b"err", b"out"]
    writer.close()


@pytest.mark.parametrize("is_refused", [False, True])
async def test_a_client_that_leaves_during_new_leaves_a_whole_vm_or_none(
    server: Server, is_refused: bool
) -> None:
    cloud = server.cloud
    engine = cloud.engine
    engine.hold[Create] = asyncio.Event()
    if is_refused:
        engine.refuse[Create].append(Exhausted("out of memory"))
    _, writer = await server.ask("new --name shop", key="k")

    async def is_asked() -> bool | None:
        return sum(isinstance(request, Create) for request in engine.asked) == 2 or None

    await poll(is_asked, seconds=10, what="the engine to be asked")
    writer.transport.abort()  # the client is gone, and its answer has nowhere to go
    engine.hold.pop(Create).set()

    async def is_over() -> bool | None:
        async with cloud.store.read() as tx:
            return not await operations.unfinished(tx) or None

    await poll(is_over, seconds=10, what="the journal to be done")
    names = {vm["vm_name"]: vm["status"] for vm in (await cloud.data("ls"))["vms"]}
    made = {} if is_refused else {"shop": "running"}
    assert names == {"web": "running"} | made
    assert len(engine.vms) == len(names)

    async def told() -> str | None:
        reader, again = await server.ask("new --name shop", key="k")
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        again.close()
        return None if " 409 " in head else head

    head = await poll(told, seconds=10, what="the answer of the first call")
    assert head.startswith(f"http/1.1 {422 if is_refused else 200} ")
    assert "idempotency-replayed: true" in head
