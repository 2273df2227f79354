"""Replies that go on, over HTTP: a real server, and clients that stay, leave or do not read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.types import Message

from atoll.base.aio import TaskGroup, poll
from atoll.base.errors import Denied
from atoll.domain.account import Account, Caller, Door
from atoll.doors.api import run
from atoll.doors.api.exec import NDJSON
from atoll.doors.api.run import Lines
from atoll.doors.api.running import Running, ended
from atoll.services import changes
from fakes.engine import FakeEngine
from framework.api import door
from framework.cloud import control
from framework.served import Served, served_api

ANN = Caller(account=Account(id="acct-1", email="ann@example.com"), door=Door.EXEC, token="api:1")
BEAT_S = 0.05


@pytest.fixture(name="api")
def _api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(changes, "LOOK_S", 0.01)
    monkeypatch.setattr(run, "HEARTBEAT_S", BEAT_S)
    with served_api(tmp_path) as served:
        yield served


@asynccontextmanager
async def client(api: Served) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"authorization": f"Bearer {api.token}"}
    async with httpx2.AsyncClient(base_url=api.url, headers=headers, timeout=20) as made:
        yield made


async def call(made: httpx2.AsyncClient, line: str) -> None:
    assert (await made.post("/exec", content=line.encode())).status_code == 200


class Stream:
    """One answer that goes on."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self.beats = 0
        self._lines = response.aiter_lines()

    async def next(self) -> Any:
        """The next object; empty lines are counted."""
        async for line in self._lines:
            if line:
                return json.loads(line)
            self.beats += 1
        raise AssertionError("it ended")

    async def events(self, count: int) -> list[str]:
        """The kinds of the next events."""
        seen: list[str] = []
        while len(seen) < count:
            seen += [event["event"] for event in (await self.next())["events"]]
        return seen


@asynccontextmanager
async def stream(made: httpx2.AsyncClient, line: str, **headers: str) -> AsyncIterator[Stream]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with made.stream("POST", "/exec", content=line.encode(), headers=named) as response:
        yield Stream(response)


async def listening(api: Served, count: int) -> None:
    async def check() -> bool | None:
        return api.listening == count or None

    await poll(check, seconds=20, what=f"{count} who listen", every=0.005)


async def test_the_last_and_then_what_comes_to_each_of_two(api: Served) -> None:
    async with client(api) as made:
        await call(made, "new --name web")
        async with stream(made, "events -f") as one, stream(made, "events web --follow") as two:
            assert one.response.headers["content-type"] == NDJSON
            assert await one.events(1) == await two.events(1) == ["new"]
            for line in ("tag web a", "new --name db", "comment web x"):
                await call(made, line)
            assert await one.events(3) == ["tag", "new", "comment"]
            assert await two.events(2) == ["tag", "comment"]
            await listening(api, 2)
        await listening(api, 0)


async def test_lists_as_they_change(api: Served) -> None:
    async with client(api) as made, stream(made, "ls --watch") as one, stream(made, "ls -w") as two:
        assert await one.next() == await two.next() == {"vms": []}
        await call(made, "new --name web")
        for each in (one, two):
            while (shown := (await each.next())["vms"])[0]["status"] != "running":
                pass
            assert [vm["vm_name"] for vm in shown] == ["web"]


async def test_beats_while_nothing_happens(api: Served) -> None:
    async with client(api) as made, stream(made, "events --follow") as one:
        await one.next()
        coming = asyncio.ensure_future(one.next())

        async def beaten() -> bool | None:
            return one.beats >= 3 or None

        await poll(beaten, seconds=20, what="three beats", every=0.01)
        assert not coming.done()
        await call(made, "new --name web")
        assert (await coming)["events"][0]["event"] == "new"


async def test_a_client_that_leaves_ends_it(api: Served) -> None:
    async with client(api) as made:
        async with stream(made, "events --follow"):
            await listening(api, 1)
        await listening(api, 0)


async def test_a_token_that_is_removed_ends_it_and_that_is_said(api: Served) -> None:
    async with client(api) as made, stream(made, "events -n 0 --follow") as one:
        assert await one.next() == {"events": []}
        await listening(api, 1)
        await call(made, "ssh-key remove test")
        last = await one.next()
        while "events" in last:  # the removal itself may be told first
            last = await one.next()
        assert last == {"error": "the key or token of this call was removed"}
        with pytest.raises(AssertionError, match="it ended"):
            await one.next()
        await listening(api, 0)


