"""A page inside a VM, opened with Chromium: refused, signed in, opened, published, taken back."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Error, Page, Response

from atoll.base.aio import poll
from framework.atoll import Atoll
from framework.browser import chromium
from framework.inner_server import serve

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]

VM, OTHER = "page", "neighbour"
TALK = """url => new Promise((done, failed) => {
    const said = [], socket = new WebSocket(url);
    socket.onopen = () => { socket.send('tide'); socket.send('x'.repeat(2000)); };
    socket.onmessage = event => { said.push(event.data); if (said.length == 2) done(said); };
    socket.onerror = () => failed(new Error('no socket'));
})"""
IDENTITY = {"x-atoll-email": "root@example.com", "x-atoll-user-id": "acct-root",
            "x_atoll_email": "root@example.com", "x-forwarded-for": "192.0.2.1"}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def browser(atoll: Atoll, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """Chromium, and two VMs that serve; the second one to everybody."""
    for name in (VM, OTHER):
        await atoll.ssh("new", "--name", name)
        await serve(atoll, name)
    await atoll.ssh("share", "set-public", OTHER)
    authority = atoll.config.control_state / "keys" / "ca.pem"
    async with chromium(tmp_path_factory.mktemp("home"), authority=authority) as running:
        yield running
    await atoll.ssh("rm", VM, OTHER)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def person(browser: Browser) -> AsyncIterator[BrowserContext]:
    """Somebody's browser, who signs in during the first test."""
    async with await browser.new_context() as context:
        yield context


@pytest_asyncio.fixture(loop_scope="session")
async def stranger(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A browser that has never been here."""
    async with await browser.new_context() as context:
        yield context


def url(atoll: Atoll, vm: str = VM, path: str = "/", scheme: str = "https") -> str:
    return atoll.url(vm, path, scheme=scheme)


async def opened(page: Page, where: str) -> Response:
    response = await page.goto(where)
    assert response is not None
    return response


async def headers_at_vm(page: Page, vm: str, atoll: Atoll) -> dict[str, str]:
    """What the server inside received with a request of this page's browser."""
    response = await opened(page, url(atoll, vm, "/headers"))
    assert response.status == 200
    pairs = [(name.lower(), value) for name, value in await response.json()]
    assert len({name for name, _ in pairs}) == len(pairs), "no header came twice"
    return dict(pairs)


async def test_without_login_the_browser_is_told_what_to_type(
    atoll: Atoll, stranger: BrowserContext
) -> None:
    page = await stranger.new_page()
    response = await opened(page, url(atoll))
    assert response.status == 401
    assert page.url.startswith(url(atoll, "", "/login?to="))
    assert await page.title() == "Sign in · Atoll"
    said = await page.inner_text("body")
    assert re.search(r"ssh .*browser", said), said
    await opened(page, url(atoll, OTHER))
    with pytest.raises(Error, match="no socket"):
        await page.evaluate(TALK, url(atoll, path="/ws", scheme="wss"))


async def test_the_one_time_link_leads_to_the_page_asked_for(
    atoll: Atoll, person: BrowserContext, stranger: BrowserContext
) -> None:
    page = await person.new_page()
    await opened(page, url(atoll, path="/deep/er?x=1&y=%20"))
    link = json.loads((await atoll.ssh("browser", "--json")).out)["url"]
    await opened(page, link)
    await page.wait_for_url(url(atoll, path="/deep/er?x=1&y=%20"))
    assert await page.title() == VM
    assert await page.inner_text("h1") == "/deep/er?x=1&y=%20"

    late = await stranger.new_page()
    await opened(late, link)
    await late.wait_for_selector("text=This link is over")
    assert (await opened(late, url(atoll))).status == 401

    home = await opened(page, url(atoll, ""))
    assert home.status == 200
    assert "owner@example.com" in await page.inner_text("body")
    await page.locator(f"#vm-{VM} .web a").click()
    await page.wait_for_url(url(atoll))
    assert await page.title() == VM


async def test_the_vm_learns_who_asks_but_not_the_cookie(
    atoll: Atoll, person: BrowserContext
) -> None:
    page = await person.new_page()
    await opened(page, url(atoll))
    kept = {cookie["name"]: cookie for cookie in await person.cookies(url(atoll))}
    assert kept["own"]["value"] == "kept"
    token = kept["__Host-atoll"]
    assert token["httpOnly"]
    assert token["secure"]
    got = await headers_at_vm(page, VM, atoll)
    assert got["cookie"] == "own=kept"
    assert token["value"] not in json.dumps(got)
    assert got["x-atoll-email"] == "owner@example.com"
    assert got["x-atoll-user-id"].startswith("acct")

    await page.set_extra_http_headers(IDENTITY)
    forged = await headers_at_vm(page, VM, atoll)
    assert forged["x-atoll-email"] == "owner@example.com"
    assert forged["x-atoll-user-id"] == got["x-atoll-user-id"]
    assert forged["x-forwarded-for"] == "127.0.0.1"
    assert "x_atoll_email" not in forged


async def test_nobody_is_somebody_on_a_public_page(atoll: Atoll, stranger: BrowserContext) -> None:
    page = await stranger.new_page()
    await page.set_extra_http_headers(IDENTITY)
    got = await headers_at_vm(page, OTHER, atoll)
    assert not [name for name in got if "atoll" in name]
    assert got["x-forwarded-for"] == "127.0.0.1"


async def test_web_sockets_of_the_vms_own_pages_only(atoll: Atoll, person: BrowserContext) -> None:
    page = await person.new_page()
    await opened(page, url(atoll))
    ours = url(atoll, path="/ws", scheme="wss")
    assert await page.evaluate(TALK, ours) == ["echo tide", "echo " + "x" * 2000]
    # Same site to the browser, cookie and all: the edge has to look at the origin.
    await opened(page, url(atoll, OTHER))
    theirs = url(atoll, OTHER, "/ws", "wss")
    assert await page.evaluate(TALK, theirs) == ["echo tide", "echo " + "x" * 2000]
    with pytest.raises(Error, match="no socket"):
        await page.evaluate(TALK, ours)


async def test_public_and_private_again(
    atoll: Atoll, browser: Browser, person: BrowserContext
) -> None:
    async def status_for_a_stranger() -> int:
        async with await browser.new_context() as context:
            page = await context.new_page()
            return (await opened(page, url(atoll))).status

    async def becomes(wanted: int) -> None:
        async def is_so() -> bool | None:
            return True if await status_for_a_stranger() == wanted else None

        await poll(is_so, seconds=10, what=f"status {wanted} for a stranger")

    await becomes(401)
    await atoll.ssh("share", "set-public", VM)
    await becomes(200)
    await atoll.ssh("share", "set-private", VM)
    await becomes(401)
    page = await person.new_page()
    assert (await opened(page, url(atoll))).status == 200, "its owner is still signed in"


async def test_signing_out_ends_it_on_every_host(atoll: Atoll, person: BrowserContext) -> None:
    page = await person.new_page()
    await opened(page, url(atoll, ""))
    await page.click("text=Sign out")
    await page.wait_for_selector("text=Sign in")

    async def refused() -> bool | None:
        return True if (await opened(page, url(atoll))).status == 401 else None

    await poll(refused, seconds=10, what="the end of the session at the VM's host")
