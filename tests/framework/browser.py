"""Chromium as a user has it, except that it trusts the test cloud's own authority.

Trust goes into the certificate database of a home folder made for the test, as a user would import it:
no check of certificates is switched off.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, async_playwright

from atoll.base.proc import run

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


@asynccontextmanager
async def chromium(home: Path, *, authority: Path) -> AsyncIterator[Browser]:
    """A browser that trusts `authority` (PEM) and keeps its files below `home`."""
    database = home / ".pki" / "nssdb"
    database.mkdir(parents=True)
    tool = ["certutil", "-d", f"sql:{database}"]
    await run([*tool, "-N", "--empty-password"], seconds=30)
    await run([*tool, "-A", "-t", "C,,", "-n", "atoll", "-i", str(authority)], seconds=30)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=ARGUMENTS, env={**os.environ, "HOME": str(home)}
        )
        try:
            yield browser
        finally:
            await browser.close()
