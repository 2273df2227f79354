"""The WebSocket of one page and one terminal: who may attach, then bytes both ways.

A page of another site may open a WebSocket here and the browser would send our cookie along, so the
origin is compared as a whole before anything else. What a page must know to go on (signed out, gone,
ended) it is told after the handshake: before it, browsers keep the reason from their pages.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from atoll.base import log
from atoll.base.aio import together
from atoll.base.errors import AtollError, Invalid
from atoll.base.timeout import timeout
from atoll.domain.web import Names
from atoll.doors.web.terminal import wire
from atoll.doors.web.terminal.client import Client
from atoll.doors.web.terminal.pool import Terminals
from atoll.doors.web.terminal.terminal import Terminal
from atoll.doors.web.visitor import Signed, Visitors

# Close codes, as terminal.js knows them. 1xxx and others: come back.
OVER: Final = 4000  # the terminal has ended
AGAIN: Final = 4001  # this page is too far behind; come back when it is looked at
SIGNED_OUT: Final = 4003
GONE: Final = 4004
WRONG: Final = 4008  # said something that no page of ours says
# What a program writes comes in pieces of some hundred bytes: a frame and an acknowledgement for each
# cost more than the bytes. Whoever types sees no delay: nothing was sent just before.
GATHER_S: Final = 0.004
HELLO_S: Final = 10.0
STALLED_S: Final = 30.0  # a page that shows nothing for so long must not hold the others up

_log = log.get("terminals")


class Left(Exception):
    """The page must leave, or has left; `code` 0: it has."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Sockets:
    """Serves them."""

    def __init__(self, *, names: Names, visitors: Visitors, terminals: Terminals) -> None:
        self._origin = names.url(names.domain, "")
        self._visitors = visitors
        self._terminals = terminals

    async def serve(self, socket: WebSocket) -> None:
        """One page, until it leaves."""
        if socket.headers.get("origin") != self._origin:
            await socket.close(1008)  # not accepted: 403
            return
        await socket.accept()
        try:
            await self._attached(socket)
        except Left as left:
            if left.code:
                await _close(socket, left.code, left.reason)
        except AtollError as error:
            await _close(socket, WRONG if isinstance(error, Invalid) else GONE, error.message)
        except (WebSocketDisconnect, OSError):  # it left while it was told something
            return
        except Exception:  # noqa: BLE001  the border: a defect ends one page's connection
            _log.exception("terminal's page failed")
            await _close(socket, 1011, "a defect of Atoll; its log has details")

    async def _attached(self, socket: WebSocket) -> None:
        session = await self._session(socket)
        terminal = self._terminals.find(session.account, socket.path_params["id"])
        hello = await _hello(socket)
        await self._session(socket)  # the pool ends who is attached, and it was not until now
        client = Client(session.id)
        terminal.attach(client, hello.have, hello.size)
        try:
            await together(_listen(socket, terminal, client), _tell(socket, terminal, client))
        finally:
            terminal.detach(client, self._terminals.now())

    async def _session(self, socket: WebSocket) -> Signed:
        session = await self._visitors.session(socket)
        if session is None:
            raise Left(SIGNED_OUT, "You have signed out.")
        return session


async def _hello(socket: WebSocket) -> wire.Hello:
    try:
        async with timeout(HELLO_S):
            frame = await _receive(socket)
    except TimeoutError as error:
        raise Left(WRONG, "no hello") from error
    said = wire.read(frame) if isinstance(frame, str) else None
    if not isinstance(said, wire.Hello):
        raise Left(WRONG, "no hello")
    return said


async def _listen(socket: WebSocket, terminal: Terminal, client: Client) -> None:
    """Take what the page says. Raises Left when it leaves, Invalid for what no page of ours says."""
    while True:
        frame = await _receive(socket)
        if isinstance(frame, bytes):
            if not terminal.type(client, frame):
                raise Invalid("typed further ahead than was agreed")
            continue
        match wire.read(frame):
            case wire.Resize(size=size):
                terminal.resize(client, size)
            case wire.Ack(offset=offset):
                if not terminal.shown(client, offset):
                    raise Invalid("an offset that was not sent")
            case wire.Hello():
                raise Invalid("a second hello")


async def _tell(socket: WebSocket, terminal: Terminal, client: Client) -> None:
    """Send what is new, as far as the page keeps up. Raises Left at the end of it."""
    loop = asyncio.get_running_loop()
    gathering = 0.0  # until when little is not worth a frame
    while True:
        client.news.clear()
        for note in client.notes():
            await socket.send_text(note)
        if client.gone:
            raise Left(SIGNED_OUT, client.gone)
        if not terminal.ring.holds(client.sent):  # more came at once than is held: begin anew
            terminal.begin(client)
            continue
        most = min(wire.FRAME, wire.WINDOW - client.owed)
        if most > 0 and (chunk := terminal.ring.read(client.sent, most)):
            if len(chunk) < most and (early := gathering - loop.time()) > 0:
                await asyncio.sleep(early)
                continue
            client.sent += len(chunk)
            await socket.send_bytes(chunk)
            gathering = loop.time() + GATHER_S
        elif terminal.is_over and client.sent == terminal.ring.end:
            await socket.send_text(wire.say("over", terminal.over))
            raise Left(OVER, "over")
        elif not client.news.is_set():
            await _news(client)


async def _news(client: Client) -> None:
    """Wait for something to tell; a page that owes a whole window must show something meanwhile."""
    try:
        async with timeout(STALLED_S if client.owed >= wire.WINDOW else None):
            await client.news.wait()
    except TimeoutError as error:
        raise Left(AGAIN, "too far behind") from error


async def _receive(socket: WebSocket) -> str | bytes:
    """The next frame; raises Left when the page has left."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise Left(0, "left")
    text = message.get("text")
    return text if text is not None else message.get("bytes") or b""


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    with suppress(RuntimeError, WebSocketDisconnect, OSError):  # it has left meanwhile
        await socket.close(code, reason.encode()[:120].decode(errors="ignore"))
