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
from typing import Any, TypeVar

from pydantic import ValidationError

from atoll.base.aio import deadline
from atoll.base.errors import Internal, Invalid, Unavailable, from_wire
from atoll.rpc.messages import (
    ANSWER_BYTES,
    NAMES,
    REQUEST_BYTES,
    REQUESTS,
    Event,
    Message,
    Subscribe,
)

CLOSE_S = 5.0
R = TypeVar("R", bound=Message)


class EngineClient:
    """Typed calls over the engine's unix socket."""

    def __init__(self, *, socket: Path) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._link: _Link | None = None
        self._connecting = asyncio.Lock()

    async def call(self, request: Message, answer: type[R], *, seconds: float) -> R:
        """Send `request` and return its checked answer.

        Raises the engine's own error, Unavailable when it does not answer within `seconds`, or
        Invalid when the request is too large to send.
        """
        assert REQUESTS[type(request)] is answer, "the answer type must fit the request"
        method = NAMES[type(request)]
        number = next(self._ids)
        frame = _frame(number, method, request, seconds)
        if len(frame) > REQUEST_BYTES:  # the engine would hang up on everybody's requests
            raise Invalid(f"engine: {method} of {len(frame)} bytes is over {REQUEST_BYTES}")
        async with deadline(seconds, f"engine: {method}", hint="Try: atoll doctor"):
            result = await (await self._connected()).ask(number, frame)
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
        except (OSError, ValueError, TypeError) as error:
            raise Unavailable("the engine's events broke off") from error
        finally:
            writer.close()
        raise Unavailable("the engine closed its events")

    async def close(self) -> None:
        """Drop the connection; requests in flight fail with Unavailable."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _connected(self) -> _Link:
        async with self._connecting:
            if self._link is None or self._link.is_over:
                self._link = _Link(*await self._open())
            return self._link

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await asyncio.open_unix_connection(self._socket, limit=ANSWER_BYTES)
        except OSError as error:
            raise Unavailable(
                f"the engine does not listen on {self._socket}: {error.strerror}",
                hint="Try: atoll doctor",
            ) from error


class _Link:
    """One connection and the requests in flight on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._waiting: dict[int, asyncio.Future[object]] = {}
        # Owned here: `close` or the end of the stream ends it.
        self._reading = asyncio.get_running_loop().create_task(self._read(reader))

    @property
    def is_over(self) -> bool:
        return self._writer.is_closing() or self._reading.done()

    async def ask(self, number: int, frame: bytes) -> object:
        """The result for `number`. Raises the engine's error, or Unavailable."""
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._writer.write(frame)
            await self._writer.drain()
            return await future
        except OSError as error:
            raise Unavailable("the engine went away", hint="Try: atoll doctor") from error
        finally:
            del self._waiting[number]
            if not future.cancel() and not future.cancelled():
                future.exception()  # seen, though somebody may have given up on it

    async def close(self) -> None:
        """Fail what is in flight and wait until the reader has ended."""
        self._reading.cancel()
        await asyncio.wait([self._reading], timeout=CLOSE_S)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        failure = Unavailable("the engine went away", hint="Try: atoll doctor")
        try:
            while line := await reader.readline():
                self._settle(json.loads(line))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            failure = Unavailable(f"the engine's answer broke off: {error}")
        finally:
            self._writer.close()
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(failure)

    def _settle(self, frame: dict[str, Any]) -> None:
        future = self._waiting.get(frame.get("id", -1))
        if future is None or future.done():
            return  # given up meanwhile
        if "error" in frame:
            future.set_exception(from_wire(frame["error"]))
        else:
            future.set_result(frame.get("result"))


def _frame(number: int, method: str, request: Message, seconds: float) -> bytes:
    body = {
        "id": number,
        "method": method,
        "seconds": seconds,
        "params": request.model_dump(mode="json", exclude_defaults=True),
    }
    return json.dumps(body, separators=(",", ":")).encode() + b"\n"
