"""Operations: one at a time per VM, once per id, to their end whoever waits."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator

import pytest

from atoll.base.aio import TaskGroup
from atoll.base.errors import Conflict, Exhausted, Unavailable
from atoll.engine import node, operations
from atoll.engine.operations import Operations
from atoll.rpc import server


@pytest.fixture
async def ops() -> AsyncIterator[Operations]:
    async with Operations() as made:
        yield made


class Job:
    """An operation that waits to be let go and counts its runs."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun = asyncio.Event()
        self.runs = 0
        self.undone = False

    async def __call__(self) -> str:
        self.runs += 1
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.undone = True
            raise
        return "done"


async def test_the_same_id_runs_once(ops: Operations) -> None:
    job = Job()
    async with TaskGroup() as group:
        callers = [group.create_task(ops.once("op-1", job)) for _ in range(3)]
        await job.begun.wait()
        job.go.set()
    assert [caller.result() for caller in callers] == ["done"] * 3
    assert job.runs == 1


async def test_a_caller_that_goes_away_stops_nothing(ops: Operations) -> None:
    job = Job()
    async with TaskGroup() as group:
        first = group.create_task(ops.once("op-1", job))
        await job.begun.wait()
        first.cancel()
    second = asyncio.ensure_future(ops.once("op-1", job))
    await asyncio.sleep(0)
    job.go.set()
    assert await second == "done"
    assert job.runs == 1
    assert not job.undone


async def test_every_caller_gets_the_failure_and_the_next_may_try_again(ops: Operations) -> None:
    tries = 0

    async def fail() -> str:
        nonlocal tries
        tries += 1
        await asyncio.sleep(0)
        raise Conflict("no")

    results = await asyncio.gather(
        ops.once("op-1", fail), ops.once("op-1", fail), return_exceptions=True
    )
    assert [type(result) for result in results] == [Conflict, Conflict]
    assert tries == 1
    with pytest.raises(Conflict):
        await ops.once("op-1", fail)
    assert tries == 2


async def test_a_full_disk_is_told_as_such(ops: Operations) -> None:
    async def fail() -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(Exhausted, match="the pool is full"):
        await ops.once("op-1", fail)


async def test_a_second_operation_is_told_what_runs(ops: Operations) -> None:
    async with ops.holding("pause", "vm-a"):
        assert ops.busy("vm-a")
        with pytest.raises(Conflict, match="vm-a is busy: pause"):
            async with ops.holding("restart", "vm-b", "vm-a", patience_s=0.01):
                pytest.fail("it was not free")
        assert not ops.busy("vm-b")  # the one it did get is given back
    assert not ops.busy("vm-a")


async def test_without_a_limit_it_waits(ops: Operations) -> None:
    order = list[str]()

    async def clean_up() -> None:
        async with ops.holding("clean up", "vm-a", patience_s=None):
            order.append("cleaned up")

    async with TaskGroup() as group:
        async with ops.holding("pause", "vm-a"):
            group.create_task(clean_up())
            await asyncio.sleep(0.02)
            order.append("paused")
    assert order == ["paused", "cleaned up"]
    assert not ops.busy("vm-a")


async def test_a_waiter_that_is_cancelled_leaves_the_lock_usable(ops: Operations) -> None:
    async def wait() -> None:
        async with ops.holding("restart", "vm-a"):
            pass

    async with ops.holding("pause", "vm-a"):
        async with TaskGroup() as group:
            waiter = group.create_task(wait())
            await asyncio.sleep(0)
            waiter.cancel()
    async with ops.holding("stop", "vm-a", patience_s=0.01):
        assert ops.busy("vm-a")
    assert not ops.busy("vm-a")


async def test_two_in_either_order_do_not_block_each_other(ops: Operations) -> None:
    async def both(*vms: str) -> None:
        async with ops.holding("clone", *vms):
            await asyncio.sleep(0)

    async with asyncio.timeout(2), TaskGroup() as group:
        for _ in range(10):
            group.create_task(both("vm-a", "vm-b"))
            group.create_task(both("vm-b", "vm-a"))


async def test_at_the_end_what_is_quick_finishes(ops: Operations) -> None:
    job = Job()
    async with TaskGroup() as group:
        caller = group.create_task(ops.once("op-1", job))
        await job.begun.wait()
        ending = group.create_task(ops.finish(seconds=10))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="stopping"):
            await ops.once("op-2", Job())
        job.go.set()
        await ending
    assert caller.result() == "done"


async def test_at_the_end_what_is_slow_is_undone_and_its_caller_told(ops: Operations) -> None:
    job = Job()

    async def caller() -> None:
        with pytest.raises(Unavailable, match="stopping"):
            await ops.once("op-1", job)

    async with TaskGroup() as group:
        group.create_task(caller())
        await job.begun.wait()
        await ops.finish(seconds=0.01)
        assert job.undone


def test_the_engine_ends_before_its_supervisor_kills_it() -> None:
    took_s = server.HANG_UP_S + node.FINISH_S + operations.UNDO_S + node.BUILD_END_S
    assert took_s < 30  # TimeoutStopSec of the engine's unit
