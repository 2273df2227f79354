"""events: what happened, by whom, and to whom it is told; also what no command did."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atoll.base.aio import TaskGroup, deadline, poll
from atoll.base.errors import Denied, Invalid, NotFound
from atoll.commands.reply import Piece
from atoll.domain.account import Caller, Door, Scope
from atoll.rpc.messages import Message, Pause, VmState
from atoll.services import changes
from atoll.store import vms
from fakes.engine import FakeEngine
from framework.cloud import Control, control

CI = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHmJGHFXyGmpRGkQ4Lf3vUQnZ1a3kPv1rm0t8xrJmSDD ci"


@pytest.fixture(name="engine")
async def _engine(tmp_path: Path) -> AsyncIterator[FakeEngine]:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving():
        yield engine


@pytest.fixture(name="cloud")
async def _cloud(tmp_path: Path, engine: FakeEngine) -> AsyncIterator[Control]:
    async with control(tmp_path / "control", engine, loops=True) as made:
        yield made


async def told(cloud: Control, line: str = "events", caller: Caller | None = None) -> list[str]:
    """`event vm_name` of what a line shows."""
    entries = (await cloud.data(line, caller))["events"]
    return [f"{entry['event']} {entry['vm_name'] or '-'}" for entry in entries]


def only(engine: FakeEngine) -> str:
    (vm,) = engine.vms
    return vm


# --- who, when, where


async def test_says_what_when_by_whom_and_through_which_door(cloud: Control) -> None:
    await cloud.run("new --name web")
    await cloud.run("ssh-key generate-api-key --label bot")
    cloud.clock.time += 60
    token = (await cloud.cloud.tokens.of(cloud.ann.account))[0].fingerprint
    bot = Caller(account=cloud.ann.account, door=Door.EXEC, token=token)
    await cloud.run("comment web hello", bot)
    reply = await cloud.run("events")
    assert reply.text.splitlines() == [
        "WHEN                  VM   EVENT                     DOOR  BY",
        "2027-01-15T08:00:00Z  web  new                       ssh   laptop",
        "2027-01-15T08:00:00Z       ssh-key generate-api-key  ssh   laptop",
        "2027-01-15T08:01:00Z  web  comment                   exec  bot",
    ]
    made, _, commented = reply.data["events"]
    assert made == {
        "at": "2027-01-15T08:00:00Z",
        "event": "new",
        "vm_name": "web",
        "door": "ssh",
        "by": cloud.ann.credential,
        "by_name": "laptop",
        "source": "192.0.2.1",
    }
    assert (commented["by"], commented["by_name"]) == (token, "bot")
    assert json.loads((await cloud.run("events --json")).text) == reply.data


async def test_a_key_that_is_gone_is_named_by_its_fingerprint(cloud: Control) -> None:
    gone = replace(cloud.ann, key_fingerprint="SHA256:gone")
    await cloud.run("new --name web", gone)
    (entry,) = (await cloud.data("events"))["events"]
    assert "by_name" not in entry
    assert "SHA256:gone" in (await cloud.run("events")).text


async def test_newest_last_and_no_more_than_asked_for(cloud: Control) -> None:
    assert (await cloud.run("events")).text == "No events"
    await cloud.run("new --name web")
    for number in range(22):
        await cloud.run(f"comment web {number}")
    await cloud.run("pause web")
    assert (await told(cloud))[-2:] == ["comment web", "pause web"]
    assert len(await told(cloud)) == 20
    assert await told(cloud, "events -n 1") == ["pause web"]
    assert await told(cloud, "events web --last=0") == []
    assert (await told(cloud, "events -n 1000"))[0] == "new web"
    for bad in ("1001", "-1", "x", "1e3"):
        with pytest.raises(Invalid):
            await cloud.run(f"events --last={bad}")


# --- which


async def test_of_one_vm_whatever_it_was_called(cloud: Control) -> None:
    for line in ("new --name web", "new --name db", "rename web shop", "tag shop a", "rm shop"):
        await cloud.run(line)
    assert await told(cloud, "events web") == ["new web"]
    assert await told(cloud, "events shop") == ["new web", "rename shop", "tag shop", "rm shop"]
    await cloud.run("undo")
    await cloud.run("new --name web")
    assert await told(cloud, "events '*[wp]*'") == [
        "new web", "rename shop", "tag shop", "rm shop", "undo shop", "new web",
    ]  # fmt: skip
    assert await told(cloud, "events 'x*'") == []
    with pytest.raises(NotFound, match="Did you mean web"):
        await cloud.run("events webb")


async def test_of_a_vm_that_is_gone_for_good(cloud: Control) -> None:
    await cloud.run("new --name web")
    await cloud.run("rm web")
    cloud.clock.time += 86400 * 2
    await cloud.cloud.trash.sweep()
    async with cloud.store.read() as tx:
        assert await vms.everywhere(tx) == ()
    assert await told(cloud, "events web") == ["new web", "rm web", "purged web"]


async def test_others_events_are_nobodys_business(cloud: Control) -> None:
    await cloud.run("new --name hers", cloud.bob)
    await cloud.run("new --name web")
    assert await told(cloud) == ["new web"]
    with pytest.raises(NotFound):
        await cloud.run("events hers")
    assert await told(cloud, "events 'h*'") == []


@pytest.mark.parametrize("limit", ["--vm web", "--tag ci"])
async def test_a_limited_key_sees_that_very_vm(cloud: Control, limit: str) -> None:
    await cloud.run("new --name web")
    await cloud.run("rm web")  # another VM of the same name
    for line in ("new --name web --tag ci", "new --name db", f"ssh-key add {limit} '{CI}'"):
        await cloud.run(line)
    caller = await cloud.cloud.caller_for_key(CI, source="192.0.2.9")
    assert caller is not None
    for line in ("events", "events web", "events '*'"):
        assert await told(cloud, line, caller) == ["new web"]
    with pytest.raises(NotFound):
        await cloud.run("events db", caller)
    (entry,) = (await cloud.data("events", caller))["events"]
    assert (entry["by"], "source" in entry, "by_name" in entry) == (
        cloud.ann.credential, False, False,
    )  # fmt: skip


async def test_a_token_says_which_vms_by_name(cloud: Control) -> None:
    await cloud.run("new --name web")
    token = replace(cloud.ann, scope=Scope(cmds=frozenset(["events web"])))
    assert await told(cloud, "events web", token) == ["new web"]
    for line in ("events", "events '*'", "events db"):
        with pytest.raises(Denied):
            await cloud.run(line, token)


async def test_a_removal_is_of_the_vm_that_was_removed(cloud: Control) -> None:
    """Though by the time it is written down another one has the name."""
    await cloud.run("new --name web")
    async with cloud.store.read() as tx:
        first = await vms.named(tx, "web")
    assert first is not None
    await cloud.cloud.trash.remove(cloud.ann, "web", act="act-1")
    await cloud.run("new --name web")
    await cloud.cloud.events.record(cloud.ann, "rm", act="act-1", vm_name="web")
    happened, _ = await cloud.cloud.events.latest(cloud.ann.account, limit=1)
    assert happened[0].vm_id == first.id


# --- what no command did


async def shows(cloud: Control, *expected: str) -> list[dict[str, Any]]:
    """Wait until these are the last events; returns them."""
    count = len(expected)

    async def check() -> list[dict[str, Any]] | None:
        if await told(cloud, f"events -n {count}") != list(expected):
            return None
        found: list[dict[str, Any]] = (await cloud.data(f"events -n {count}"))["events"]
        return found

    return await poll(check, seconds=10, what=str(expected), every=0.01)


async def test_a_crash_is_told_once_with_its_problem(cloud: Control, engine: FakeEngine) -> None:
    await cloud.run("new --name web")
    await cloud.cloud.reconciler.reconcile()
    engine.die(only(engine), problem="qemu ended with signal 9")
    (crash,) = (await shows(cloud, "new web", "crashed web"))[1:]
    assert crash == {
        "at": crash["at"],
        "event": "crashed",
        "vm_name": "web",
        "problem": "qemu ended with signal 9",
    }
    engine.die(only(engine))
    await cloud.run("comment web x")
    engine.die(only(engine))
    await cloud.cloud.reconciler.reconcile()
    await cloud.run("resume web")
    engine.die(only(engine))
    await shows(cloud, "crashed web", "comment web", "resume web", "crashed web")


async def test_a_crash_while_something_is_done_is_told_afterwards(
    cloud: Control, engine: FakeEngine
) -> None:
    await cloud.run("new --name web")
    await cloud.cloud.reconciler.reconcile()
    engine.hold[Pause] = asyncio.Event()

    async def is_seen() -> bool | None:
        facts = cloud.cloud.facts.get(only(engine))
        return (facts is not None and facts.state is VmState.STOPPED) or None

    async with TaskGroup() as group:
        task = group.create_task(cloud.fails("pause web"))
        await poll(lambda: asked(engine, Pause), seconds=10, what="the pause", every=0.01)
        engine.die(only(engine))
        await cloud.cloud.reconciler.reconcile()
        await poll(is_seen, seconds=10, what="the crash", every=0.01)
        assert await told(cloud) == ["new web"]
        engine.hold.pop(Pause).set()
        assert "is stopped" in await task
    await cloud.cloud.reconciler.reconcile()
    assert await told(cloud) == ["new web", "crashed web"]


async def asked(engine: FakeEngine, kind: type[Message]) -> bool | None:
    return any(isinstance(request, kind) for request in engine.asked) or None


async def test_a_guest_that_powers_off(cloud: Control, engine: FakeEngine) -> None:
    await cloud.run("new --name web")
    await cloud.cloud.reconciler.reconcile()
    engine._put(only(engine), state=VmState.STOPPED, address=None, pid=None)
    await shows(cloud, "new web", "powered-off web")
    for line in ("pause", "restart"):
        await cloud.run("resume web")
        await cloud.run(f"{line} web")
    assert (await told(cloud))[-5:] == [
        "powered-off web", "resume web", "pause web", "resume web", "restart web",
    ]  # fmt: skip


async def test_a_vm_that_is_lost_is_told_once(
    tmp_path: Path, cloud: Control, engine: FakeEngine
) -> None:
    await cloud.run("new --name web")
    engine.vms.clear()
    for _ in range(2):
        await cloud.cloud.reconciler.reconcile()
    await shows(cloud, "new web", "lost web")
    async with control(tmp_path / "control", engine) as again:
        await again.cloud.reconciler.reconcile()
        assert await told(again) == ["new web", "lost web"]


async def test_a_vm_that_was_started_again(tmp_path: Path, engine: FakeEngine) -> None:
    async with control(tmp_path / "c", engine) as cloud:
        await cloud.run("new --name web")
        await cloud.run("new --name off")
        await cloud.run("pause off")
    async with control(tmp_path / "c", engine, loops=True) as cloud:
        assert await told(cloud) == ["new web", "new off", "pause off"]
    (web,) = (vm.vm for vm in engine.vms.values() if vm.state is VmState.RUNNING)
    engine.die(web, problem="the machine was down")
    async with control(tmp_path / "c", engine, loops=True) as cloud:
        (started,) = (await shows(cloud, "pause off", "started web"))[1:]
        assert started["problem"] == "the machine was down"
        assert await told(cloud, "events web") == ["new web", "started web"]


async def test_every_event_wakes_who_waits(cloud: Control, engine: FakeEngine) -> None:
    await cloud.run("new --name web")
    for line in ("tag web a", "comment web x", "ssh-key generate-api-key"):
        version = cloud.cloud.news.version
        await cloud.run(line)
        assert cloud.cloud.news.version > version, line
    version = cloud.cloud.events.changes.version
    engine.die(only(engine))
    assert await cloud.cloud.events.changes.wait_beyond(version) > version


# --- and what happens from now on


@pytest.fixture(name="quick")
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "LOOK_S", 0.0)


@asynccontextmanager
async def following(
    cloud: Control, line: str, caller: Caller | None = None
) -> AsyncIterator[Callable[[], Awaitable[Piece]]]:
    """What the line goes on with, a piece per call."""
    reply = await cloud.run(line, caller)
    assert reply.more is not None
    async with aclosing(reply.more) as more:

        async def piece() -> Piece:
            async with deadline(10, "the next piece"):
                return await anext(more)

        yield piece


def named(piece: Piece) -> list[str]:
    return [f"{entry['event']} {entry['vm_name'] or '-'}" for entry in piece.data["events"]]


@pytest.mark.usefixtures("quick")
async def test_a_vm_is_followed_through_its_names(cloud: Control) -> None:
    for line in ("new --name web", "new --name db"):
        await cloud.run(line)
    async with following(cloud, "events web -f") as piece:
        for line in ("rename web shop", "tag db a", "tag shop a", "rm shop", "new --name web"):
            await cloud.run(line)
        assert named(await piece()) == [
            "rename shop", "tag shop", "rm shop", "new web",
        ]  # fmt: skip


@pytest.mark.usefixtures("quick")
async def test_a_pattern_takes_in_vms_that_come(cloud: Control) -> None:
    async with following(cloud, "events 'web*' -f") as piece:
        for line in ("new --name db", "new --name web-two", "ssh-key generate-api-key"):
            await cloud.run(line)
        await cloud.run("new --name web-hers", cloud.bob)
        assert named(await piece()) == ["new web-two"]


@pytest.mark.usefixtures("quick")
async def test_a_limited_key_follows_what_it_may_see_when_it_is_read(cloud: Control) -> None:
    for line in ("new --name web --tag ci", "new --name db", f"ssh-key add --tag ci '{CI}'"):
        await cloud.run(line)
    caller = await cloud.cloud.caller_for_key(CI, source="192.0.2.9")
    async with following(cloud, "events -f", caller) as piece:
        for line in ("comment db x", "comment web x", "ssh-key generate-api-key"):
            await cloud.run(line)
        assert named(await piece()) == ["comment web"]
        for line in ("tag -d web ci", "comment web y", "tag db ci"):
            await cloud.run(line)
        assert named(await piece()) == ["tag db"]


@pytest.mark.usefixtures("quick")
async def test_many_come_some_at_a_time_in_order_and_each_once(cloud: Control) -> None:
    async with following(cloud, "events --last=0 -f") as piece:
        for number in range(230):
            await cloud.cloud.events.record(
                cloud.ann, f"x{number}", act="act-1", vm_name="a-longer-name"
            )
        pieces = [await piece() for _ in range(3)]
    assert [len(piece.data["events"]) for piece in pieces] == [100, 100, 30]
    kinds = [entry["event"] for piece in pieces for entry in piece.data["events"]]
    assert kinds == [f"x{number}" for number in range(230)]


@pytest.mark.usefixtures("quick")
async def test_rows_stand_below_their_titles(cloud: Control) -> None:
    reply = await cloud.run("events --follow")
    assert reply.text == "WHEN                  VM        EVENT     DOOR   BY        PROBLEM"
    async with following(cloud, "events --follow") as piece:
        await cloud.run("new --name quite-a-long-name")
        assert (await piece()).text == (
            "2027-01-15T08:00:00Z  quite-a-long-name  new       ssh    laptop"
        )
        await cloud.run("new --name db")
        assert (await piece()).text == (
            "2027-01-15T08:00:00Z  db                 new       ssh    laptop"
        )


@pytest.mark.usefixtures("quick")
async def test_in_json_a_piece_is_a_line(cloud: Control) -> None:
    reply = await cloud.run("events --follow --json")
    assert reply.text == '{"events": []}'
    async with following(cloud, "events --follow --json") as piece:
        await cloud.run("new --name web")
        made = await piece()
    assert "\n" not in made.text
    assert json.loads(made.text) == made.data
