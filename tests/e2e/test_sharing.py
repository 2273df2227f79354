"""Sharing end to end: a second person asks, is let in, and is put out, by web, WebSocket and SSH.

Chromium with an authenticator that it plays itself, the real ssh, and a VM that asks who it is.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from joserfc import jwt
from joserfc.jwk import KeySet
from playwright.async_api import Browser, BrowserContext, Page

from atoll.base.aio import poll
from framework.atoll import Atoll
from framework.browser import add_authenticator, chromium, sign_in
from framework.clients import client
from framework.friend import friend
from framework.inner_server import serve

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]

VM = "shared"
BOB = "bob@example.com"
_OPEN = """url => new Promise((done, failed) => {
    window.socket = new WebSocket(url);
    window.closed = new Promise(over => { window.socket.onclose = () => over(Date.now()); });
    window.socket.onopen = () => done(true);
    window.socket.onerror = () => failed(new Error('no socket'));
})"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bob(atoll: Atoll) -> Atoll:
    """Somebody who has an account and nothing else."""
    return await friend(atoll, "bob")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def browser(atoll: Atoll, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """Chromium, and a VM that serves."""
    await atoll.ssh("new", "--name", VM)
    await serve(atoll, VM)
    authority = atoll.config.control_state / "keys" / "ca.pem"
    async with chromium(tmp_path_factory.mktemp("home"), authority=authority) as running:
        yield running
    await atoll.ssh("rm", VM)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def his(browser: Browser, atoll: Atoll, bob: Atoll) -> AsyncIterator[Page]:
    """Bob's browser: signed in once by his key, then out, with a passkey."""
    async with await browser.new_context() as context:
        page = await context.new_page()
        await add_authenticator(page)
        await sign_in(page, bob)
        await page.goto(url(atoll, "", "/keys"))
        await page.click("text=New passkey")
        await page.locator("#passkey-name").fill("phone")
        await page.get_by_role("button", name="Make a passkey").click()
        await page.wait_for_selector("text=phone")
        await sign_out(page)
        yield page


def url(atoll: Atoll, vm: str = VM, path: str = "/", scheme: str = "https") -> str:
    """An address."""
    return atoll.url(vm, path, scheme=scheme)


async def sign_out(page: Page) -> None:
    """As a person does."""
    await page.click("text=Sign out")
    await page.wait_for_selector("text=E-mail me a link")


async def test_asks_is_let_in_and_put_out(atoll: Atoll, his: Page) -> None:
    await his.goto(url(atoll, path="/deep?x=1"))
    await his.get_by_role("button", name="Use a passkey").click()
    await his.wait_for_selector("text=it is not shared with bob@example.com")
    await his.locator("#ask-message").fill("for the demo")
    await his.get_by_role("button", name="Run", exact=True).click()
    await his.wait_for_selector("text=its owner has been asked")
    asked = (await atoll.command(f"share show {VM}"))["requests"]
    assert [(one["email"], one["message"]) for one in asked] == [(BOB, "for the demo")]

    added = await atoll.command(f"share add {VM} {BOB}")
    assert added["message"] == "Invitation sent"
    mail = await atoll.command("mail")
    assert BOB in json.dumps(mail)
    await his.goto(url(atoll, path="/deep?x=1"))
    await his.wait_for_url(url(atoll, path="/deep?x=1"))
    assert await his.inner_text("h1") == "/deep?x=1"
    assert await his.evaluate(_OPEN, url(atoll, path="/ws", scheme="wss"))

    began = time.monotonic()
    await atoll.command(f"share remove {VM} {BOB}")
    await his.evaluate("window.closed")
    assert time.monotonic() - began < 5, "the command and the socket's end"
    refused = await his.goto(url(atoll))
    assert refused is not None
    assert refused.status == 403

    async def seen() -> bool | None:
        visits = (await atoll.command(f"share log {VM}"))["visits"]
        return BOB in json.dumps(visits) or None

    await poll(seen, seconds=10, what="bob in the log of who came")
    records = await atoll.command(f"audit {VM}")
    assert f"share add {VM} {BOB}" in [record["what"] for record in records["records"]]


async def test_root_is_a_shell_until_it_is_taken(atoll: Atoll, bob: Atoll, his: Page) -> None:
    refused = await bob.ssh("true", user=VM, check=False)
    assert refused.code != 0
    await atoll.command(f"share add {VM} {BOB} --root")
    assert (await bob.ssh("echo in", user=VM)).out == b"in\n"
    argv = ["ssh", *bob.ssh_options(), f"{VM}@127.0.0.1", "echo in; cat"]
    async with client(argv) as process:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"in\n"
        await atoll.command(f"share remove {VM} {BOB} --root")
        async with asyncio.timeout(2):
            assert await process.wait() == 255
    assert (await bob.ssh("true", user=VM, check=False)).code != 0
    await atoll.command(f"share remove {VM} {BOB}")


async def test_time_ends_a_share(atoll: Atoll, bob: Atoll, his: Page) -> None:
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 8))
    await atoll.command(f"share add {VM} {BOB} --root --until {until}")
    assert (await bob.ssh("echo in", user=VM)).out == b"in\n"

    async def over() -> bool | None:
        return (await bob.ssh("true", user=VM, check=False)).code != 0 or None

    await poll(over, seconds=30, what="the end of the share")
    assert (await atoll.command(f"share show {VM}"))["users"] == []


async def test_a_link_and_a_public_path(atoll: Atoll, his: Page, browser: Browser) -> None:
    link = (await atoll.command(f"share add-link {VM} --for 1h"))["url"]
    await his.goto(link)
    await his.get_by_role("button", name="Open", exact=True).click()
    await his.wait_for_url(url(atoll))
    await atoll.command(f"share remove-link {VM} {link} --evict")
    await atoll.command(f"share set-public {VM} --path /deep")
    async with await browser.new_context() as stranger:
        for path, status in (("/deep/hook", 200), ("/", 401), ("/deep/..%2f", 401)):
            assert await status_of(stranger, url(atoll, path=path)) == status, path
    await atoll.command(f"share set-private {VM}")


async def status_of(context: BrowserContext, where: str) -> int:
    """What a page answers."""
    page = await context.new_page()
    response = await page.goto(where)
    assert response is not None
    return response.status


async def test_a_vm_proves_which_one_it_is(atoll: Atoll, browser: Browser) -> None:
    about = json.loads((await atoll.ssh("curl -sf http://metadata.int/", user=VM)).out)
    assert (about["name"], about["owner"]["email"]) == (VM, "owner@example.com")
    asked = "curl -sf http://metadata.int/token?audience=https://api.example.com"
    token = (await atoll.ssh(asked, user=VM)).out.decode().strip()
    keys = json.loads(
        (await atoll.ssh("curl -sf http://metadata.int/oauth/jwks.json", user=VM)).out
    )
    claims = jwt.decode(token, KeySet.import_key_set(keys), algorithms=["ES256"]).claims
    assert (claims["aud"], claims["vm_name"]) == ("https://api.example.com", VM)
    forged = "curl -s -o /dev/null -w '%{http_code}' -H 'X-Forwarded-For: 10.213.1.2' http://metadata.int/"
    assert (await atoll.ssh(forged, user=VM)).out == b"403"
