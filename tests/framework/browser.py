"""Chromium as a user has it, except that it trusts the test cloud's own authority.

Trust goes into the certificate database of a home folder made for the test, as a user would import it:
no check of certificates is switched off.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, CDPSession, Page, async_playwright

from atoll.base.proc import run
from framework.atoll import Atoll

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--headless",
    "--no-sandbox",  # the tests run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

_AUTHENTICATOR = {
    "protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True,
    "isUserVerified": True, "automaticPresenceSimulation": True,
}  # fmt: skip


@asynccontextmanager
async def chromium(
    home: Path, *, authority: Path, domain: str = "", domain_authority: Path | None = None
) -> AsyncIterator[Browser]:
    """A browser that trusts `authority` (PEM) and keeps its files below `home`.

    DNS says that `domain` is here, and who is trusted for it.
    """
    database = home / ".pki" / "nssdb"
    database.mkdir(parents=True)
    tool = ["certutil", "-d", f"sql:{database}"]
    await run([*tool, "-N", "--empty-password"], seconds=30)
    for name, trusted in (("atoll", authority), ("domain", domain_authority)):
        if trusted is not None:
            await run([*tool, "-A", "-t", "C,,", "-n", name, "-i", str(trusted)], seconds=30)
    more = [f"--host-resolver-rules=MAP {domain} 127.0.0.1"] if domain else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[*ARGUMENTS, *more],
            env={**os.environ, "HOME": str(home)},
        )
        try:
            yield browser
        finally:
            await browser.close()


async def sign_in(page: Page, somebody: Atoll) -> None:
    """By a link that their SSH key asks for; ends on the list of VMs."""
    await page.goto(json.loads((await somebody.ssh("browser", "--json")).out)["url"])
    await page.wait_for_url(somebody.url())


async def add_authenticator(page: Page, **more: object) -> tuple[CDPSession, str]:
    """Give a page passkeys of its own: the session that commands them, and the id of their device."""
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("WebAuthn.enable")
    added = await devtools.send(
        "WebAuthn.addVirtualAuthenticator", {"options": _AUTHENTICATOR | more}
    )
    return devtools, added["authenticatorId"]
