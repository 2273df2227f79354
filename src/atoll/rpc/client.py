"""Control's side of the engine RPC: one connection, many requests at once, an event stream.

A lost connection fails every request in flight with Unavailable (their outcome is unknown; asking
again with the same op is safe) and the next call connects anew.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from atoll.base.aio import deadline
from atoll.base.errors import AtollError, Internal, Unavailable, from_wire
from atoll.rpc.messages import NAMES, REQUESTS, Event, Message, Subscribe

FRAME_LIMIT = 4 << 20  # 500 VMs in one list answer take about 250 kB
R = TypeVar("R", bound=Message)


class EngineClient:
    """Typed calls over the engine's unix socket."""

    def __init__(self, *, socket: Path) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[object]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reader_task: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()

    async def call(self, request: Message, answer: type[R], *, seconds: float) -> R:
        """Send `request` and return its checked answer.

        Raises the engine's own error, or Unavailable when it does not answer within `seconds`.
        """
        assert REQUESTS[type(request)] is answer, "the answer type must fit the request"
        method = NAMES[type(request)]
        async with deadline(seconds, f"engine: {method}", hint="Try: atoll doctor"):
            writer = await self._connected()
            number = next(self._ids)
            future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            self._waiting[number] = future
            try:
                writer.write(_frame(number, method, request, seconds))
                await writer.drain()
                result = await future
            except OSError as error:
                raise Unavailable("the engine went away", hint="Try: atoll doctor") from error
            finally:
                self._waiting.pop(number, None)
        try:
            return answer.model_validate(result)
        except ValidationError as error:
            raise Internal(f"engine: {method} answered something else: {error}") from error

    async def events(self) -> AsyncIterator[Event]:
        """Events from now on, over a connection of their own; ends with Unavailable when it is lost."""
        reader, writer = await self._open()
        try:
            writer.write(_frame(0, NAMES[Subscribe], Subscribe(), 10))
            await writer.drain()
            while line := await reader.readline():
                frame = json.loads(line)
                if "event" in frame:
                    yield Event.model_validate(frame["event"])
        except (OSError, ValueError) as error:
            raise Unavailable("the engine's events broke off") from error
        finally:
            writer.close()
        raise Unavailable("the engine closed its events")

    async def close(self) -> None:
        """Drop the connection; requests in flight fail with Unavailable."""
        if self._reader_task is not None:
            self._reader_task.cancel()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def _connected(self) -> asyncio.StreamWriter:
        async with self._connecting:
            if self._writer is None or self._writer.is_closing():
                reader, self._writer = await self._open()
                # The client owns this task: close() or the end of the stream ends it.
                self._reader_task = asyncio.get_running_loop().create_task(
                    self._read(reader, self._writer)
                )
            return self._writer

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await asyncio.open_unix_connection(self._socket, limit=FRAME_LIMIT)
        except OSError as error:
            raise Unavailable(
                f"the engine does not listen on {self._socket}: {error.strerror}",
                hint="Try: atoll doctor",
            ) from error

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        failure: AtollError = Unavailable("the engine went away", hint="Try: atoll doctor")
        try:
            while line := await reader.readline():
                frame = json.loads(line)
                future = self._waiting.get(frame.get("id", -1))
                if future is None or future.done():
                    continue
                if "error" in frame:
                    future.set_exception(from_wire(frame["error"]))
                else:
                    future.set_result(frame.get("result"))
        except (OSError, ValueError) as error:
            failure = Unavailable(f"the engine's answer broke off: {error}")
        finally:
            writer.close()
            if self._writer is writer:
                self._writer = None
            for future in list(self._waiting.values()):
                if not future.done():
                    future.set_exception(failure)


def _frame(number: int, method: str, request: Message, seconds: float) -> bytes:
    body = {
        "id": number,
        "method": method,
        "seconds": seconds,
        "params": request.model_dump(mode="json"),
    }
    return json.dumps(body, separators=(",", ":")).encode() + b"\n"
