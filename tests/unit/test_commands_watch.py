"""ls --watch: a new list when there is one, and only then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from atoll.base.aio import TaskGroup, deadline, poll
from atoll.base.errors import Exhausted, NotFound
from atoll.commands import going_on
from atoll.commands.reply import Piece
from atoll.domain.account import Caller, Scope
from atoll.services import changes
from atoll.services.changes import Changes
from fakes.engine import FakeEngine
from framework.cloud import Control, control


@pytest.fixture(name="cloud")
async def _cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Control]:
    monkeypatch.setattr(changes, "LOOK_S", 0.0)
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving(), control(tmp_path / "control", engine, loops=True) as made:
        yield made


@asynccontextmanager
async def watching(
    cloud: Control, line: str, caller: Caller | None = None
) -> AsyncIterator[Callable[[], Awaitable[Piece]]]:
    """What the line goes on with, a piece per call."""
    reply = await cloud.run(line, caller)
    assert reply.more is not None
    async with aclosing(reply.more) as more:

        async def piece() -> Piece:
            async with deadline(10, "the next list"):
                return await anext(more)

        yield piece


def states(piece: Piece) -> dict[str, str]:
    return {vm["vm_name"]: vm["status"] for vm in piece.data["vms"]}


async def test_a_list_as_ls_prints_it_for_every_change(cloud: Control) -> None:
    first = await cloud.run("ls --watch")
    assert (first.text, first.data, first.is_redrawn) == ("No VMs. Try: new", {"vms": []}, True)
    async with watching(cloud, "ls -w") as piece:
        for line in ("new --name web", "tag web a", "comment web x", "pause web", "rename web db"):
            await cloud.run(line)
            shown = await piece()
            now = await cloud.run("ls")
            while (shown.data, shown.text) != (now.data, now.text):  # on its way
                shown = await piece()
        await cloud.run("rm db")
        assert (await piece()).data == {"vms": []}


async def test_what_no_command_did(cloud: Control) -> None:
    await cloud.run("new --name web")
    async with watching(cloud, "ls -l --watch") as piece:
        (vm,) = cloud.engine.vms
        cloud.engine.die(vm, problem="qemu ended with signal 9")
        while (shown := await piece()).data["vms"][0]["status"] != "stopped":
            pass
        assert "signal 9" in shown.text


async def test_what_is_not_listed_makes_no_list(cloud: Control) -> None:
    await cloud.run("new --name web")
    async with watching(cloud, "ls 'web*' --watch") as piece:
        await cloud.run("new --name db")
        await cloud.run("ssh-key generate-api-key")
        await cloud.run("new --name hers", cloud.bob)
        await cloud.run("share port db 80")  # not among the columns without -l
        await cloud.run("new --name web-two")
        assert states(await piece()).keys() == {"web", "web-two"}


async def test_others_lists_are_not_seen(cloud: Control) -> None:
    await cloud.run("new --name web --tag ci")
    await cloud.run("new --name db")
    limited = replace(cloud.ann, scope=Scope(tag="ci"))
    async with watching(cloud, "ls --watch", limited) as piece:
        await cloud.run("pause db")
        await cloud.run("tag db ci")
        assert states(await piece()).keys() == {"db", "web"}
        await cloud.run("tag -d web ci")
        assert states(await piece()).keys() == {"db"}


async def test_a_slow_reader_gets_the_latest_list(cloud: Control) -> None:
    async with watching(cloud, "ls --watch") as piece:
        await cloud.run("new --name web")
        await piece()
        for line in ("pause web", "resume web", "pause web", "new --name db"):
            await cloud.run(line)
        assert states(await piece()) == {"web": "paused", "db": "running"}


async def test_a_name_that_is_not_there_is_not_waited_for(cloud: Control) -> None:
    reply = await cloud.run("ls nope --watch")
    assert (reply.exit, reply.more) == (NotFound.exit, None)
    assert (await cloud.run("ls 'no*' --watch")).more is not None


async def test_a_line_of_json_is_not_redrawn(cloud: Control) -> None:
    reply = await cloud.run("ls --watch --json")
    assert (reply.text, reply.is_redrawn) == ('{"vms": []}', False)
    async with watching(cloud, "ls --watch --json") as piece:
        await cloud.run("new --name web")
        shown = await piece()
    assert json.loads(shown.text) == shown.data
    assert "\n" not in shown.text


async def test_so_many_at_once_by_account(cloud: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(going_on, "MOST", 1)
    audience = cloud.language._audience
    async with watching(cloud, "ls --watch") as first:
        await cloud.run("new --name web")
        await first()
        async with watching(cloud, "ls --watch") as second:
            with pytest.raises(Exhausted, match="1 commands of an account that go on"):
                await second()
        async with watching(cloud, "ls --watch", cloud.bob) as hers:
            await cloud.run("new --name hers", cloud.bob)
            await hers()
            assert len(audience) == 2
    assert len(audience) == 0
    async with watching(cloud, "ls --watch") as again:
        await cloud.run("pause web")
        await again()


async def test_looks_are_apart_and_miss_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "LOOK_S", 0.05)
    whole = Changes()
    counted = Changes(also=whole)
    seen: list[int] = []

    async def look() -> None:
        async with aclosing(counted.looks(0)) as looks:
            async for _ in looks:
                seen.append(counted.version)

    async def is_last() -> bool | None:
        return (bool(seen) and seen[-1] == 100) or None

    async with TaskGroup() as group:
        task = group.create_task(look())
        for _ in range(100):
            counted.bump()
            await asyncio.sleep(0)
        await poll(is_last, seconds=10, what="the last look", every=0.01)
        task.cancel()
    assert len(seen) < 10
    assert whole.version == counted.version
