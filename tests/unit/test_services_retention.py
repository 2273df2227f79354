"""The history of VMs as control keeps it: what is due, what is thinned, what gives way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from atoll.base.aio import TaskGroup, poll
from atoll.base.errors import Exhausted, Internal, Invalid, NotFound, Unavailable
from atoll.domain.operation import OpKind
from atoll.domain.retention import DEFAULT
from atoll.domain.snapshot import Reason, Snapshot
from atoll.rpc.messages import GIB, DropSnapshot, Message, TakeSnapshot, VmState
from atoll.services.facts import Facts
from atoll.services.retention import RELIEVED_AT_ONCE, THINNED_AT_ONCE
from atoll.services.snapshots import PER_VM
from atoll.store import operations, schema, snapshots, vms
from fakes.engine import FakeEngine
from framework.cloud import Control, control

MINUTE, HOUR, DAY = 60, 3600, 86_400


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Control]:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving(), control(tmp_path / "control", engine) as made:
        await made.run("new --name web")
        await made.cloud.reconciler.reconcile()
        engine.asked.clear()
        yield made


async def vm_of(cloud: Control, name: str = "web") -> str:
    async with cloud.store.read() as tx:
        found = await vms.named(tx, name)
    assert found is not None
    return found.id


async def after(cloud: Control, seconds: float) -> None:
    """The clock is so much later, and what is due is done."""
    cloud.clock.time += seconds
    await cloud.cloud.retention.sweep()


async def points(cloud: Control, name: str = "web") -> list[Snapshot]:
    async with cloud.store.read() as tx:
        held = await snapshots.of_vms(tx, [await vm_of(cloud, name)])
    return [one for one in held if one.reason is Reason.HISTORY]


async def put(cloud: Control, name: str, *ages: float, reason: Reason = Reason.HISTORY) -> None:
    """Snapshots of these ages, as if they had been taken; the engine has them."""
    vm = await vm_of(cloud, name)
    async with cloud.store.begin() as tx:
        for age in ages:
            number = len(cloud.engine.snapshots.setdefault(vm, {}))
            one = Snapshot(
                id=f"snap-{vm[-4:]}{number:08d}", vm=vm, name=f"{reason.value}-{number}", reason=reason,
                is_clean=True, has_memory=False, created_at=cloud.clock() - age,
            )  # fmt: skip
            cloud.engine.snapshots[vm][one.id] = ""
            await snapshots.add(tx, one)


def asked(cloud: Control, kind: type[TakeSnapshot | DropSnapshot]) -> list[Any]:
    return [one for one in cloud.engine.asked if isinstance(one, kind)]


def stop(cloud: Control, vm: str) -> None:
    """It is off, as the engine has it and control has heard."""
    cloud.engine._put(vm, state=VmState.STOPPED, address=None, pid=None)
    cloud.cloud.facts.observe(cloud.engine.vms[vm])


# -- taking


async def test_one_is_taken_when_it_is_due(cloud: Control) -> None:
    await after(cloud, 15 * MINUTE - 1)
    assert cloud.engine.asked[1:] == []  # beyond how full the pool is
    await after(cloud, 1)
    await after(cloud, 0)
    (one,) = await points(cloud)
    assert (one.name, one.created_at, one.is_clean) == ("20270115-081500", cloud.clock(), True)
    (request,) = asked(cloud, TakeSnapshot)
    assert request.unless_unchanged
    (listed,) = (await cloud.data("snap ls web"))["snapshots"]
    assert (listed["snapshot"], listed["reason"]) == (one.name, "history")
    await after(cloud, 14 * MINUTE)
    assert len(await points(cloud)) == 1
    await after(cloud, MINUTE)
    assert len(await points(cloud)) == 2


async def test_a_name_that_is_taken(cloud: Control) -> None:
    cloud.clock.time += 15 * MINUTE
    await cloud.run("snap web")
    await after(cloud, 0)
    assert [one.name for one in await points(cloud)] == ["20270115-081500-2"]


async def test_what_did_not_change_is_asked_for_once_in_that_time(cloud: Control) -> None:
    vm = await vm_of(cloud)
    stop(cloud, vm)
    for _ in range(46):
        await after(cloud, MINUTE)
    assert len(await points(cloud)) == 1
    assert len(asked(cloud, TakeSnapshot)) == 3
    assert len(cloud.engine.snapshots[vm]) == 1
    await cloud.run("resume web")
    await after(cloud, 15 * MINUTE)
    assert len(await points(cloud)) == 2


async def test_a_vm_in_the_trash_or_between_two_states_has_no_turn(cloud: Control) -> None:
    await cloud.run("new --name db")
    await cloud.run("rm db")
    vm = await vm_of(cloud)
    cloud.cloud.facts.observe(cloud.engine.vms[vm].model_copy(update={"state": VmState.STARTING}))
    await after(cloud, HOUR)
    assert asked(cloud, TakeSnapshot) == []


async def test_without_an_engine_nothing_is_tried(cloud: Control) -> None:
    cloud.cloud.facts.set_connected(False)
    await after(cloud, HOUR)
    assert cloud.engine.asked == []


async def test_at_the_limit_none_is_taken(cloud: Control) -> None:
    await put(cloud, "web", *([0] * PER_VM), reason=Reason.TAKEN)
    await after(cloud, HOUR)
    assert asked(cloud, TakeSnapshot) == []
    assert "is the limit" in (await cloud.data("snap history web"))["problem"]


async def test_a_clock_that_is_set_back_stops_nothing(cloud: Control) -> None:
    await after(cloud, 400 * DAY)
    cloud.engine.refuse[TakeSnapshot].append(Internal("no"))
    await after(cloud, HOUR)
    ahead = await points(cloud)
    await after(cloud, -399 * DAY)
    assert len(await points(cloud)) == len(ahead) + 1
    assert set(ahead) <= set(await points(cloud))


# -- thinning


async def test_what_is_old_goes_and_what_somebody_took_stays(cloud: Control) -> None:
    await cloud.run("snap web mine")
    await cloud.run("rollback web mine")
    for _ in range(26 * 4):
        await after(cloud, 15 * MINUTE)
    held = await points(cloud)
    assert len(held) <= sum(rule.points for rule in DEFAULT)
    ages = [cloud.clock() - one.created_at for one in held]
    assert sum(age <= 2 * HOUR for age in ages) == 9
    assert 30 <= len(ages) <= 36
    assert max(ages) > DAY
    everything = [one["reason"] for one in (await cloud.data("snap ls web"))["snapshots"]]
    assert everything.count("taken") == everything.count("rollback") == 1
    assert len(cloud.engine.snapshots[await vm_of(cloud)]) == len(everything)


async def test_a_clock_that_jumps_ahead_costs_few(cloud: Control) -> None:
    await put(cloud, "web", *range(0, HOUR, 5 * MINUTE))
    await after(cloud, 3650 * DAY)
    assert len(asked(cloud, DropSnapshot)) == THINNED_AT_ONCE
    await after(cloud, -3650 * DAY)
    assert len(await points(cloud)) == 12 + 1 - THINNED_AT_ONCE


async def test_a_policy_of_its_own(cloud: Control) -> None:
    await cloud.run("snap history web 5m:15m")
    for _ in range(12):
        await after(cloud, 5 * MINUTE)
    assert 3 <= len(await points(cloud)) <= 4
    await cloud.run("snap history web off")
    held = await points(cloud)
    await after(cloud, 400 * DAY)
    assert await points(cloud) == held, "nobody asked for their end"


async def test_another_policy_holds_at_once(cloud: Control) -> None:
    await cloud.run("snap history web 30d:300d")
    stop(cloud, await vm_of(cloud))
    await after(cloud, 30 * DAY)
    await cloud.run("snap history web 15m:2h")
    await after(cloud, 15 * MINUTE)
    assert len(asked(cloud, TakeSnapshot)) == 2


# -- giving way


async def test_a_vm_that_somebody_works_on_has_its_turn_later(cloud: Control) -> None:
    vm = await vm_of(cloud)
    async with cloud.cloud._locks.hold(vm, label="web", doing="resize"):
        await after(cloud, HOUR)
        assert asked(cloud, TakeSnapshot) == []
    await after(cloud, MINUTE)
    assert len(await points(cloud)) == 1


async def test_a_command_waits_until_a_snapshot_of_the_history_is_taken(cloud: Control) -> None:
    vm = await vm_of(cloud)
    cloud.cloud._locks._patience_s = 0.01
    gate = cloud.engine.hold[TakeSnapshot] = asyncio.Event()

    async def is_taking() -> bool | None:
        return cloud.cloud._locks.doing(vm) == "snap history" or None

    async with TaskGroup() as group:
        group.create_task(after(cloud, HOUR))
        await poll(is_taking, seconds=5, what="a snapshot that takes long", every=0.005)
        command = group.create_task(cloud.run("pause web"))
        await asyncio.sleep(0.1)
        assert not command.done()
        gate.set()
    assert (cloud.engine.vms[vm].state, len(await points(cloud))) == (VmState.PAUSED, 1)


async def test_one_that_fails_holds_up_no_other_and_is_tried_less_often(cloud: Control) -> None:
    await cloud.run("new --name db")
    await cloud.cloud.reconciler.reconcile()
    cloud.engine.refuse[TakeSnapshot] += [Exhausted("no room for it")] * 3
    await put(cloud, "web", HOUR)
    await put(cloud, "db", HOUR)
    await after(cloud, 0)
    for _ in range(60):
        await after(cloud, MINUTE)
    tried = asked(cloud, TakeSnapshot)
    first = tried[0].vm
    assert sum(one.vm == first for one in tried[:4]) == 2
    assert len(await points(cloud, "web")) > 1
    assert len(await points(cloud, "db")) > 1
    async with cloud.store.read() as tx:
        assert await operations.unfinished(tx) == ()


async def test_why_none_is_taken_is_said(cloud: Control) -> None:
    cloud.engine.refuse[TakeSnapshot].append(Exhausted("no room for it"))
    await after(cloud, HOUR)
    reply = await cloud.run("snap history web")
    assert reply.data["problem"] == "no room for it"
    assert reply.text.splitlines()[-1] == "none is taken now: no room for it"
    assert reply.data["next_at"] == "2027-01-15T09:02:00Z"
    await after(cloud, 2 * MINUTE)
    assert "problem" not in (await cloud.data("snap history web"))


# -- a pool that fills


async def test_the_oldest_of_all_vms_go_until_there_is_room(cloud: Control) -> None:
    await cloud.run("new --name db", cloud.bob)
    await put(cloud, "web", 9 * DAY, 5 * HOUR, 3 * HOUR)
    await put(cloud, "db", 8 * DAY, 7 * DAY, 6 * HOUR)
    await put(cloud, "web", 20 * DAY, reason=Reason.TAKEN)
    await put(cloud, "web", 19 * DAY, reason=Reason.ROLLBACK)
    cloud.engine.pool_free_bytes, cloud.engine.drop_frees = 6 * GIB, GIB
    await after(cloud, 0)
    assert cloud.engine.pool_free_bytes == 10 * GIB
    gone = [one.snapshot[-8:] for one in asked(cloud, DropSnapshot)][:4]
    assert gone == ["00000000", "00000000", "00000001", "00000002"]
    assert await points(cloud, "db") == []
    for who, name in ((cloud.ann, "web"), (cloud.bob, "db")):
        told = [
            event
            for event in (await cloud.data("events", who))["events"]
            if event["event"] == "thinned"
        ]
        assert [one["vm_name"] for one in told] == [name], "once for each VM"
        assert told[0]["problem"] == "less than 10% of the pool is free: its oldest history goes"
    reasons = [one["reason"] for one in (await cloud.data("snap ls web"))["snapshots"]]
    assert {"taken", "rollback"} <= set(reasons)


async def test_a_pool_that_stays_full_takes_no_more_and_loses_some_at_a_time(
    cloud: Control,
) -> None:
    await put(cloud, "web", *range(RELIEVED_AT_ONCE + 5))
    cloud.engine.pool_free_bytes = 9 * GIB
    await after(cloud, HOUR)
    assert len(await points(cloud)) == 2  # the other three for their age
    assert asked(cloud, TakeSnapshot) == []
    assert (await cloud.data("snap history web"))["problem"] == "less than 10% of the pool is free"
    cloud.engine.pool_free_bytes = 10 * GIB
    await after(cloud, HOUR)
    assert len(await points(cloud)) == 3
    assert "problem" not in await cloud.data("snap history web")


async def test_a_vm_that_is_busy_or_refuses_is_passed_over_when_room_is_made(
    cloud: Control,
) -> None:
    for name in ("db", "dev"):
        await cloud.run(f"new --name {name}")
    await put(cloud, "web", 9 * DAY)
    await put(cloud, "db", 8 * DAY)
    await put(cloud, "dev", 7 * DAY)
    cloud.engine.pool_free_bytes, cloud.engine.drop_frees = 9 * GIB, GIB
    cloud.engine.refuse[DropSnapshot].append(Internal("no"))
    async with cloud.cloud._locks.hold(await vm_of(cloud), label="web", doing="resize"):
        await after(cloud, 0)
    assert [len(await points(cloud, name)) for name in ("web", "db")] == [1, 2]
    kept = {one.id for one in await points(cloud, "dev")}
    assert not kept & {one.snapshot for one in asked(cloud, DropSnapshot)}
    assert cloud.engine.pool_free_bytes == 10 * GIB


# -- cut short


@pytest.mark.parametrize("is_changed", [True, False])
async def test_what_was_cut_short_is_ended_by_the_journal(cloud: Control, is_changed: bool) -> None:
    vm = await vm_of(cloud)
    if not is_changed:
        stop(cloud, vm)
        await after(cloud, 15 * MINUTE)
    before = len(await points(cloud))
    cloud.engine.refuse[TakeSnapshot] += [Unavailable("away")] * 5
    await after(cloud, 15 * MINUTE)
    async with cloud.store.read() as tx:
        (op,) = await operations.unfinished(tx)
    assert (op.kind, op.payload["reason"]) == (OpKind.SNAPSHOT, "history")
    await after(cloud, MINUTE)
    await cloud.cloud.journal.resume()
    assert len(await points(cloud)) == before + is_changed
    assert len(cloud.engine.snapshots.get(vm, ())) == before + is_changed


async def test_the_journal_does_not_grow_by_it(cloud: Control) -> None:
    for _ in range(48):
        await after(cloud, HOUR)
    async with cloud.store.read() as tx:
        rows = (await tx.execute(select(schema.operations.c.kind))).scalars().all()
    assert rows.count("snapshot") in (24, 25)
    assert rows.count("create") == 1


class Leaving(FakeEngine):
    """Away from the first snapshot on, as control then learns."""

    facts: Facts

    async def handle(self, request: Message) -> Message:
        if isinstance(request, TakeSnapshot):
            self.facts.set_connected(False)
            raise Unavailable("away")
        return await super().handle(request)


async def test_an_engine_that_leaves_is_asked_for_no_more(tmp_path: Path) -> None:
    engine = Leaving(tmp_path / "engine.sock")
    async with engine.serving(), control(tmp_path / "control", engine) as cloud:
        engine.facts = cloud.cloud.facts
        for name in ("web", "db", "dev"):
            await cloud.run(f"new --name {name}")
        await cloud.cloud.reconciler.reconcile()
        await after(cloud, HOUR)
        async with cloud.store.read() as tx:
            assert len(await operations.unfinished(tx)) == 1


# -- the verb


async def test_the_verb_shows_and_sets(cloud: Control) -> None:
    reply = await cloud.run("snap history web")
    assert reply.data == {
        "vm_name": "web", "policy": "15m:2h,1h:1d,1d:7d,7d:30d", "points": 0, "oldest_at": None,
        "next_at": "2027-01-15T08:15:00Z",
    }  # fmt: skip
    assert reply.text == (
        "web: 15m:2h,1h:1d,1d:7d,7d:30d\n0 snapshots; next at 2027-01-15T08:15:00Z"
    )
    await after(cloud, HOUR)
    reply = await cloud.run("snap history web 1d:1w,1h:24h")
    assert reply.text == (
        "web: 1h:1d,1d:7d\n"
        "1 snapshot, the oldest of 2027-01-15T09:00:00Z; next at 2027-01-15T10:00:00Z"
    )
    await cloud.run("cp web copy")
    assert (await cloud.data("snap history copy"))["policy"] == "1h:1d,1d:7d"
    off = await cloud.run("snap history web off")
    assert off.text.splitlines()[1].endswith("; none is taken")
    assert (off.data["policy"], off.data["next_at"]) == ("off", None)
    back = await cloud.data("snap history web default")
    assert back["policy"] == "15m:2h,1h:1d,1d:7d,7d:30d"


async def test_what_it_refuses(cloud: Control) -> None:
    await cloud.fails("snap history web 1m:1h", Invalid)
    await cloud.fails("snap history web ''", Invalid)
    for line in ("snap history nope", "snap history nope off"):
        await cloud.fails(line, NotFound)
    await cloud.fails("snap history web off", NotFound, cloud.bob)
    assert (await cloud.data("snap history web"))["policy"] != "off"


async def test_a_rollback_without_a_name_is_to_what_somebody_took_or_else_of_the_history(
    cloud: Control,
) -> None:
    await after(cloud, HOUR)
    (one,) = await points(cloud)
    assert (await cloud.data("rollback web"))["snapshot"] == one.name
    assert (await cloud.data("undo"))["undone"] == "rollback"
    await cloud.run("snap web mine")
    await after(cloud, HOUR)
    assert len(await points(cloud)) == 2
    assert (await cloud.data("rollback web"))["snapshot"] == "mine"
