"""`snap` and `rollback`: what the engine is asked, what is kept under which name, what a crash leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.base.errors import (
    AtollError,
    Conflict,
    Exhausted,
    Internal,
    Invalid,
    NotFound,
    Unavailable,
)
from atoll.domain.snapshot import Reason, Snapshot, check_name, free_name
from atoll.rpc.messages import (
    Clone,
    DropSnapshot,
    ListSnapshots,
    Message,
    RollBack,
    TakeSnapshot,
    Vm,
    VmState,
)
from atoll.services.snapshots import PER_VM
from atoll.store import operations, snapshots
from fakes.engine import FakeEngine
from framework.cloud import Control, control

AT = "2027-01-15T08:00:00Z"


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Control]:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving(), control(tmp_path / "control", engine) as made:
        await made.run("new --name web")
        engine.asked.clear()
        yield made


def on_engine(cloud: Control, name: str = "web") -> Vm:
    (vm,) = (vm for vm, it in cloud.engine.identities.items() if it.hostname == name)
    return cloud.engine.vms[vm]


async def names(cloud: Control, vm: str = "web") -> list[str]:
    """Of a VM's snapshots."""
    return [one["snapshot"] for one in (await cloud.data(f"snap ls {vm}"))["snapshots"]]


async def test_a_snapshot_is_taken_while_the_vm_goes_on(cloud: Control) -> None:
    before = on_engine(cloud)
    reply = await cloud.run("snap web first")
    assert reply.text == "web is kept as first"
    assert reply.data == {
        "vm_name": "web", "snapshot": "first", "created_at": AT, "consistency": "clean",
        "live": False,
    }  # fmt: skip
    assert on_engine(cloud).pid == before.pid
    (asked,) = (one for one in cloud.engine.asked if isinstance(one, TakeSnapshot))
    assert asked.vm == before.vm
    listed = (await cloud.data("snap ls"))["snapshots"]
    assert listed == [{
        "vm_name": "web", "snapshot": "first", "created_at": AT, "consistency": "clean",
        "live": False, "reason": "taken", "alone_bytes": 0,
    }]  # fmt: skip


async def test_what_each_holds_alone_is_said_by_the_engine(cloud: Control) -> None:
    await cloud.run("snap web first")
    assert (await cloud.run("snap ls")).text.splitlines()[0].split()[-1] == "ALONE"
    cloud.engine.refuse[ListSnapshots].append(Unavailable("away"))
    reply = await cloud.run("snap ls")
    assert reply.data["snapshots"][0]["alone_bytes"] is None
    assert reply.text.splitlines()[0].split()[-1] == "REASON"


async def test_one_without_a_name_has_the_time(cloud: Control) -> None:
    for _ in range(3):
        await cloud.run("snap web")
    assert sorted(await names(cloud)) == [
        "20270115-080000",
        "20270115-080000-2",
        "20270115-080000-3",
    ]


async def test_a_name_is_taken_once_per_vm(cloud: Control) -> None:
    await cloud.run("new --name db")
    await cloud.run("snap web a")
    await cloud.run("snap db a")
    assert "has a snapshot a already" in await cloud.fails("snap web a", Conflict)
    assert len((await cloud.data("snap ls"))["snapshots"]) == 2


@pytest.mark.parametrize("name", ["UP", "a@b", "../x", "-x", "x-", "a b", "ä", "a" * 64, ""])
async def test_what_cannot_be_a_name(cloud: Control, name: str) -> None:
    with pytest.raises(Invalid):
        check_name(name)
    await cloud.fails(f"snap web '{name}'", Invalid)
    assert await names(cloud) == []


def test_free_names() -> None:
    assert free_name("a", ()) == "a"
    assert free_name("a", ("a", "a-3")) == "a-2"
    assert free_name("a", ("a", "a-2", "a-3")) == "a-4"


async def test_a_paused_vm_is_not_clean(cloud: Control) -> None:
    await cloud.run("pause web")
    reply = await cloud.run("snap web")
    assert reply.data["consistency"] == "crash-consistent"
    assert reply.text.endswith(", crash-consistent: its file systems were not held still")


async def test_a_live_one_of_a_paused_vm_is_whole_with_its_memory(cloud: Control) -> None:
    await cloud.run("pause web")
    reply = await cloud.run("snap web mid --live")
    assert (reply.data["live"], reply.data["consistency"]) == (True, "crash-consistent")
    assert "with its memory as mid, its disk alone is crash-consistent" in reply.text


