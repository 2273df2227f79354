"""Commands in a VM from end to end: HTTP over a socket, uvicorn, the language, SSH, a real process."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.base.aio import TaskGroup, poll
from atoll.doors.api.serve import serve
from atoll.doors.ssh.run import Runner
from contracts.run_in_vm import STUBBORN, gone
from fakes.engine import FakeEngine
from fakes.sshd import FakeSshd
from framework.api import Door, door
from framework.cloud import control
from framework.gateway import free_port


class Server:
    """Where it listens."""

    def __init__(self, api: Door, port: int) -> None:
        self.api = api
        self.port = port

    async def ask(
        self, line: str, accept: str = "*/*"
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send a request; the answer is still to be read."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        body = line.encode()
        writer.write(
            f"POST /exec HTTP/1.1\r\nHost: atoll.localhost\r\nAccept: {accept}\r\n"
            f"Authorization: Bearer {self.api.token}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        return reader, writer


@pytest.fixture(name="server")
async def _server(tmp_path: Path) -> AsyncIterator[Server]:
    engine, port = FakeEngine(tmp_path / "engine.sock"), free_port()
    async with (
        FakeSshd().serving() as vm,
        engine.serving(),
        control(tmp_path / "control", engine, loops=True) as cloud,
        door(cloud, tmp_path, runner=Runner(opener=vm)) as api,
        TaskGroup() as group,
    ):
        await cloud.run("new --name web")
        task = group.create_task(serve(api.app, port=port))

        async def listens() -> bool | None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return None
            writer.close()
            return True

        await poll(listens, seconds=10, what="uvicorn")
        yield Server(api, port)
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
