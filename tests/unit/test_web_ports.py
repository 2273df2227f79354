"""A web address follows what listens inside its VM: when it moves, and when it must not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from atoll.base.aio import TaskGroup, poll
from atoll.base.errors import Unavailable
from atoll.domain.vm import VmRecord
from atoll.domain.web import web_port
from atoll.rpc.client import EngineClient
from atoll.rpc.messages import Stat, StatVm
from atoll.services import web_ports
from atoll.services.web_ports import EVERY_S, WAITING, WebPorts
from atoll.store import operations, vms
from fakes.engine import FakeEngine
from framework.cloud import Clock, Control, control


@dataclass
class World:
    """A control whose VM `web` is ann's alone, on port 8000, and its own clock."""

    control: Control
    ports: WebPorts
    boot: Clock

    async def vm(self, name: str = "web") -> VmRecord:
        async with self.control.store.read() as tx:
            found = await vms.named(tx, name)
        assert found is not None
        return found

    async def listens(self, *ports: int, name: str = "web") -> None:
        """Inside the VM, on these and no others."""
        vm = (await self.vm(name)).id
        self.control.engine.stats[vm] = Stat(vm=vm, ports=ports)

    async def port(self, name: str = "web") -> int:
        """Where its address leads."""
        return (await self.vm(name)).port

    def asked(self) -> int:
        """How often a VM was."""
        return sum(isinstance(request, StatVm) for request in self.control.engine.asked)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving(), control(tmp_path / "control", engine) as made:
        await made.run("new --name web")
        client, boot = EngineClient(socket=engine.path), Clock(1000.0)
        cloud = made.cloud
        ports = WebPorts(
            store=made.store,
            engine=client,
            locks=cloud._locks,
            events=cloud.events,
            changes=cloud.changes,
            monotonic=boot,
        )
        async with TaskGroup() as group:
            working = group.create_task(ports.run())
            yield World(made, ports, boot)
            working.cancel()
        await client.close()


async def test_moves_to_what_listens_and_says_so(world: World) -> None:
    await world.listens(22, 3000)
    shown, told = world.control.cloud.changes.version, world.control.cloud.events.changes.version
    world.ports.missed("web", 8000)
    async with asyncio.timeout(10):
        await world.control.cloud.changes.wait_beyond(shown)
        await world.control.cloud.events.changes.wait_beyond(told)
    assert await world.port() == 3000
    assert not (await world.vm()).is_port_chosen
    event = (await world.control.data("events web"))["events"][-1]
    assert (event["event"], event["vm_name"]) == ("port-moved", "web")
    assert event["problem"] == "nothing listened on port 8000, so the address leads to 3000"
    assert "by" not in event
    (published,) = await world.control.cloud.published()
    assert published.port == 3000


async def test_moves_on_with_its_server(world: World) -> None:
    await world.listens(3000)
    await world.ports.look("web", 8000)
    await world.listens(8000)
    world.boot.time += EVERY_S
    await world.ports.look("web", 3000)
    assert await world.port() == 8000


@pytest.mark.parametrize(
    ("listening", "port"),
    [
        ((80, 3000), 80),
        ((22, 80, 443), 80),
        ((5000, 3000, 22), 3000),
        ((1023, 1024), 1024),
        ((65_535,), 65_535),
        ((), None),
        ((22, 25, 443, 1023), None),
    ],
)
def test_which_port_serves(listening: tuple[int, ...], port: int | None) -> None:
    assert web_port(listening) == port


@given(st.sets(st.integers(1, 65_535)))
def test_no_system_port_serves(listening: set[int]) -> None:
    port = web_port(listening)
    assert port is None or (port in listening and (port == 80 or port >= 1024))


