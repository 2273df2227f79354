"""The engine's side of the RPC: checks who calls, what they ask and for how long.

Frames are one JSON object per line. A caller whose uid is not allowed is cut off before a byte is
read. A bad frame gets an error answer; a line over the limit ends the connection.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from atoll.base import log, peer
from atoll.base.aio import TaskGroup, deadline, shielded
from atoll.base.errors import AtollError, Internal, Invalid
from atoll.rpc.messages import METHODS, REQUEST_BYTES, Empty, Event, Message, Subscribe

IN_FLIGHT = 256  # per connection; more wait in the socket
EVENTS_QUEUED = 1000  # a subscriber that falls this far behind is cut off

HANG_UP_S = 5.0  # for handlers to undo what they began

Handler = Callable[[Message], Awaitable[Message]]
_log = log.get("rpc")


class RpcServer:
    """Serves `handler` on a unix socket to the uids in `allowed`."""

    def __init__(self, *, path: Path, handler: Handler, allowed: Collection[int]) -> None:
        self._path = path
        self._handler = handler
        self._allowed = frozenset(allowed)
        self._subscribers: dict[asyncio.Queue[Event], asyncio.StreamWriter] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def publish(self, event: Event) -> None:
        """Queue `event` for every subscriber; one that does not read is cut off, to ask anew."""
        for queue, writer in list(self._subscribers.items()):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                del self._subscribers[queue]
                writer.transport.abort()  # ends its task, which may be waiting for it to read

    @asynccontextmanager
    async def serving(self, *, group: int | None = None) -> AsyncIterator[None]:
        """Listen while the body runs. `group` (a gid) may connect besides root."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(
            self._accept, self._path, limit=REQUEST_BYTES, backlog=128
        )
        os.chmod(self._path, 0o660 if group is not None else 0o600)
        if group is not None:
            os.chown(self._path, 0, group)
        try:
            yield
        finally:
            server.close()
            self._path.unlink(missing_ok=True)
            await shielded(self._hang_up(), seconds=2 * HANG_UP_S)

    async def _hang_up(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=HANG_UP_S)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uid = peer.uid_of(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if uid not in self._allowed:
                _log.warning("rpc caller refused", uid=uid)
                return
            await self._converse(reader, writer)
        except OSError as error:
            _log.info("rpc connection ended", reason=str(error))
        except asyncio.CancelledError:
            return
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until the peer closes or breaks the rules; what it asked for is answered before this ends."""
        slots = asyncio.Semaphore(IN_FLIGHT)
        async with TaskGroup() as group:
            streams: list[asyncio.Task[None]] = []
            while line := await _line(reader):
                await slots.acquire()
                if _is_subscribe(line):
                    streams.append(group.create_task(self._subscribe(line, writer, slots)))
                else:
                    group.create_task(self._answer(line, writer, slots))
            for stream in streams:
                stream.cancel()  # nobody listens any more

    async def _subscribe(
        self, line: bytes, writer: asyncio.StreamWriter, slots: asyncio.Semaphore
    ) -> None:
        try:
            number, _, _ = _parse(line)
            await self._stream(writer, number)
        except AtollError as error:
            _send(writer, {"id": _number(line), "error": error.to_wire()})
        except OSError:
            return
        finally:
            slots.release()

    async def _answer(
        self, line: bytes, writer: asyncio.StreamWriter, slots: asyncio.Semaphore
    ) -> None:
        try:
            number, request, seconds = _parse(line)
            reply = {"id": number, **await self._run(request, seconds)}
            _send(writer, reply)
            await writer.drain()
        except AtollError as error:
            _send(writer, {"id": _number(line), "error": error.to_wire()})
        except OSError:
            return  # the caller left; its operation is journalled and goes on or is undone
        finally:
            slots.release()

    async def _run(self, request: Message, seconds: float) -> dict[str, Any]:
        try:
            async with deadline(seconds, type(request).__name__.lower()):
                answer = await self._handler(request)
            return {"result": answer.model_dump(mode="json", exclude_defaults=True)}
        except AtollError as error:
            return {"error": error.to_wire()}
        except Exception as error:  # noqa: BLE001  the border: a defect becomes an answer, and a log line
            _log.exception("rpc handler failed", request=type(request).__name__)
            return {"error": Internal(f"{type(error).__name__}: {error}").to_wire()}

    async def _stream(self, writer: asyncio.StreamWriter, number: int) -> None:
        queue: asyncio.Queue[Event] = asyncio.Queue(EVENTS_QUEUED)
        self._subscribers[queue] = writer
        try:
            _send(writer, {"id": number, "result": Empty().model_dump()})
            while queue in self._subscribers:
                event = await queue.get()
                _send(writer, {"event": event.model_dump(mode="json", exclude_defaults=True)})
                await writer.drain()
        finally:
            self._subscribers.pop(queue, None)


async def _line(reader: asyncio.StreamReader) -> bytes:
    """The next line; empty at the end, and where a peer that sends too long a line is cut off."""
    try:
        return await reader.readline()
    except (OSError, ValueError) as error:
        _log.info("rpc connection broken off", reason=str(error))
        return b""


_MALFORMED = (ValueError, KeyError, TypeError, ArithmeticError, RecursionError)


def _is_subscribe(line: bytes) -> bool:
    try:
        return bool(METHODS[json.loads(line)["method"]] is Subscribe)
    except _MALFORMED:
        return False


def _parse(line: bytes) -> tuple[int, Message, float]:
    try:
        frame = json.loads(line)
        number, method, seconds = int(frame["id"]), frame["method"], float(frame["seconds"])
        kind = METHODS[method]
    except _MALFORMED as error:
        raise Invalid(f"not a request: {str(error)[:200]}") from error
    if not 0 < seconds <= 3600:
        raise Invalid(f"a deadline of {seconds:g} s is not within 0 to 3600")
    try:
        return number, kind.model_validate(frame.get("params", {})), seconds
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Invalid(f"{method}: {where}: {first['msg']}") from error


def _number(line: bytes) -> int:
    try:
        return int(json.loads(line)["id"])
    except _MALFORMED:
        return -1


def _send(writer: asyncio.StreamWriter, frame: dict[str, Any]) -> None:
    writer.write(json.dumps(frame, separators=(",", ":")).encode() + b"\n")
