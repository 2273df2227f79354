"""Structured concurrency: the one place that starts tasks.

Invariant: every task has an owner that waits for it. A cancellation is never lost: CPython before
3.13 forgets an outside cancellation of a TaskGroup whose child fails at the same moment
(python/cpython gh-116720), so the group below passes it on.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from atoll.base.errors import Unavailable
from atoll.base.timeout import timeout

T = TypeVar("T")
_GIVE_UP_S = 5.0  # a job that will not be cancelled is left to itself after this

if sys.version_info >= (3, 13):
    TaskGroup = asyncio.TaskGroup
else:

    class TaskGroup(asyncio.TaskGroup):
        """asyncio.TaskGroup that passes on a cancellation from outside (gh-116720)."""

        _owed: int
        _parent_cancel_requested: bool  # asyncio's own field

        async def __aenter__(self) -> Self:
            self._owed = _current().cancelling()
            return await super().__aenter__()

        async def __aexit__(
            self,
            et: type[BaseException] | None,
            exc: BaseException | None,
            tb: TracebackType | None,
        ) -> None:
            settled = self._parent_cancel_requested
            try:
                await super().__aexit__(et, exc, tb)
            except BaseExceptionGroup:
                task = _current()
                if self._parent_cancel_requested and not settled:
                    task.uncancel()  # the group's own request, left on the count
                if task.cancelling() > self._owed:  # somebody else's is still due
                    task.uncancel()
                    task.cancel()
                raise


def _current() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def together(*jobs: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run all, return results in order; the first failure cancels the rest and is raised bare.

    A bare exception instead of a group keeps `except AtollError` working at the callers.
    """
    try:
        async with TaskGroup() as group:
            tasks = [group.create_task(job) for job in jobs]
    except BaseExceptionGroup as failures:
        raise _first_leaf(failures) from failures
    return [task.result() for task in tasks]


def _first_leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first_leaf(first) if isinstance(first, BaseExceptionGroup) else first


@asynccontextmanager
async def deadline(seconds: float, what: str, *, hint: str = "") -> AsyncIterator[None]:
    """Raise Unavailable naming `what` when the body takes longer than `seconds`."""
    try:
        async with timeout(seconds):
            yield
    except TimeoutError as error:
        raise Unavailable(f"{what} took over {seconds:g} s", hint=hint) from error


async def poll(
    check: Callable[[], Awaitable[T | None]], *, seconds: float, what: str, every: float = 0.05
) -> T:
    """Call `check` until it returns something other than None.

    Raises Unavailable after `seconds`.
    """
    async with deadline(seconds, what):
        while True:
            result = await check()
            if result is not None:
                return result
            await asyncio.sleep(every)


async def shielded(job: Coroutine[Any, Any, T], *, seconds: float) -> T:
    """Finish clean-up work although the caller is being cancelled, within a limit of its own.

    Raises TimeoutError past `seconds`. A cancellation that arrives meanwhile is raised afterwards,
    in place of whatever the job ended with.
    """
    task = asyncio.get_running_loop().create_task(job)  # owned here: it is awaited to its end below
    cancelled = await _ended(task, seconds)
    late = not task.done()
    if late:
        task.cancel()
        cancelled = await _ended(task, _GIVE_UP_S) or cancelled
    if task.done() and not task.cancelled():
        task.exception()  # seen, so that it is not reported as never retrieved
    if cancelled is not None:
        raise cancelled
    if late:
        raise TimeoutError
    return task.result()


async def _ended(task: asyncio.Task[Any], seconds: float) -> asyncio.CancelledError | None:
    """Wait for `task` at most `seconds`; the cancellation of us that arrived meanwhile, if any."""
    loop = asyncio.get_running_loop()
    end, cancelled = loop.time() + seconds, None
    while not task.done() and (left := end - loop.time()) > 0:
        try:
            await asyncio.wait([task], timeout=left)
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled


async def unless(job: Coroutine[Any, Any, T], trouble: Coroutine[Any, Any, None]) -> T:
    """The result of `job`, or at once what `trouble`, watching beside it, raises."""
    try:
        async with TaskGroup() as group:
            watcher = group.create_task(trouble)
            result = await job
            watcher.cancel()
    except BaseExceptionGroup as failures:
        raise _first_leaf(failures) from failures
    return result
