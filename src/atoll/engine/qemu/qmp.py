"""QEMU's monitor: the library's client, wrapped with deadlines and our errors.

Invariant: no QMP answer is believed beyond its type; QEMU runs hostile guests.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from qemu.qmp import EventListener, ExecuteError, Message, QMPClient, QMPError

from atoll.base.aio import deadline
from atoll.base.errors import AtollError, Unavailable
from atoll.base.timeout import timeout


class QmpFailed(AtollError):
    """QEMU refused a command."""

    code, http, exit = "qmp-failed", 500, 70


class Qmp:
    """One monitor connection."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._client = QMPClient(path.parent.name)
        # Every listener keeps a history of what it accepts, for ever, and a guest can cause events
        # for ever: the client's own accepts nothing, and `events` takes what it wants by its filter.
        self._client.events.event_filter = _ignore

    async def connect(self, *, seconds: float) -> None:
        """Connect to the listening socket and negotiate. Raises Unavailable past `seconds`."""
        async with deadline(seconds, f"the monitor of {self._path.parent.name}"):
            try:
                await self._client.connect(str(self._path))
            except (QMPError, OSError) as error:
                raise Unavailable(f"no monitor at {self._path}: {error}") from error

    async def close(self) -> None:
        """Disconnect; QEMU goes on."""
        # The library raises here what ended its reader, and QEMU may send what no parser expects.
        with contextlib.suppress(Exception):
            async with timeout(2):
                await self._client.disconnect()

    async def execute(
        self, command: str, arguments: dict[str, Any] | None = None, *, seconds: float = 10
    ) -> Any:
        """Run `command`; returns its answer.

        Raises QmpFailed when QEMU refuses, Unavailable when it does not answer.
        """
        async with deadline(seconds, f"qmp {command} on {self._path.parent.name}"):
            try:
                return await self._client.execute(command, arguments)
            except ExecuteError as error:
                raise QmpFailed(f"qemu refused {command}: {error}") from error
            except (QMPError, OSError, EOFError) as error:
                raise Unavailable(f"qemu ended during {command}: {error}") from error

    async def pass_fd(self, name: str, fd: int) -> None:
        """Give QEMU a descriptor under `name` (for `fd:name`)."""
        await self._with_fd("getfd", {"fdname": name}, fd)

    async def add_fd(self, fdset: int, fd: int) -> None:
        """Add a descriptor to fd set number `fdset` (for /dev/fdset/N)."""
        await self._with_fd("add-fd", {"fdset-id": fdset}, fd)

    async def _with_fd(self, command: str, arguments: dict[str, Any], fd: int) -> None:
        try:
            self._client.send_fd_scm(fd)
        except (QMPError, OSError) as error:
            raise Unavailable(f"qemu ended during {command}: {error}") from error
        await self.execute(command, arguments)

    @contextlib.asynccontextmanager
    async def listening(self, *names: str) -> AsyncIterator[EventListener]:
        """Events of these names from now on, while the body runs."""
        with self._client.listener(names) as listener:
            yield listener

    async def events(self) -> AsyncIterator[Message]:
        """Every event, for ever; cancel it when the process has ended."""
        heard: asyncio.Queue[Message] = asyncio.Queue()

        def take(event: Message) -> bool:
            heard.put_nowait(event)
            return False

        with self._client.listener(event_filter=take):
            while True:
                yield await heard.get()


def _ignore(event: Message) -> bool:
    del event
    return False
