"""Terminals as a person has them: Chromium on the page, TLS in front of a whole control behind it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page

from atoll.base.aio import poll
from atoll.config import Config, Https
from atoll.domain.web import SESSION_COOKIE
from framework.browser import chromium
from framework.clients import free_port
from framework.fountain import Fountains
from framework.terminals import House, house
from framework.tls import Front, front

DOMAIN = "atoll.localhost"
ROWS = """() => {
  const term = document.getElementById('terminal')?.terminal;
  if (!term) return [];  // it loads
  const all = term.buffer.active;
  const rows = [...Array(term.rows).keys()].map(row => all.getLine(all.baseY + row));
  return rows.map(row => row?.translateToString().trimEnd()).filter(row => row);
}"""
STATUS = "document.getElementById('terminal-status').textContent"
# How long the page's own thread was busy with something else, each time round.
WATCH = """() => {
  window.gaps = [];
  let last = performance.now();
  const look = () => {
    const now = performance.now();
    gaps.push(now - last);
    last = now;
    setTimeout(look, 0);
  };
  look();
}"""


@dataclass
class Site:
    """A control, TLS in front of it, and a browser of ann's."""

    house: House
    front: Front
    browser: Browser

    @asynccontextmanager
    async def person(self, **options: Any) -> AsyncIterator[BrowserContext]:
        """Ann's browser; whatever a page complains about fails the test."""
        async with await self.browser.new_context(**options) as context:
            cookie = self.house.cookies["ann"]
            await context.add_cookies(
                [
                    {
                        "name": SESSION_COOKIE,
                        "value": cookie,
                        "url": self.house.origin,
                        "secure": True,
                        "httpOnly": True,
                    }
                ]
            )
            said: list[str] = []
            context.on("console", lambda message: said.append(f"{message.type} {message.text}"))
            context.on("weberror", lambda error: said.append(str(error.error)))
            yield context
            lost = "WebSocket connection to"  # the browser's own word when we cut it off
            assert not [text for text in said if lost not in text]

    async def opened(self, context: BrowserContext, button: str = "Open") -> Screen:
        """A terminal, as one opens it."""
        page = await context.new_page()
        await page.goto(f"{self.house.origin}/terminal")
        await page.click(f"button:text-is('{button}')")
        screen = Screen(page)
        await screen.shows(r"(\$|>|atoll>)$")
        return screen


class Screen:
    """A page with a terminal on it."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def rows(self) -> list[str]:
        rows: list[str] = await self.page.evaluate(ROWS)
        return rows

    async def type(self, text: str) -> None:
        await self.page.keyboard.type(text)

    async def shows(self, *patterns: str, seconds: float = 15) -> None:
        """Wait until the last rows are these."""

        async def check() -> bool | None:
            last = (await self.rows())[-len(patterns) :]
            is_it = len(last) == len(patterns) and all(map(re.search, patterns, last))
            return is_it or None

        try:
            await poll(check, seconds=seconds, what=str(patterns), every=0.02)
        except Exception as error:
            raise AssertionError(f"not {patterns}: {await self.rows()}") from error

    async def says(self, pattern: str) -> None:
        """Wait for the status line."""

        async def check() -> bool | None:
            return bool(re.search(pattern, await self.page.evaluate(STATUS))) or None

        await poll(check, seconds=15, what=pattern, every=0.02)


@asynccontextmanager
async def site(folder: Path, shells: Fountains | None = None) -> AsyncIterator[Site]:
    port, inner = free_port(), free_port()
    config = Config(https=Https(public_port=port))
    async with (
        house(folder, config=config, port=inner, shells=shells) as made,
        front(folder, domain=DOMAIN, port=port, to=inner) as tls,
        chromium(folder / "home", authority=tls.authority) as browser,
    ):
        yield Site(made, tls, browser)