@pytest.mark.parametrize("accept", [NDJSON, "text/html, */*;q=0.1", "application/*"])
async def test_who_takes_lines_gets_them(api: Served, accept: str) -> None:
    async with client(api) as made, stream(made, "events -f", accept=accept) as one:
        assert await one.next() == {"events": []}


async def test_who_does_not_is_told_so(api: Served) -> None:
    async with client(api) as made:
        answer = await made.post(
            "/exec", content=b"events --follow", headers={"accept": "application/json"}
        )
        assert answer.status_code == 422
        assert NDJSON in answer.json()["hint"]
        await listening(api, 0)


async def test_an_idempotency_key_is_of_no_account(api: Served) -> None:
    async with client(api) as made:
        for _ in range(2):
            async with stream(made, "events -f", idempotency_key="k") as one:
                assert await one.next() == {"events": []}
                assert "idempotency-replayed" not in one.response.headers


async def test_too_many_are_refused_by_account(api: Served) -> None:
    audience = api.control.language._audience
    audience._listening[api.control.ann.account.id] = 50
    async with client(api) as made, stream(made, "events -f") as one:
        assert await one.next() == {"events": []}
        assert "50 commands of an account that go on" in (await one.next())["error"]


async def test_a_token_ends_with_its_time(tmp_path: Path) -> None:
    """Known from when it was let in: a clock that is set later changes nothing."""
    engine = FakeEngine(tmp_path / "engine.sock")
    async with (
        engine.serving(),
        control(tmp_path / "control", engine) as cloud,
        door(cloud, tmp_path) as api,
    ):
        ends = cloud.clock.time + 90
        _, token = await cloud.cloud.tokens.new(cloud.ann.account, "short", expires_at=ends)
        caller = await cloud.cloud.tokens.caller_for_token(token, "")
        assert caller is not None
        assert caller.good_for_s == 90
        endless = await cloud.cloud.tokens.caller_for_token(api.token, "")
        assert endless is not None
        assert endless.good_for_s is None


async def test_a_call_ends_with_the_time_of_its_token() -> None:
    short = Caller(account=ANN.account, door=Door.EXEC, token="api:2", good_for_s=0.01)
    running = Running()
    with running.by(short)() as end, running.by(ANN)() as other:
        with pytest.raises(Denied, match="has ended"):
            await ended(end)
        assert not other.is_set()


async def test_what_was_removed_while_the_line_was_on_its_way_lets_nothing_in() -> None:
    running = Running()
    before = running.mark
    running.end("api:1")
    running.end("api:2")
    with running.by(ANN, since=before)() as end, running.by(ANN)() as again:
        with pytest.raises(Denied, match="was removed"):
            await ended(end)
        assert not again.is_set()  # it was looked up after the removal, and is there


async def test_a_removal_before_the_body_has_come(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with (
        engine.serving(),
        control(tmp_path / "control", engine) as cloud,
        door(cloud, tmp_path) as api,
    ):

        async def body() -> AsyncIterator[bytes]:
            yield b"events "
            assert await cloud.cloud.tokens.remove(cloud.ann.account, "test")
            yield b"--follow"

        bearer = {"authorization": f"Bearer {api.token}"}
        answer = await api.client.post("/exec", content=body(), headers=bearer)
    assert answer.json() == {"error": "the key or token of this call was removed"}


async def test_a_client_that_does_not_read_holds_up_the_next_line() -> None:
    made = 0

    async def objects() -> AsyncGenerator[Mapping[str, Any], None]:
        nonlocal made
        while True:
            made += 1
            yield {"number": made}

    taken, room, gone = asyncio.Event(), asyncio.Semaphore(3), asyncio.Event()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            if room.locked():
                taken.set()
            await room.acquire()

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async with TaskGroup() as group:
        answer = Lines(objects(), Running().by(ANN))
        task = group.create_task(answer({"type": "http"}, receive, send))
        async with asyncio.timeout(10):
            await taken.wait()
        assert made == 4
        gone.set()
        async with asyncio.timeout(10):
            await task