async def test_rollback_boots_and_keeps_what_was(cloud: Control) -> None:
    await cloud.run("snap web first")
    before = on_engine(cloud)
    cloud.clock.time += 60
    reply = await cloud.run("rollback web first")
    assert reply.data.pop("elapsed_s") >= 0
    assert reply.data == {
        "vm_name": "web", "snapshot": "first", "kept": "before-20270115-080100",
        "kept_consistency": "clean", "kept_live": False, "booted": True, "status": "running",
    }  # fmt: skip
    assert reply.text.splitlines()[1] == "to undo: rollback web before-20270115-080100"
    after = on_engine(cloud)
    assert (after.state, after.pid != before.pid) == (VmState.RUNNING, True)
    (asked,) = (one for one in cloud.engine.asked if isinstance(one, RollBack))
    assert asked.identity is not None
    assert not asked.identity.fresh  # the same VM, with its keys as they are now
    listed = (await cloud.data("snap ls web"))["snapshots"]
    assert [(one["snapshot"], one["reason"]) for one in listed] == [
        ("first", "taken"), ("before-20270115-080100", "rollback"),
    ]  # fmt: skip


async def test_a_live_snapshot_is_gone_back_to_without_a_boot(cloud: Control) -> None:
    reply = await cloud.run("snap web mid --live")
    assert reply.text == "web is kept with its memory as mid"
    assert reply.data["live"]
    cloud.clock.time += 60
    reply = await cloud.run("rollback web mid")
    assert (reply.data["booted"], reply.data["kept_live"], reply.data["status"]) == (
        False, True, "running",
    )  # fmt: skip
    (asked,) = (one for one in cloud.engine.asked if isinstance(one, RollBack))
    assert (asked.identity is not None, asked.cold) == (True, False)
    rows = (await cloud.run("snap ls web")).text.splitlines()[1:]
    assert ["disk, memory" in row for row in rows] == [True, True]
    # Of a VM that is off, too: the processes are what it was kept for.
    await cloud.run("pause web")
    cloud.engine.die(on_engine(cloud).vm)
    undone = await cloud.run("undo")
    assert undone.data["restored"][0]["status"] == "running"
    assert on_engine(cloud).warm


async def test_a_live_snapshot_can_be_booted_from(cloud: Control) -> None:
    await cloud.run("snap web mid --live")
    booted = await cloud.data("rollback web mid --cold")
    assert (booted["booted"], booted["kept_live"]) == (True, False)
    await cloud.run("resize web --cpu 2")
    await cloud.run("restart web")
    before = on_engine(cloud)
    assert "another machine" in await cloud.fails("rollback web mid", Conflict)
    assert on_engine(cloud) == before
    assert (await cloud.data("rollback web mid --cold"))["status"] == "running"


async def test_a_vm_that_is_off_has_no_memory_to_keep(cloud: Control) -> None:
    cloud.engine.die(on_engine(cloud).vm, problem="")
    assert "no memory" in await cloud.fails("snap web mid --live", Conflict)
    assert await names(cloud) == []


async def test_a_rollback_is_undone_by_another(cloud: Control) -> None:
    await cloud.run("snap web first")
    kept = (await cloud.data("rollback web"))["kept"]
    undone = await cloud.data(f"rollback web {kept}")
    assert undone["snapshot"] == kept
    # Without a name it is what somebody kept, not what the rollbacks did.
    assert (await cloud.data("rollback web"))["snapshot"] == "first"


async def test_a_copy_of_a_live_snapshot_does_not_boot(cloud: Control) -> None:
    await cloud.run("snap web mid --live")
    reply = await cloud.run("cp web@mid twin")
    assert reply.data["cold_booted"] is False
    assert "boot" not in reply.text
    other = await cloud.run("cp web@mid big --memory 2G")
    assert other.data["cold_booted"] is True
    assert "cold boot: from the disk of the snapshot alone" in other.text


async def test_a_copy_of_a_snapshot(cloud: Control) -> None:
    await cloud.run("snap web first")
    asked = cloud.engine.asked
    (taken,) = (one for one in asked if isinstance(one, TakeSnapshot))
    reply = await cloud.run("cp web@first old")
    assert (reply.data["source"], reply.data["snapshot"]) == ("web", "first")
    assert reply.data["cold_booted"] is True
    first = reply.text.splitlines()[0]
    assert first.startswith("old is running (")
    assert first.endswith("cold boot: from the disk of the snapshot alone), a copy of web@first")
    (clone,) = (one for one in asked if isinstance(one, Clone))
    assert (clone.source, clone.snapshot) == (taken.vm, taken.snapshot)
    assert await names(cloud, "old") == []
    for line in ("cp web@nope x", "cp web@ x", "cp nope@first x", "cp old@first x"):
        await cloud.fails(line, NotFound)
    await cloud.fails("cp web@first x", NotFound, cloud.bob)


