"""`ssh <vm> <cmd>` over HTTP: a command's output as one body, or as lines of JSON while it runs.

Replies that go on (`--follow`, `--watch`) are sent as such lines too.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Literal, Protocol, TypeAlias

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from atoll.base.aio import TaskGroup, unless
from atoll.base.errors import AtollError, Exhausted, Unavailable
from atoll.commands.reply import Reply
from atoll.domain.account import Route
from atoll.doors.api.running import Entered, ended

OUTPUT_BYTES = 8 << 20  # of the plain form, which is held until the exit code is known
HEARTBEAT_S = 30.0

# A piece of output, or the exit code, which is last.
Item: TypeAlias = tuple[Literal["stdout", "stderr"], bytes] | int


class VmRunner(Protocol):
    """Runs commands in VMs."""

    def run_in_vm(self, route: Route, command: str) -> AsyncGenerator[Item, None]:
        """Output as it comes, then the exit code. Closing it early ends the command.

        Raises AtollError when the VM does not answer.
        """
        ...


async def collect(items: AsyncGenerator[Item, None]) -> tuple[bytes, int]:
    """Combined output and exit code. Raises Exhausted beyond OUTPUT_BYTES, and ends the command."""
    output, code = bytearray(), 255
    async with aclosing(items):
        async for item in items:
            if isinstance(item, int):
                code = item
                continue
            output += item[1]
            if len(output) > OUTPUT_BYTES:
                raise Exhausted(
                    f"the command printed over {OUTPUT_BYTES >> 20} MiB",
                    hint="Try: Accept: application/x-ndjson, which has no limit",
                )
    return bytes(output), code


async def left(receive: Receive) -> None:
    """Wait for the client to go away. Raises Unavailable then: nobody reads what it says."""
    await _gone(receive)
    raise Unavailable("the client left before the command ended")


async def output_lines(
    items: AsyncGenerator[Item, None],
) -> AsyncGenerator[Mapping[str, Any], None]:
    """`{"stdout": base64}`, `{"stderr": base64}`, at last `{"exit_code": n}`."""
    async with aclosing(items):
        async for item in items:
            yield _wire(item)


async def reply_lines(reply: Reply) -> AsyncGenerator[Mapping[str, Any], None]:
    """The data of a reply that goes on, and of each piece."""
    assert reply.more is not None
    async with aclosing(reply.more):
        yield reply.data
        async for piece in reply.more:
            yield piece.data


class Lines(Response):
    """NDJSON: an object per line, and `{"error": text}` when they break off.

    An empty line every HEARTBEAT_S seconds keeps the connection. A client that goes away ends the
    command; a key that is removed does so too, and that is said. There is no time limit. The next
    object is asked for when the last has been sent, so a slow client holds up the command.
    """

    media_type = "application/x-ndjson"

    def __init__(self, objects: AsyncGenerator[Mapping[str, Any], None], entered: Entered) -> None:
        super().__init__(headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self._objects = objects
        self._entered = entered
        self._turn = asyncio.Lock()  # the beat must not cut into a line

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the command ends or the client is gone."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with TaskGroup() as group:
            jobs = [
                group.create_task(self._relay(send)),
                group.create_task(self._beat(send)),
                group.create_task(_gone(receive)),
            ]
            await asyncio.wait([jobs[0], jobs[2]], return_when=asyncio.FIRST_COMPLETED)
            for job in jobs:
                job.cancel()
        if not jobs[0].cancelled():
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _relay(self, send: Send) -> None:
        try:
            with self._entered() as must_end:
                if must_end.is_set():  # while the line was on its way
                    await ended(must_end)
                await unless(self._send_all(send), ended(must_end))
        except AtollError as error:
            await self._line(send, {"error": str(error)})  # its only key, as clients expect

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._objects) as objects:
            async for value in objects:
                await self._line(send, value)

    async def _beat(self, send: Send) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            await self._line(send, None)

    async def _line(self, send: Send, value: Mapping[str, Any] | None) -> None:
        text = b"" if value is None else json.dumps(value).encode()
        async with self._turn:
            await send({"type": "http.response.body", "body": text + b"\n", "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _wire(item: Item) -> dict[str, object]:
    if isinstance(item, int):
        return {"exit_code": item}
    stream, data = item
    return {stream: base64.b64encode(data).decode()}
