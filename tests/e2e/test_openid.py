"""An app in a VM whose visitors log in with this cloud: a stock client, as docs/openid.md has it.

authlib runs inside the VM, with the VM's own Python; the visitor is Chromium.
"""

from __future__ import annotations

import tarfile
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from framework import openid_app
from framework.atoll import Atoll
from framework.browser import chromium, sign_in
from framework.friend import friend
from framework.inner_server import serves

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]

VM = "members"
OWNER, BOB = "owner@example.com", "bob@example.com"
_UNIT = "systemd-run --user --unit app --setenv PYTHONPATH=lib --working-directory . "
_SERVE = "python3 -m uvicorn --host 0.0.0.0 --port 8000 --proxy-headers --forwarded-allow-ips '*' app:app"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def browser(atoll: Atoll, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """Chromium, and the app in its VM."""
    folder = tmp_path_factory.mktemp("app")
    await atoll.ssh("new", "--name", VM)
    version = "import sys; print('%d.%d' % sys.version_info[:2])"
    python = (await atoll.ssh(f'python3 -c "{version}"', user=VM)).out.decode().strip()
    await openid_app.pack(folder / "lib", python=python)
    cloud, host = atoll.url(path=""), f"{VM}.{atoll.config.https.domain}"
    app = openid_app.source()
    for shown, here in (
        ('"https://atoll.localhost:8443", "web.atoll.localhost"', f'"{cloud}", "{host}"'),
        ("{HOST}:8443", f"{{HOST}}:{atoll.config.https.port}"),
    ):
        assert shown in app
        app = app.replace(shown, here)
    (folder / "app.py").write_text(app)
    authority = atoll.config.control_state / "keys" / "ca.pem"
    await atoll.ssh("tar -x", user=VM, stdin=packed(folder, authority))
    await atoll.ssh(_UNIT + _SERVE, user=VM)
    await serves(atoll, VM)
    async with chromium(tmp_path_factory.mktemp("home"), authority=authority) as running:
        yield running
    await atoll.ssh("rm", VM)


def packed(folder: Path, authority: Path) -> bytes:
    """A tar of app and libraries, and what the page names `ca.pem`."""
    held = BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        tar.add(folder / "app.py", "app.py")
        tar.add(folder / "lib", "lib")
        tar.add(authority, "ca.pem")
    return held.getvalue()


async def test_the_app_knows_its_owner(atoll: Atoll, browser: Browser) -> None:
    async with await browser.new_context() as context:
        page = await context.new_page()
        await sign_in(page, atoll)
        await page.goto(atoll.url(VM, "/login"))
        await expect(page.get_by_role("heading", level=1)).to_have_text(f"Sign in to {VM}")
        await page.get_by_role("button", name="Tell it").click()
        await page.wait_for_url("**/callback?*")
        assert await page.inner_text("body") == f"You are {OWNER}"
        await page.goto(atoll.url(VM, "/login"))  # once asked, not asked again
        await page.wait_for_url("**/callback?*")
        assert await page.inner_text("body") == f"You are {OWNER}"


async def test_a_guest_logs_in_while_it_is_shared(atoll: Atoll, browser: Browser) -> None:
    bob = await friend(atoll, "bob")
    async with await browser.new_context() as context:
        page = await context.new_page()
        await sign_in(page, bob)
        refused = await page.goto(atoll.url(VM, "/login"))
        assert refused is not None
        assert refused.status == 403
        await atoll.command(f"share add {VM} {BOB}")
        await page.goto(atoll.url(VM, "/login"))
        await page.get_by_role("button", name="Tell it").click()
        await page.wait_for_url("**/callback?*")
        assert await page.inner_text("body") == f"You are {BOB}"
        await atoll.command(f"share remove {VM} {BOB}")
