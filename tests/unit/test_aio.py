"""Nothing is lost when tasks are cancelled: clean-up ends, cancellations arrive, failures stay bare."""

from __future__ import annotations

import asyncio

import pytest

from atoll.base.aio import TaskGroup, deadline, shielded, together, unless
from atoll.base.errors import Conflict, Unavailable


async def _for_ever() -> None:
    await asyncio.Event().wait()


async def _fail() -> None:
    raise Conflict("no")


class TestShielded:
    async def test_it_returns_what_the_job_returns(self) -> None:
        async def job() -> int:
            return 7

        assert await shielded(job(), seconds=1) == 7

    async def test_it_raises_what_the_job_raises(self) -> None:
        with pytest.raises(Conflict):
            await shielded(_fail(), seconds=1)

    async def test_the_job_ends_though_its_caller_is_cancelled_twice(self) -> None:
        go, steps = asyncio.Event(), list[str]()

        async def job() -> None:
            await go.wait()
            steps.append("cleaned up")

        async def caller() -> None:
            await shielded(job(), seconds=10)
            steps.append("went on")

        async with TaskGroup() as group:
            task = group.create_task(caller())
            for _ in range(2):
                await asyncio.sleep(0)
                task.cancel()
            await asyncio.sleep(0)
            assert not task.done()
            go.set()
        assert task.cancelled()
        assert steps == ["cleaned up"]

    async def test_past_its_limit_the_job_is_cancelled(self) -> None:
        ended = list[bool]()

        async def job() -> None:
            try:
                await _for_ever()
            finally:
                ended.append(True)

        with pytest.raises(TimeoutError):
            await shielded(job(), seconds=0.01)
        assert ended == [True]

    async def test_a_cancellation_is_not_lost_when_the_limit_passes_as_well(self) -> None:
        async def caller() -> None:
            await shielded(_for_ever(), seconds=0.05)

        async with TaskGroup() as group:
            task = group.create_task(caller())
            await asyncio.sleep(0)
            task.cancel()
        assert task.cancelled()

    async def test_a_failure_in_the_clean_up_does_not_replace_the_cancellation(self) -> None:
        go = asyncio.Event()

        async def job() -> None:
            await go.wait()
            raise Conflict("no")

        async with TaskGroup() as group:
            task = group.create_task(shielded(job(), seconds=10))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.sleep(0)
            go.set()
        assert task.cancelled()

    async def test_it_works_in_the_clean_up_of_a_cancelled_task(self) -> None:
        steps = list[str]()

        async def undo() -> None:
            async with deadline(5, "undoing"):
                await asyncio.sleep(0.001)
            steps.append("undone")

        async def job() -> None:
            try:
                await _for_ever()
            except BaseException:
                await shielded(undo(), seconds=5)
                raise

        async with TaskGroup() as group:
            task = group.create_task(job())
            await asyncio.sleep(0)
            task.cancel()
        assert steps == ["undone"]
        assert task.cancelled()


class TestDeadline:
    async def test_it_names_what_took_too_long(self) -> None:
        with pytest.raises(Unavailable, match=r"^the test took over 0\.01 s\. Try: less$"):
            async with deadline(0.01, "the test", hint="Try: less"):
                await _for_ever()

    async def test_it_expires_in_the_clean_up_of_a_cancelled_task(self) -> None:
        steps = list[str]()

        async def job() -> None:
            try:
                await _for_ever()
            finally:
                try:
                    async with deadline(0.01, "clean-up"):
                        await _for_ever()
                except Unavailable:
                    steps.append("gave up")

        async with TaskGroup() as group:
            task = group.create_task(job())
            await asyncio.sleep(0)
            task.cancel()
        assert steps == ["gave up"]
        assert task.cancelled()

    async def test_a_cancellation_from_outside_stays_one(self) -> None:
        async def job() -> None:
            async with deadline(10, "the test"):
                await _for_ever()

        async with TaskGroup() as group:
            task = group.create_task(job())
            await asyncio.sleep(0)
            task.cancel()
        assert task.cancelled()


class TestTogether:
    async def test_results_come_in_order(self) -> None:
        async def after(turns: int, value: str) -> str:
            for _ in range(turns):
                await asyncio.sleep(0)
            return value

        assert await together(after(3, "a"), after(1, "b")) == ["a", "b"]

    async def test_the_first_failure_is_bare_and_ends_the_others(self) -> None:
        ended = list[bool]()

        async def other() -> None:
            try:
                await _for_ever()
            finally:
                ended.append(True)

        with pytest.raises(Conflict):
            await together(other(), _fail())
        assert ended == [True]

    async def test_a_cancellation_at_the_moment_of_a_failure_is_not_lost(self) -> None:
        """gh-116720: asyncio's group forgets it before 3.13."""
        go = asyncio.Event()

        async def fail() -> None:
            await go.wait()
            raise Conflict("no")

        async def caller() -> None:
            try:
                await together(fail(), _for_ever())
            except Conflict:
                await _for_ever()  # would hang, were the cancellation forgotten

        async with asyncio.timeout(5), TaskGroup() as group:
            task = group.create_task(caller())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            go.set()
            await asyncio.sleep(0)  # the failure is under way to the group
            task.cancel()
        assert task.cancelled()


class TestUnless:
    async def test_the_job_wins(self) -> None:
        async def job() -> int:
            return 7

        assert await unless(job(), _for_ever()) == 7

    async def test_trouble_ends_the_job(self) -> None:
        with pytest.raises(Conflict):
            await unless(_for_ever(), _fail())

    async def test_the_jobs_own_failure_is_bare(self) -> None:
        with pytest.raises(Conflict):
            await unless(_fail(), _for_ever())

    async def test_a_cancellation_from_outside_stays_one(self) -> None:
        async with TaskGroup() as group:
            task = group.create_task(unless(_for_ever(), _for_ever()))
            await asyncio.sleep(0)
            task.cancel()
        assert task.cancelled()