async def test_undo_takes_the_last_rollback_back(cloud: Control) -> None:
    await cloud.run("snap web first")
    kept = (await cloud.data("rollback web"))["kept"]
    cloud.clock.time += 1
    reply = await cloud.run("undo")
    assert reply.text == (
        "web is as before its rollback: running\nwhat it was until now: before-20270115-080001"
    )
    assert reply.data == {
        "undone": "rollback",
        "restored": [{"vm_name": "web", "former_name": "web", "status": "running"}],
    }
    asked = [one for one in cloud.engine.asked if isinstance(one, RollBack)]
    assert asked[1].snapshot == asked[0].keep
    reasons = {one["snapshot"]: one["reason"] for one in (await cloud.data("snap ls"))["snapshots"]}
    assert reasons == {"first": "taken", kept: "undo", "before-20270115-080001": "undo"}
    await cloud.fails("undo", NotFound)


async def test_undo_takes_back_what_came_last(cloud: Control) -> None:
    await cloud.run("new --name db")
    await cloud.run("snap web first")
    for line in ("rollback web", "rm db"):
        cloud.clock.time += 1
        await cloud.run(line)
    assert [(await cloud.data("undo"))["undone"] for _ in range(2)] == ["rm", "rollback"]
    for line in ("rm db", "rollback web"):
        cloud.clock.time += 1
        await cloud.run(line)
    assert [(await cloud.data("undo"))["undone"] for _ in range(2)] == ["rollback", "rm"]


async def test_an_old_rollback_is_undone_by_its_name_alone(cloud: Control) -> None:
    await cloud.run("snap web first")
    kept = (await cloud.data("rollback web"))["kept"]
    cloud.clock.time += 86400
    await cloud.fails("undo", NotFound)
    assert (await cloud.data(f"rollback web {kept}"))["snapshot"] == kept


async def test_a_rollback_of_a_vm_in_the_trash_waits(cloud: Control) -> None:
    await cloud.run("snap web first")
    await cloud.run("rollback web")
    await cloud.run("rm web")
    assert [(await cloud.data("undo"))["undone"] for _ in range(2)] == ["rm", "rollback"]


@pytest.mark.parametrize("state", [VmState.PAUSED, VmState.STOPPED])
async def test_what_did_not_run_does_not_run(cloud: Control, state: VmState) -> None:
    await cloud.run("snap web first")
    if state is VmState.PAUSED:
        await cloud.run("pause web")
    else:
        cloud.engine._put(on_engine(cloud).vm, state=state, address=None, pid=None)
    reply = await cloud.run("rollback web")
    assert reply.data["status"] == "stopped"
    assert "problem" not in reply.data
    assert on_engine(cloud).state is VmState.STOPPED
    await cloud.run("resume web")
    assert on_engine(cloud).state is VmState.RUNNING


async def test_snapshots_go_one_by_one_and_with_their_vm(cloud: Control) -> None:
    for name in ("a", "b"):
        await cloud.run(f"snap web {name}")
    reply = await cloud.run("snap rm web a")
    assert reply.text == "removed a of web"
    assert await names(cloud) == ["b"]
    assert sum(isinstance(one, DropSnapshot) for one in cloud.engine.asked) == 1
    await cloud.run("rm web")
    await cloud.run("undo")
    assert await names(cloud) == ["b"]
    await cloud.run("rm web")
    cloud.clock.time += 2 * 86400
    await cloud.cloud.trash.sweep()
    async with cloud.store.read() as tx:
        assert (
            await snapshots.of_vms(
                tx, [asked.vm for asked in cloud.engine.asked if isinstance(asked, TakeSnapshot)]
            )
            == ()
        )


async def test_what_is_not_there(cloud: Control) -> None:
    for line in ("snap nope", "snap ls nope", "snap rm nope a", "rollback nope"):
        await cloud.fails(line, NotFound)
    assert "snap web" in await hint(cloud, "rollback web")
    assert "snap ls web" in await hint(cloud, "rollback web x")
    assert "snap ls web" in await hint(cloud, "snap rm web x")
    assert not [one for one in cloud.engine.asked if isinstance(one, RollBack | DropSnapshot)]