@pytest.mark.parametrize("ports", [(0,), (65_536,), (-1,), tuple(range(1, 1026))])
def test_what_no_guest_can_say(ports: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        Stat(vm="vm-000000000001", ports=ports)


@pytest.mark.parametrize("listening", [(), (22, 443), (8000,), (80, 3000, 8000)])
async def test_stays_where_it_serves_or_nothing_else_does(
    world: World, listening: tuple[int, ...]
) -> None:
    await world.listens(*listening)
    await world.ports.look("web", 8000)
    assert await world.port() == 8000
    assert world.asked() == 1


@pytest.mark.parametrize(
    "line",
    [
        "share port web 8000",
        "share add web bob@example.com",
        "share add web bob@example.com --port 3000 --path /a",
        "share add web nobody@example.com --for 2h",
        "share add web bob@example.com --root",
        "share add web crew",
        "share add-link web",
        "share set-public web",
        "share set-public web --path /a",
        "share set-public web --port 3000",
        "pause web",
        "rm web",
        "rename web other",
    ],
)
async def test_stays_and_is_not_even_asked(world: World, line: str) -> None:
    await world.control.run("team new crew")
    await world.listens(3000)
    vm = await world.vm()
    await world.control.run(line)
    await world.ports.look("web", 8000)
    assert await port_of(world, vm.id) == 8000
    assert world.asked() == 0


async def test_another_port_that_was_asked_for_moves_nothing(world: World) -> None:
    await world.listens(3000)
    await world.ports.look("web", 9000)
    assert (await world.port(), world.asked()) == (8000, 0)


async def test_may_move_again_when_nobody_else_opens_it(world: World) -> None:
    await world.listens(3000)
    await world.control.run("share set-public web")
    await world.control.run("share set-private web")
    await world.ports.look("web", 8000)
    assert await world.port() == 3000


@pytest.mark.parametrize(
    "line",
    [
        "share port web 9000",
        "share port web 8000",
        "share set-public web",
        "share add-link web",
        "pause web",
        "rm web",
        "transfer web bob@example.com",
    ],
)
async def test_what_changes_while_the_vm_is_asked_counts(world: World, line: str) -> None:
    await world.listens(3000)
    vm, gate = await world.vm(), asyncio.Event()
    world.control.engine.hold[StatVm] = gate
    looking = asyncio.create_task(world.ports.look("web", 8000))
    await until(lambda: world.asked() > 0)
    await world.control.run(line)
    gate.set()
    await looking
    moves = line.startswith("transfer")  # it is still its owner's alone, whoever that is
    expected = 3000 if moves else 9000 if "9000" in line else 8000
    assert await port_of(world, vm.id) == expected


async def test_a_vm_that_is_gone_meanwhile(world: World) -> None:
    await world.listens(3000)
    vm, gate = await world.vm(), asyncio.Event()
    world.control.engine.hold[StatVm] = gate
    looking = asyncio.create_task(world.ports.look("web", 8000))
    await until(lambda: world.asked() > 0)
    async with world.control.store.begin() as tx:
        await vms.remove(tx, vm.id)
    gate.set()
    await looking
    assert (await world.control.data("events -n 9"))["events"][-1]["event"] != "port-moved"


async def test_leaves_a_vm_alone_that_somebody_changes(world: World) -> None:
    await world.listens(3000)
    vm = await world.vm()
    async with world.control.cloud._locks.hold(vm.id, label="web", doing="resize"):
        await world.ports.look("web", 8000)
    assert await world.port() == 8000


async def test_leaves_a_vm_alone_that_something_is_unfinished_on(world: World) -> None:
    await world.listens(3000)
    vm = await world.vm()
    async with world.control.store.begin() as tx:
        await world.control.cloud.journal.inform(tx, vm, act="act-1")
        assert await operations.unfinished(tx, vm=vm.id)
    await world.ports.look("web", 8000)
    assert (await world.port(), world.asked()) == (8000, 0)


async def test_is_asked_once_in_a_while_however_often_it_is_visited(world: World) -> None:
    await world.listens()

    async def visited(*, asks: int) -> None:
        for _ in range(100):
            world.ports.missed("web", 8000)
        assert world.ports._waiting.qsize() == asks
        before = world.asked()
        await until(lambda: world.ports._waiting.empty() and world.asked() == before + asks)

    await visited(asks=1)
    world.boot.time += EVERY_S - 0.01
    await visited(asks=0)
    world.boot.time += 0.02
    await visited(asks=1)


async def test_moves_no_more_often_than_it_is_asked(world: World) -> None:
    await world.listens(3000)
    await world.ports.look("web", 8000)
    await world.listens(8000)
    await world.ports.look("web", 3000)
    assert (await world.port(), world.asked()) == (3000, 1)


async def test_misses_of_other_ports_use_up_nothing(world: World) -> None:
    await world.listens(3000)
    shown = world.control.cloud.changes.version
    for port in (9000, 9001, 8000):
        world.ports.missed("web", port)
    async with asyncio.timeout(10):
        await world.control.cloud.changes.wait_beyond(shown)
    assert (await world.port(), world.asked()) == (3000, 1)


async def test_many_vms_wait_in_a_bounded_line(world: World) -> None:
    for number in range(3 * WAITING):
        world.ports.missed(f"vm{number}", 8000)
    assert world.ports._waiting.qsize() == WAITING
    await world.listens(3000)
    await until(world.ports._waiting.empty)
    shown = world.control.cloud.changes.version
    world.ports.missed("web", 8000)
    async with asyncio.timeout(10):
        await world.control.cloud.changes.wait_beyond(shown)
    assert await world.port() == 3000


async def test_an_engine_that_is_away_is_asked_again(world: World) -> None:
    await world.listens(3000)
    world.control.engine.refuse[StatVm].append(Unavailable("the engine is away"))
    world.ports.missed("web", 8000)
    await until(lambda: world.asked() == 1)
    assert await world.port() == 8000
    world.boot.time += EVERY_S
    shown = world.control.cloud.changes.version
    world.ports.missed("web", 8000)
    async with asyncio.timeout(10):
        await world.control.cloud.changes.wait_beyond(shown)
    assert await world.port() == 3000


async def test_a_guest_that_hangs_keeps_no_other_waiting(world: World) -> None:
    await world.control.run("new --name db")
    for name in ("web", "db"):
        await world.listens(3000, name=name)
    engine = world.control.engine
    engine.hold[StatVm] = gate = asyncio.Event()
    world.ports.missed("web", 8000)
    await until(lambda: world.asked() == 1)
    del engine.hold[StatVm]
    shown = world.control.cloud.changes.version
    world.ports.missed("db", 8000)
    async with asyncio.timeout(10):
        await world.control.cloud.changes.wait_beyond(shown)
    assert [await world.port(name) for name in ("web", "db")] == [8000, 3000]
    gate.set()


async def test_an_answer_that_takes_too_long_moves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.listens(3000)
    monkeypatch.setattr(web_ports, "ASK_S", 0.05)
    world.control.engine.hold[StatVm] = gate = asyncio.Event()
    with pytest.raises(Unavailable):
        await world.ports.look("web", 8000)
    gate.set()
    assert await world.port() == 8000


async def test_a_copy_and_a_new_name_keep_what_was_chosen(world: World) -> None:
    await world.control.run("cp web loose")
    await world.control.run("share port web 3000")
    await world.control.run("cp web fixed")
    await world.control.run("rename web shop")
    await world.control.run("rm shop")
    await world.control.run("undo")
    await world.control.run("transfer shop bob@example.com")
    chosen = {name: (await world.vm(name)).is_port_chosen for name in ("loose", "fixed", "shop")}
    assert chosen == {"loose": False, "fixed": True, "shop": True}


async def port_of(world: World, vm_id: str) -> int:
    """Of a VM whatever it is called now, in the trash too."""
    async with world.control.store.read() as tx:
        vm = await vms.get(tx, vm_id)
    assert vm is not None
    return vm.port


async def until(check: Callable[[], bool]) -> None:
    """Wait for what others do."""

    async def look() -> bool | None:
        return check() or None

    await poll(look, seconds=10, what="it", every=0.005)
