"""The API of a whole control behind a socket, in a thread of its own: for clients that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

from atoll.base.aio import TaskGroup
from atoll.base.limits import Limits
from atoll.domain.account import Route
from atoll.doors.api.run import Item
from atoll.doors.front.serve import serve
from fakes.engine import FakeEngine
from framework.api import door
from framework.clients import free_port, listening
from framework.cloud import Control, control

START_S = 30.0


@dataclass(frozen=True, slots=True)
class Served:
    """Where it is, and a token of ann's that may do everything; the control lives in its thread."""

    url: str
    token: str
    control: Control

    @property
    def listening(self) -> int:
        """How many commands that go on have a reader."""
        return len(self.control.language._audience)


class Echo:
    """A VM that says what it was asked to run, and runs nothing."""

    async def run_in_vm(self, route: Route, command: str) -> AsyncGenerator[Item, None]:
        """See VmRunner."""
        yield "stdout", command.encode(errors="replace")
        yield 0


@contextmanager
def served_api(folder: Path) -> Iterator[Served]:
    """Serve while the body runs; calls are not limited."""
    ready: Queue[Served] = Queue()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(
        target=loop.run_until_complete, args=[_serve(folder, ready, stop)], name="served-api"
    )
    thread.start()
    try:
        yield ready.get(timeout=START_S)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(START_S)
        assert not thread.is_alive(), "the API does not stop"
        loop.close()


async def _serve(folder: Path, ready: Queue[Served], stop: asyncio.Event) -> None:
    engine, port = FakeEngine(folder / "engine.sock"), free_port()
    limits = Limits(per_second=1e9, burst=1e9, monotonic=lambda: 0.0)
    async with (
        engine.serving(),
        control(folder / "control", engine, loops=True) as cloud,
        door(cloud, folder, runner=Echo(), limits=limits) as api,
        TaskGroup() as group,
    ):
        task = group.create_task(serve(api.app, port=port))
        await listening(port, seconds=START_S)
        ready.put(Served(f"http://127.0.0.1:{port}", api.token, cloud))
        await stop.wait()
        task.cancel()
