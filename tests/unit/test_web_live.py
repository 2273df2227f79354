"""Streams: what a page shows has a name, and a connection that comes back misses nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.requests import HTTPConnection, Request

from atoll.base.errors import Exhausted
from atoll.domain.account import Account, Caller, Door
from atoll.doors.web.live import OWN, Live, digest
from atoll.doors.web.visitor import SignInFirst
from atoll.services.changes import Changes

ANN = Caller(account=Account(id="acct-1", email="ann@example.com"), door=Door.WEB)
BOB = Caller(account=Account(id="acct-2", email="bob@example.com"), door=Door.WEB)


class OneVisitor:
    """Ann, until she signs out."""

    def __init__(self) -> None:
        self.who = ANN
        self.is_signed_in = True

    async def caller(self, _request: HTTPConnection) -> Caller:
        if not self.is_signed_in:
            raise SignInFirst("nobody is signed in here")
        return self.who


class Page:
    """What one page shows, and its stream."""

    def __init__(self) -> None:
        self.state = {"web": "running"}
        self.changes = Changes()
        self.visitors = OneVisitor()
        self._live = Live(visitors=self.visitors, changes=self.changes)  # type: ignore[arg-type]

    async def stream(self, *, seen: str = "", last: str = "") -> AsyncIterator[str]:
        headers = [(b"last-event-id", last.encode())] if last else []
        scope = {"type": "http", "query_string": f"seen={seen}".encode(), "headers": headers}
        response = await self._live.stream(Request(scope), self._read, _news)
        return response.body_iterator  # type: ignore[return-value]

    def set(self, state: str) -> None:
        self.state = {"web": state}
        self.changes.bump()

    async def _read(self, _caller: Caller) -> dict[str, str]:
        return dict(self.state)


def _news(shown: Any, state: Any) -> str:
    return f"{shown} -> {state}"


@pytest.fixture(name="page")
def _page() -> Page:
    return Page()


async def test_what_the_page_shows_is_not_sent_again(page: Page) -> None:
    sent = await page.stream(seen=digest(page.state))
    assert await anext(sent) == ": quiet\n\n"
    page.set("paused")
    said = await anext(sent)
    assert "{'web': 'running'} -> {'web': 'paused'}" in said
    assert f"id: {digest({'web': 'paused'})}\n" in said


async def test_a_connection_that_comes_back_is_told_what_it_missed(page: Page) -> None:
    """Also when all is as it was when the page was loaded, which is not what it shows by now."""
    loaded, shown = digest(page.state), digest({"web": "paused"})
    sent = await page.stream(seen=loaded, last=shown)
    assert "None -> {'web': 'running'}" in await anext(sent)
    assert "None -> {'web': 'running'}" in await anext(await page.stream())
    assert await anext(await page.stream(seen=shown, last=loaded)) == ": quiet\n\n"


async def test_who_is_signed_out_is_told_so(page: Page) -> None:
    page.visitors.is_signed_in = False
    sent = await page.stream()
    assert [event async for event in sent] == ["event: end\ndata: signed out\n\n"]


async def test_one_person_leaves_streams_to_the_others(page: Page) -> None:
    streams = [await page.stream() for _ in range(OWN)]
    for sent in streams:
        await anext(sent)
    with pytest.raises(Exhausted, match=f"{OWN} pages of yours"):
        await page.stream()
    page.visitors.who = BOB
    await anext(await page.stream())
    page.visitors.who = ANN
    await streams[0].aclose()  # type: ignore[attr-defined]
    await anext(await page.stream())
