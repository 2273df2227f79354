"""Timeouts in every situation that differs between Python versions."""

from __future__ import annotations

import asyncio

import pytest

from atoll.base.timeout import timeout


async def test_an_expired_one_raises_timeout_error() -> None:
    with pytest.raises(TimeoutError):
        async with timeout(0.01):
            await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_in_time_it_does_nothing() -> None:
    async with timeout(10):
        await asyncio.sleep(0)
    async with timeout(None):
        await asyncio.sleep(0)


async def test_it_expires_in_the_clean_up_of_a_cancelled_task() -> None:
    """Fails with asyncio.timeout on 3.11.2: the clean-up ends with CancelledError instead."""
    steps: list[str] = []

    async def job() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            try:
                async with timeout(0.01):
                    await asyncio.Event().wait()
            except TimeoutError:
                steps.append("gave up waiting")
            steps.append("killed")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(job())
        await asyncio.sleep(0)
        task.cancel()
    assert steps == ["gave up waiting", "killed"]
    assert task.cancelled()


async def test_a_cancellation_from_outside_stays_one() -> None:
    async def job() -> None:
        async with timeout(10):
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(job())
        await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()


async def test_nested_ones_do_not_take_each_others_place() -> None:
    async def wait(seconds: float) -> None:
        async with timeout(seconds):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        async with timeout(0.01):
            await wait(10)
    async with timeout(10):
        with pytest.raises(TimeoutError):
            await wait(0.01)
