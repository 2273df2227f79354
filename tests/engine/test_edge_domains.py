"""Custom domains through the real edge: where they lead, for whom, and when they end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import pytest

from atoll.base.aio import poll
from atoll.domain.account import Account
from atoll.domain.web import TOKEN_COOKIE
from framework.edge import Answer, Edge, running_edge, upstream
from framework.published import published

pytestmark = pytest.mark.timeout(120)
SHOP, WEB = "shop.example.net", "127.0.1.1"


@pytest.fixture(name="edge")
async def _edge() -> AsyncIterator[Edge]:
    async with running_edge() as edge, upstream("web", WEB), upstream("high", WEB, 23001):
        yield edge


async def test_a_domain_stands_for_its_vm(edge: Edge) -> None:
    ann: Account = await edge.account("ann@example.com")
    edge.cloud.put(published("web", WEB, {ann.id}))
    url = f"https://{SHOP}:{edge.port}/x"

    async def ask(*arguments: str) -> Answer:
        return await edge.curl(url, "-k", *arguments)

    async def answers(status: int) -> None:
        async def check() -> bool | None:
            return ((await ask()).status == status) or None

        await poll(check, seconds=15, what=f"{SHOP} answering {status}")

    assert (await ask()).status == 421
    edge.domains[SHOP] = "web"
    edge.cloud.changes.bump()
    await answers(401)
    page = await edge.page(url, "-k")
    assert page.status == 302
    assert parse_qs(urlsplit(page.headers["location"]).query)["to"] == [url]
    plain = await edge.curl(f"http://{SHOP}:{edge.config.https.http_port}/x")
    assert (plain.status, plain.headers["location"]) == (308, url)

    session = await edge.sessions.new_session(ann.id)
    for host, status in ((SHOP, 200), (edge.host("web"), 401)):  # a token is for one host
        token = edge.sessions.mint(host=host, account=ann, session_id=session)
        answer = await ask("-H", f"Cookie: {TOKEN_COOKIE}={token}")
        assert answer.status == status

    await edge.kill_haproxy()
    await edge.start_haproxy()

    async def back() -> bool | None:
        try:
            return ((await ask()).status == 401) or None
        except Exception:  # noqa: BLE001  curl fails until HAProxy listens
            return None

    await poll(back, seconds=30, what="HAProxy coming back")
    del edge.domains[SHOP]
    edge.cloud.changes.bump()
    await answers(421)
