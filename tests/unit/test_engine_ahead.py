"""Templates ahead of need: what is missed is made, once, and nobody waits for it.

Nothing boots here: what is to be built lies in the cache, as another pool of the host left it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from atoll.base.aio import TaskGroup, poll
from atoll.rpc.messages import Event
from framework.templates import GIB, MIB, World, world

LARGE = 1024 * GIB  # more than any disk here has


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


@asynccontextmanager
async def working(node: World) -> AsyncIterator[None]:
    """The background task, cancelled after the body."""
    async with TaskGroup() as group:
        task = group.create_task(node.ahead.run())
        yield
        task.cancel()


async def until_there(node: World, memory_bytes: int) -> None:
    async def look() -> bool | None:
        return node.find(memory_bytes) is not None or None

    await poll(look, seconds=10, what="a template")


async def test_a_size_that_was_missed_is_made_and_told(node: World) -> None:
    await node.make()
    await node.forget(await node.make(768 * MIB))
    assert node.ahead.missed(node.spec(768 * MIB))
    assert node.ahead.missed(node.spec(768 * MIB)), "queued once, said to both"
    async with working(node):
        await until_there(node, 768 * MIB)
        await poll(lambda: _some(node.told), seconds=10, what="an event")
    (event,) = node.told
    assert event.kind == "template-ready"
    assert event.vm is None
    assert event.detail == "warm template of debian, 1 vCPU, 768M memory, 8G disk"
    assert not node.ahead.missed(node.spec(768 * MIB)), "it is there"
    assert node.ahead.problems == ()


async def _some(told: list[Event]) -> bool | None:
    return bool(told) or None


async def test_the_default_size_is_made_without_being_asked_for(node: World) -> None:
    await node.forget(await node.make())
    (problem,) = node.ahead.problems
    assert problem.startswith("VMs boot cold until the template of debian, 1 vCPU, 512M")
    async with working(node):
        await until_there(node, 512 * MIB)
    assert node.ahead.problems == ()


async def test_a_damaged_default_is_made_again_when_a_vm_found_out(node: World) -> None:
    meta = await node.make()
    async with working(node):
        await asyncio.sleep(0)
        node.templates.set_aside(meta.id, "its checksum differs")
        assert node.ahead.missed(node.spec())
        await until_there(node, 512 * MIB)
    made = node.find()
    assert made is not None
    assert made.id != meta.id


async def test_a_build_that_fails_is_reported_and_left_alone_for_a_while(node: World) -> None:
    await node.make()
    assert node.ahead.missed(node.spec(LARGE))
    async with working(node):

        async def failed() -> bool | None:
            return bool(node.ahead.problems) or None

        await poll(failed, seconds=10, what="a failure")
        (problem,) = node.ahead.problems
        assert "no warm template of debian, 1 vCPU, 1T memory" in problem
        assert "it may take 1T, the pool has" in problem
        assert not node.ahead.missed(node.spec(LARGE)), "and so `new` does not promise one"
    assert node.told == []


async def test_a_smaller_disk_than_the_defaults_gets_a_template_of_its_own(node: World) -> None:
    await node.make()
    await node.forget(await node.make(disk_bytes=4 * GIB))
    assert not node.ahead.missed(node.spec(disk_bytes=16 * GIB)), "a disk can grow"
    assert node.find(disk_bytes=4 * GIB) is None, "but not shrink"
    assert node.ahead.missed(node.spec(disk_bytes=4 * GIB))
    async with working(node):
        await poll(lambda: _some(node.told), seconds=10, what="an event")
    small, large = node.find(disk_bytes=4 * GIB), node.find(disk_bytes=8 * GIB)
    assert small is not None
    assert large is not None
    assert (small.disk_bytes, large.disk_bytes) == (4 * GIB, 8 * GIB)


async def test_the_default_is_made_where_only_one_with_a_smaller_disk_is_there(
    node: World,
) -> None:
    await node.forget(await node.make())
    await node.make(disk_bytes=4 * GIB)
    assert node.ahead.problems == (), "VMs start warm, their disks have to grow"
    async with working(node):
        await poll(lambda: _some(node.told), seconds=10, what="an event")
    found = node.find()
    assert found is not None
    assert found.disk_bytes == 8 * GIB


async def test_where_none_are_kept_none_are_made(tmp_path: Path) -> None:
    async with world(tmp_path, kept=0) as node:
        assert not node.ahead.missed(node.spec(768 * MIB))
        assert node.ahead.missed(node.spec()), "the default size always is"


async def test_it_waits_for_a_build_that_was_asked_for_and_ends_at_once(node: World) -> None:
    await node.forget(await node.make())
    async with node.alone, asyncio.timeout(5), working(node):
        await asyncio.sleep(0)
        assert node.find() is None
    assert node.find() is None