async def hint(cloud: Control, line: str) -> str:
    """What to type next, as the error says."""
    with pytest.raises(NotFound) as caught:
        await cloud.run(line)
    return caught.value.hint or ""


async def test_of_a_vm_that_the_engine_lost(cloud: Control) -> None:
    await cloud.run("snap web first")
    del cloud.engine.vms[on_engine(cloud).vm]
    for line in ("snap web", "snap rm web first"):
        await cloud.fails(line, NotFound)
    await cloud.fails("rollback web", Conflict)
    async with cloud.store.read() as tx:
        assert await operations.unfinished(tx) == ()
    assert await names(cloud) == ["first"]


async def test_nobody_elses(cloud: Control) -> None:
    await cloud.run("snap web a")
    for line in ("snap web b", "snap ls web", "snap rm web a", "rollback web a"):
        await cloud.fails(line, NotFound, cloud.bob)
    assert (await cloud.data("snap ls", cloud.bob))["snapshots"] == []
    assert await names(cloud) == ["a"]


async def test_there_is_a_limit(cloud: Control) -> None:
    vm = on_engine(cloud).vm
    async with cloud.store.begin() as tx:
        for number in range(PER_VM):
            one = Snapshot(
                id=f"snap-{number:012d}", vm=vm, name=f"n{number}", reason=Reason.TAKEN,
                is_clean=True, has_memory=False, created_at=float(number),
            )  # fmt: skip
            await snapshots.add(tx, one)
    for line in ("snap web", "rollback web"):
        assert "is the limit" in await cloud.fails(line, Exhausted)


@pytest.mark.parametrize(
    ("line", "kind"),
    [("snap web b", TakeSnapshot), ("rollback web", RollBack), ("snap rm web a", DropSnapshot)],
)
async def test_a_refusal_leaves_all_as_it_was(
    cloud: Control, line: str, kind: type[TakeSnapshot | RollBack | DropSnapshot]
) -> None:
    await cloud.run("snap web a")
    cloud.engine.refuse[kind].append(Internal("no"))
    await cloud.fails(line, Internal)
    assert await names(cloud) == ["a"]
    cloud.engine.refuse[DropSnapshot].clear()
    assert (await cloud.run(line)).exit == 0


class Full(FakeEngine):
    """Its pool is full after a rollback has kept what it is to replace."""

    async def handle(self, request: Message) -> Message:
        """As the other."""
        if isinstance(request, RollBack):
            self.snapshots[request.vm][request.keep] = "now"
            raise Exhausted("the pool is full")
        return await super().handle(request)


async def test_what_a_rollback_kept_before_it_failed_is_not_lost(tmp_path: Path) -> None:
    engine = Full(tmp_path / "engine.sock")
    async with engine.serving(), control(tmp_path / "control", engine) as cloud:
        await cloud.run("new --name web")
        await cloud.run("snap web first")
        cloud.clock.time += 1
        await cloud.fails("rollback web", Exhausted)
        first, kept = (await cloud.data("snap ls"))["snapshots"]
        assert (first["snapshot"], kept["reason"], kept["consistency"]) == (
            "first",
            "rollback",
            "crash-consistent",
        )
        await cloud.run(f"snap rm web {kept['snapshot']}")
        assert [len(held) for held in engine.snapshots.values()] == [1]


@pytest.mark.parametrize(
    ("line", "kind", "expected"),
    [
        ("snap web b", TakeSnapshot, ["a", "b"]),
        ("rollback web", RollBack, ["a", "before-20270115-080000"]),
        ("snap rm web a", DropSnapshot, []),
    ],
)
async def test_what_the_engine_did_unheard_is_found_out(
    cloud: Control,
    line: str,
    kind: type[TakeSnapshot | RollBack | DropSnapshot],
    expected: list[str],
) -> None:
    """The engine is away when it should answer; the journal asks again, with the same ids."""
    await cloud.run("snap web a")
    cloud.engine.refuse[kind] += [Unavailable("away")] * 5
    with pytest.raises(AtollError):
        await cloud.run(line)
    await cloud.cloud.journal.resume()
    assert sorted(await names(cloud)) == expected
    asked = [one for one in cloud.engine.asked if isinstance(one, kind)][-6:]
    assert len({one.model_dump_json(include={"op", "snapshot", "keep"}) for one in asked}) == 1
