"""Several VMs on one line: names, patterns, results and errors of each, and what one name still gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from atoll.base.aio import TaskGroup, poll
from atoll.base.errors import Conflict, Denied, Invalid, NotFound
from atoll.commands import state
from atoll.commands.several import AT_ONCE, is_anything, matching
from atoll.domain.account import Scope
from atoll.rpc.messages import Pause, Restart, VmState
from atoll.store import events
from fakes.engine import FakeEngine
from framework.cloud import Control, control


@pytest.fixture
async def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Control]:
    monkeypatch.setattr(state, "SAMPLE_S", 0.0)
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving(), control(tmp_path / "control", engine, loops=True) as made:
        for name in ("web", "web-two", "db"):
            await made.run(f"new --name {name}")
        await made.run("new --name web-hers", made.bob)
        yield made


async def states(cloud: Control) -> dict[str, str]:
    return {vm["vm_name"]: vm["status"] for vm in (await cloud.data("ls"))["vms"]}


async def test_pause_restart_and_resume_of_a_pattern(cloud: Control) -> None:
    reply = await cloud.run("pause 'web*'")
    assert reply.text == "web is paused\nweb-two is paused"
    assert reply.data == {
        "vms": [
            {"vm_name": "web", "status": "paused"},
            {"vm_name": "web-two", "status": "paused"},
        ],
        "failed": [],
        "not_found": [],
        "errors": {},
    }
    assert await states(cloud) == {"db": "running", "web": "paused", "web-two": "paused"}
    assert [vm.state for vm in cloud.engine.vms.values()].count(VmState.RUNNING) == 2  # db, hers

    reply = await cloud.run("restart '*'")
    assert reply.exit == Conflict.exit
    assert [done["vm_name"] for done in reply.data["vms"]] == ["db"]
    assert reply.data["failed"] == ["web", "web-two"]
    assert reply.data["not_found"] == []
    assert reply.data["errors"]["web"] == 'VM "web" is paused; a restart would lose its memory'
    assert reply.text.splitlines()[:2] == [
        "db is running",
        'VM "web" is paused; a restart would lose its memory. Try: resume web',
    ]
    reply = await cloud.run("resume we? d*")
    assert [done["vm_name"] for done in reply.data["vms"]] == ["web", "db"]
    assert (await states(cloud))["web-two"] == "paused"


async def test_several_names_each_once(cloud: Control) -> None:
    data = await cloud.data("pause db web db 'w*b'")
    assert [done["vm_name"] for done in data["vms"]] == ["db", "web"]
    reply = await cloud.run("resume db nope web-hers")
    assert reply.exit == NotFound.exit
    assert reply.data["not_found"] == ["nope", "web-hers"]
    assert [done["vm_name"] for done in reply.data["vms"]] == ["db"]


async def test_one_plain_name_answers_as_ever(cloud: Control) -> None:
    assert await cloud.data("pause web") == {"vm_name": "web", "status": "paused"}
    assert await cloud.data("tag web a") == {"vm_name": "web", "tags": ["a"]}
    assert (await cloud.data("stat db"))["name"] == "db"
    await cloud.fails("pause nope", NotFound)
    assert (await cloud.data("pause 'we[b]'"))["vms"] == [{"vm_name": "web", "status": "paused"}]


async def test_stat_and_tag_of_a_pattern(cloud: Control) -> None:
    reply = await cloud.run("stat 'web*'")
    assert [one["name"] for one in reply.data["vms"]] == ["web", "web-two"]
    first, second = reply.text.split("\n\n")
    assert first.splitlines()[0].split() == ["name", "web"]
    assert second.splitlines()[0].split() == ["name", "web-two"]
    reply = await cloud.run("tag 'web*' prod eu")
    assert reply.text == "web: eu, prod\nweb-two: eu, prod"
    assert (await cloud.data("tag -d 'web*' eu"))["vms"][0] == {"vm_name": "web", "tags": ["prod"]}
    assert (await cloud.run("tag '*'")).text == "db: no tags\nweb: prod\nweb-two: prod"


@pytest.mark.parametrize(
    "line", ["rm 'x*'", "pause 'x*'", "resume 'x*' '?'", "restart 'x*'", "stat 'x*'", "tag 'x*' a"]
)
async def test_a_pattern_that_matches_nothing_says_so(cloud: Control, line: str) -> None:
    for words in (line, *([] if line.startswith("stat") else [f"{line} --dry-run"])):
        assert await cloud.fails(words, NotFound) == "no VM matches 'x*'. Try: ls"


async def test_a_pattern_without_a_match_stops_no_other(cloud: Control) -> None:
    reply = await cloud.run("rm web 'x*'")
    assert reply.data == {
        "deleted": ["web"],
        "failed": ["x*"],
        "not_found": ["x*"],
        "errors": {"x*": "no VM matches 'x*'"},
    }
    assert reply.exit == NotFound.exit
    reply = await cloud.run("rm db 'x*' --dry-run")
    assert reply.text == "would remove db\nno VM matches 'x*'. Try: ls"


async def test_rm_of_a_pattern_is_one_undo(cloud: Control) -> None:
    dry = await cloud.run("rm 'web*' --dry-run")
    assert dry.text == "would remove web\nwould remove web-two"
    assert (await cloud.data("rm 'web*'"))["deleted"] == ["web", "web-two"]
    assert [vm["vm_name"] for vm in (await cloud.data("undo"))["restored"]] == ["web", "web-two"]


@pytest.mark.parametrize("pattern", ["*", "**", "?*", "*?"])
async def test_rm_of_everything_must_be_meant(cloud: Control, pattern: str) -> None:
    for line in (f"rm '{pattern}'", f"rm '{pattern}' --dry-run", f"rm db '{pattern}'"):
        assert await cloud.fails(line, Invalid) == (
            f"'{pattern}' means all of your VMs (3)."
            " Try: rm '*' --all, or first: rm '*' --all --dry-run"
        )
    assert len(await states(cloud)) == 3
    dry = await cloud.run("rm '*' --all --dry-run")
    assert dry.text == "would remove db\nwould remove web\nwould remove web-two"
    await cloud.run("rm '*' --all")
    assert await states(cloud) == {}
    assert "web-hers" in await cloud.language.complete(cloud.bob, "rm ")


async def test_what_fails_on_the_way_back_stops_no_other(cloud: Control) -> None:
    await cloud.run("rm db web")
    web = next(vm for vm, it in cloud.engine.identities.items() if it.hostname == "web")
    async with cloud.cloud._locks.hold(web, label="web", doing="purge"):
        cloud.cloud._locks._patience_s = 0.01
        reply = await cloud.run("undo")
    assert reply.exit == Conflict.exit
    assert reply.data["errors"] == {"web": 'VM "web" is busy: `purge` is running'}
    assert [vm["vm_name"] for vm in reply.data["restored"]] == ["db"]
    assert [vm["vm_name"] for vm in (await cloud.data("undo"))["restored"]] == ["web"]


async def test_only_a_few_at_a_time(cloud: Control) -> None:
    for number in range(AT_ONCE + 1):
        await cloud.run(f"new --name more{number}")
    cloud.engine.hold[Pause] = gate = asyncio.Event()

    def asked() -> int:
        return sum(isinstance(request, Pause) for request in cloud.engine.asked)

    async def as_many() -> bool | None:
        return asked() >= AT_ONCE or None

    async with TaskGroup() as group:
        task = group.create_task(cloud.run("pause 'more*'"))
        await poll(as_many, seconds=10, what="the first pauses", every=0.005)
        assert asked() == AT_ONCE
        gate.set()
        assert len((await task).data["vms"]) == AT_ONCE + 1


async def test_every_vm_has_its_event_and_a_failure_has_none(cloud: Control) -> None:
    await cloud.run("pause 'web*'")
    await cloud.run("restart web db")  # web is paused
    for line in ("rm nope", "tag web", "tag '*'", "share port web"):
        await cloud.run(line)
    async with cloud.store.read() as tx:
        found = await events.latest(tx, cloud.ann.account.id, limit=3)
    assert [(event.kind, event.vm) for event in found] == [
        ("restart", "db"),
        ("pause", "web-two"),
        ("pause", "web"),
    ]
    assert found[1].detail["act"] == found[2].detail["act"]


async def test_scopes_hold_for_several(cloud: Control) -> None:
    one = replace(cloud.ann, scope=Scope(cmds=frozenset(["pause web", "pause db", "ls"])))
    await cloud.run("pause web db", one)
    for line in ("pause web web-two", "pause 'web*'", "pause '*'"):
        await cloud.fails(line, Denied, caller=one)
    vm = next(vm for vm, it in cloud.engine.identities.items() if it.hostname == "web")
    limited = replace(cloud.ann, scope=Scope(vm=vm))
    data = await cloud.data("resume '*'", limited)
    assert [done["vm_name"] for done in data["vms"]] == ["web"]
    assert (await cloud.data("rm '*' --all", limited))["deleted"] == ["web"]
    assert not any(isinstance(request, Restart) for request in cloud.engine.asked)


def test_patterns() -> None:
    names = ("web", "web-two", "db")
    assert matching(names, "w*") == ["web", "web-two"]
    assert matching(names, "W*") == []
    assert matching(names, "??") == ["db"]
    assert matching(names, "*" * 65_000) == []
    assert not is_anything("web")
    assert not is_anything("w*")
