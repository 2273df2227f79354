"""What the user sees while something takes long: one line per step, its time, and signs of life."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TextIO, TypeVar

from atoll.base.aio import TaskGroup, together
from atoll.base.errors import AtollError
from atoll.base.timeout import timeout

T = TypeVar("T")
TERMINAL_EVERY_S = 1.0  # a terminal's line is rewritten
PIPE_EVERY_S = 15.0  # a file or a pipe gets a new line


class Progress:
    """Writes steps to a text stream; on a terminal a running step shows its seconds."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._detail = ""

    def say(self, text: str) -> None:
        """One line."""
        self._stream.write(text + "\n")
        self._stream.flush()

    def note(self, detail: str) -> None:
        """What the running step is at; shown with its next sign of life."""
        self._detail = detail

    async def step(self, text: str, job: Coroutine[Any, Any, T]) -> T:
        """Run `job` to its end and say how long it took; its failure is passed on."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        began, self._detail = loop.time(), ""

        async def work() -> T:
            try:
                return await job
            finally:
                done.set()

        async def show() -> None:
            every = TERMINAL_EVERY_S if self._terminal else PIPE_EVERY_S
            while not await _within(done, every):
                self._alive(text, loop.time() - began)

        result: T = (await together(work(), show()))[0]
        self._clear()
        self.say(f"  {text:<44} {loop.time() - began:7.1f} s")
        return result

    def _alive(self, text: str, seconds: float) -> None:
        detail = f" ({self._detail[:60]})" if self._detail else ""
        if self._terminal:
            self._clear()
            self._stream.write(f"  {text} … {seconds:.0f} s{detail}")
            self._stream.flush()
        else:
            self.say(f"  {text} … {seconds:.0f} s{detail}")

    def _clear(self) -> None:
        if self._terminal:
            self._stream.write("\r\x1b[K")


async def _within(event: asyncio.Event, seconds: float) -> bool:
    with suppress(TimeoutError):
        async with timeout(seconds):
            await event.wait()
    return event.is_set()


async def beside(
    job: Coroutine[Any, Any, T], companion: Callable[[], Coroutine[Any, Any, None]]
) -> T:
    """The result of `job`; `companion` runs until then and its AtollErrors do not matter."""

    async def aside() -> None:
        with suppress(AtollError):
            await companion()

    async def work(other: asyncio.Task[None]) -> T:
        try:
            return await job
        finally:
            other.cancel()

    try:
        async with TaskGroup() as group:
            main = group.create_task(work(group.create_task(aside())))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return main.result()
