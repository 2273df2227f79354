"""A pool on a file system that is really full: who is halted, who goes on, where the ballast goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from atoll.base.aio import TaskGroup, poll
from atoll.base.errors import Exhausted
from atoll.config import Config, Paths
from atoll.engine.disk.blockdev import BlockOptions
from atoll.engine.disk.pool import Pool
from atoll.engine.disk.reserve import Reserve
from atoll.engine.disks import Disks
from atoll.engine.space import ENOUGH, Space
from framework.small_disk import fill, small_disks

MIB = 1 << 20
RESERVE = 16 * MIB
WATCH_S = 20.0


class World:
    """A pool on a disk of its own."""

    def __init__(self, config: Config, disks: Disks) -> None:
        self.pool = config.pool
        self.reserve = Reserve(config.pool, RESERVE)
        self.space = Space(disks, self.reserve, reserve_bytes=RESERVE)
        self.gone_on: list[str] = []

    async def go_on(self, vm: str) -> None:
        self.gone_on.append(vm)


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    async with small_disks(state_bytes=256 * MIB, control_bytes=MIB) as small:
        config = Config(paths=Paths(state=small.state))
        config.pool.mkdir()
        with Pool.open(config.pool) as pool:
            yield World(config, Disks(pool, BlockOptions(aio="threads")))


async def test_the_reserve_is_kept_and_given_back_when_full(world: World) -> None:
    await asyncio.to_thread(world.reserve.hold)
    world.space.check()
    await world.space.make_room()
    assert world.reserve.held_bytes >= RESERVE, "nothing is given back while there is room"

    fill(world.pool, leave_bytes=0)
    with pytest.raises(Exhausted, match="pool is full"):
        world.space.check()
    await world.space.make_room()
    assert world.reserve.held_bytes == 0
    (world.pool / "record").write_bytes(b"x" * MIB)


async def test_a_halted_vm_goes_on_with_room_of_its_own_not_with_the_reserve(world: World) -> None:
    await asyncio.to_thread(world.reserve.hold)
    ballast = fill(world.pool, leave_bytes=0)
    assert world.space.halt("vm-a")
    assert not world.space.halt("vm-a"), "known"
    assert world.space.problem("vm-a")
    assert not world.space.problem("vm-b")
    await world.space.make_room()

    async with TaskGroup() as group:
        watching = group.create_task(world.space.watch(world.go_on))
        (world.pool / "probe").write_bytes(b"")
        for _ in range(3):
            await asyncio.sleep(0.5)  # two looks of the watch
        assert world.gone_on == []
        assert world.reserve.held_bytes == 0, "it cannot be taken again yet"

        ballast.unlink()
        assert world.space.problem("vm-a")

        async def went_on() -> bool | None:
            return True if world.gone_on and world.reserve.held_bytes else None

        await poll(went_on, seconds=WATCH_S, what="letting a halted VM go on")
        watching.cancel()
    assert world.gone_on == ["vm-a"]
    assert not world.space.problem("vm-a")
    assert ENOUGH > RESERVE
