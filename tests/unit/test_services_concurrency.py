"""Many commands at once: one change per VM at a time, every name once, lists that stay fast."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.base.aio import poll, together
from atoll.base.errors import AtollError, Conflict
from atoll.domain.vm import Phase, VmRecord
from atoll.rpc.messages import GIB, Clone, Create, Pause, Spec, Vm, VmState
from atoll.services.changes import Changes
from atoll.services.locks import VmLocks
from atoll.store import operations, vms
from fakes.engine import FakeEngine
from framework.cloud import Control, control


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Control]:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving(), control(tmp_path / "control", engine, loops=True) as made:
        yield made


async def outcome(cloud: Control, line: str) -> str:
    """`ok`, or the kind of error."""
    try:
        await cloud.run(line)
    except AtollError as error:
        return error.code
    return "ok"


async def test_thirty_new_at_once(cloud: Control) -> None:
    started = time.monotonic()
    replies = await together(*(cloud.run("new") for _ in range(30)))
    print(f"\n30 new at once: {time.monotonic() - started:.2f} s in control")  # noqa: T201
    assert len({reply.data["vm_name"] for reply in replies}) == 30
    assert len(cloud.engine.vms) == 30
    assert len({vm.address for vm in cloud.engine.vms.values()}) == 30


async def test_one_name_for_one_of_many(cloud: Control) -> None:
    outcomes = await together(*(outcome(cloud, "new --name web") for _ in range(10)))
    assert sorted(outcomes) == ["conflict"] * 9 + ["ok"]
    assert len(cloud.engine.vms) == 1


async def test_a_second_change_waits_for_the_first(cloud: Control) -> None:
    await cloud.run("new --name web")
    lines = ["pause web", "resume web", "restart web", "tag web a", "cp web", "rename web shop"]
    outcomes = await together(*(outcome(cloud, line) for line in lines))
    assert set(outcomes) <= {"ok", "conflict", "not-found"}
    async with cloud.store.read() as tx:
        assert await operations.unfinished(tx) == ()


async def test_a_change_that_takes_long_is_named(
    cloud: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud.cloud.access._locks, "_patience_s", 0.05)
    await cloud.run("new --name web")
    cloud.engine.hold[Pause] = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(cloud.run("pause web"))

        async def is_pausing() -> bool | None:
            return any(isinstance(request, Pause) for request in cloud.engine.asked) or None

        await poll(is_pausing, seconds=10, what="pause", every=0.005)
        with pytest.raises(Conflict) as caught:
            await cloud.run("restart web")
        assert str(caught.value) == 'VM "web" is busy: `pause` is running. Try again in a moment'
        assert (await cloud.data("rm web"))["errors"].keys() == {"web"}
        cloud.engine.hold.pop(Pause).set()
    assert (await cloud.data("ls"))["vms"][0]["status"] == "paused"


async def test_a_vm_in_the_making_is_busy(cloud: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud.cloud.access._locks, "_patience_s", 0.05)
    cloud.engine.hold[Create] = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(cloud.run("new --name web"))

        async def is_starting() -> bool | None:
            listed = (await cloud.data("ls"))["vms"]
            return [vm["status"] for vm in listed] == ["starting"] or None

        await poll(is_starting, seconds=10, what="the VM to be listed", every=0.005)
        with pytest.raises(Conflict, match='VM "web" is busy: `create` is running'):
            await cloud.run("cp web")
        with pytest.raises(Conflict, match='VM "web" is not running'):
            await cloud.run("ssh web")
        with pytest.raises(Conflict, match='VM "web" is being made or removed'):
            await cloud.run("share show web --url https://web.atoll.localhost:8443/")
        assert await cloud.cloud.published() == ()
        cloud.engine.hold.pop(Create).set()
    assert len(await cloud.cloud.published()) == 1


async def test_clones_of_one_vm_take_turns(cloud: Control) -> None:
    await cloud.run("new --name web")
    await together(*(cloud.run("cp web") for _ in range(5)))
    clones = [request for request in cloud.engine.asked if isinstance(request, Clone)]
    assert len(clones) == 5
    assert len(cloud.engine.vms) == 6


async def test_locks_are_forgotten_when_free() -> None:
    locks = VmLocks()
    async with locks.hold("vm-1", label="web", doing="pause"):
        assert locks.doing("vm-1") == "pause"
        assert locks.doing("vm-2") is None
    assert locks._held == {}


async def test_behind_what_nobody_asked_for_one_waits() -> None:
    locks = VmLocks(patience_s=0.01)

    async def command() -> None:
        async with locks.hold("vm-1", label="web", doing="pause"):
            pass

    async with locks.hold("vm-1", label="web", doing="snap history", unasked=True):
        waiting = asyncio.create_task(command())
        await asyncio.sleep(0.1)
        assert not waiting.done()
    await waiting
    async with locks.hold("vm-1", label="web", doing="resize"):
        with pytest.raises(Conflict, match="`resize` is running"):
            await command()


async def test_changes_wake_those_who_wait() -> None:
    changes = Changes()
    assert await changes.wait_beyond(-1) == 0
    waiter = asyncio.create_task(changes.wait_beyond(0))
    await asyncio.sleep(0)
    changes.bump()
    changes.bump()
    assert await waiter == 2


async def test_ls_of_500_vms_reads_the_store_once(cloud: Control) -> None:
    spec = Spec(image="debian", cpus=1, memory_bytes=GIB, disk_bytes=25 * GIB)
    owner = cloud.ann.account.id
    async with cloud.store.begin() as tx:
        for number in range(500):
            vm_id = f"vm-{number:012d}"
            await vms.add(
                tx,
                VmRecord(
                    id=vm_id, owner=owner, name=f"web{number}x", image="debian", cpus=1,
                    memory_bytes=GIB, disk_bytes=25 * GIB, phase=Phase.LIVE, port=8000,
                    host_key="k", created_at=1.0, tags=("a", "b"),
                ),
            )  # fmt: skip
            cloud.engine.vms[vm_id] = Vm(
                vm=vm_id, owner=owner, spec=spec, state=VmState.RUNNING, address="10.213.1.2"
            )
    await cloud.cloud.reconciler.reconcile()
    asked = len(cloud.engine.asked)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        reply = await cloud.run("ls")
        times.append(1000 * (time.perf_counter() - started))
        assert len(reply.text.splitlines()) == 501
        assert {vm["status"] for vm in reply.data["vms"]} == {"running"}
    print(f"\nls of 500 VMs: {min(times):.1f} to {max(times):.1f} ms in control")  # noqa: T201
    assert len(cloud.engine.asked) == asked  # nobody was asked per VM
