"""Custom domains through the real edge: where they lead, for whom, and when they end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import Error

from atoll.base.aio import poll
from atoll.domain.account import Account
from atoll.domain.web import SESSION_COOKIE, TOKEN_COOKIE
from framework.browser import chromium
from framework.edge import Answer, Edge, running_edge, upstream
from framework.published import published
from framework.tls import own_certificate

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


async def test_a_browser_signs_in_there(edge: Edge, tmp_path: Path) -> None:
    """Its cookie of the cloud is no use at a domain of somebody's own: a code is handed over."""
    ann: Account = await edge.account("ann@example.com")
    edge.cloud.put(published("web", WEB, {ann.id}))
    authority, _ = own_certificate(tmp_path, SHOP)
    edge.shelf.keep(SHOP, (tmp_path / "own.pem").read_bytes())
    edge.domains[SHOP] = "web"
    edge.cloud.changes.bump()
    await edge.agreed()
    wanted = f"https://{SHOP}:{edge.port}/deep?x=1"
    trust = {"authority": edge.keys / "ca.pem", "domain_authority": authority}
    async with (
        chromium(tmp_path / "home", domain=SHOP, **trust) as browser,
        await browser.new_context() as context,
    ):
        page = await context.new_page()

        async def asked() -> bool | None:
            try:
                await page.goto(wanted)
            except Error:  # the certificate is not loaded yet
                return None
            return page.url.startswith(edge.url("", "/login")) or None

        await poll(asked, seconds=15, what="the sign-in page")
        code = await edge.sessions.login_code(ann.id)
        await page.goto(edge.url("", f"/login/{code}"))
        await page.wait_for_url(wanted)
        assert "GET /deep?x=1 HTTP/1.1" in await page.inner_text("body")
        kept = {cookie["name"]: cookie for cookie in await context.cookies(wanted)}
        assert SESSION_COOKIE not in kept
        assert kept[TOKEN_COOKIE]["domain"] == SHOP
        edge.cloud.change("web", openings=frozenset())
        await edge.agreed()
        refused = await page.goto(wanted)
        assert refused is not None
        assert refused.status == 403
