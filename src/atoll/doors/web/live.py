"""Server-sent events: a page hears when what it shows is no longer what is.

Invariant: a connection that was lost and comes back misses nothing. Every event's id is the digest of
what it made the page show, which a browser sends again; the first is in the page (`?seen=`).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse

from atoll.base.aio import unless
from atoll.base.errors import AtollError, Exhausted, Unavailable
from atoll.base.timeout import timeout
from atoll.domain.account import Caller
from atoll.doors.web.visitor import SignInFirst, Visitors

T = TypeVar("T")
QUIET_S = 15.0  # then something is sent, so that nobody on the way takes the stream for dead
GATHER_S = 0.4  # changes come in swarms; so long they are gathered
STREAMS = 500  # of all people together; each holds a connection and what it last showed
OWN = 50  # of one account


class Waiting(Protocol):
    """What is needed of atoll.services.changes.Changes."""

    version: int

    async def wait_beyond(self, version: int) -> int:
        """The version once it is greater."""
        ...


class Live:
    """Streams for pages. They end when the session does, and when control stops."""

    def __init__(self, *, visitors: Visitors, changes: Waiting) -> None:
        self._visitors = visitors
        self._changes = changes
        self._closing = asyncio.Event()
        self._open: Counter[str] = Counter()  # by account

    async def run(self) -> None:
        """Until cancelled: then all streams end, or the server would wait for them."""
        try:
            await asyncio.Event().wait()
        finally:
            self._closing.set()

    async def stream(
        self,
        request: Request,
        read: Callable[[Caller], Awaitable[T]],
        news: Callable[[T | None, T], str],
    ) -> StreamingResponse:
        """Read now and after every change; send what `news` makes of the last and the new state.

        The last is None when it is not known what the page shows. Raises Exhausted or Unavailable
        when there are too many; who is not signed in is told by the event `end`, for pages cannot
        see a status.
        """
        account = await self._account(request)
        if self._open[account] >= OWN:
            raise Exhausted(f"{OWN} pages of yours are kept up to date", hint="Close some of them")
        if self._open.total() >= STREAMS:
            raise Unavailable(
                f"{STREAMS} pages are kept up to date already", hint="Reload it later"
            )
        sent = self._sent(account, request, read, news)
        return StreamingResponse(sent, media_type="text/event-stream")

    async def _account(self, request: Request) -> str:
        """Whose stream it will be; empty when the stream will say that this is not known."""
        try:
            return (await self._visitors.caller(request)).account.id
        except AtollError:
            return ""

    async def _sent(
        self,
        account: str,
        request: Request,
        read: Callable[[Caller], Awaitable[T]],
        news: Callable[[T | None, T], str],
    ) -> AsyncIterator[str]:
        self._open[account] += 1
        seen = request.headers.get("last-event-id") or request.query_params.get("seen", "")
        try:
            shown: T | None = None
            while True:
                version = self._changes.version
                try:
                    state = await read(await self._visitors.caller(request))
                    now = digest(state)
                    yield (
                        _event("message", news(shown, state), now) if now != seen else ": quiet\n\n"
                    )
                    seen, shown = now, state
                except SignInFirst:
                    yield _event("end", "signed out")
                    return
                except AtollError:  # the store or the engine is away: the page stays as it is
                    yield ": away\n\n"
                if await self._is_over(version):
                    return
        finally:
            self._open -= Counter({account: 1})  # forgets accounts without any

    async def _is_over(self, version: int) -> bool:
        """Wait for a change, or for so long that something is to be sent; True when we stop."""
        try:
            async with timeout(QUIET_S):
                await unless(self._changes.wait_beyond(version), self._stopping())
                await unless(asyncio.sleep(GATHER_S), self._stopping())
        except TimeoutError:
            return False
        except _Closing:
            return True
        return False

    async def _stopping(self) -> None:
        await self._closing.wait()
        raise _Closing


class _Closing(Exception):
    """Control stops."""


def digest(state: Any) -> str:
    """A name for what can be written as JSON."""
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]


def _event(name: str, text: str, id_: str = "") -> str:
    data = "".join(f"data: {line}\n" for line in text.splitlines())
    return f"event: {name}\n{data}" + (f"id: {id_}\n\n" if id_ else "\n")
