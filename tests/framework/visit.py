"""A person before a browser, and what went wrong meanwhile.

What a page must never do is kept in `troubles`: console messages (a breach of the
Content-Security-Policy is one), scripts that failed, requests that failed or were refused.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from playwright.async_api import Browser, BrowserContext, Error, Page, Request, Response, expect

from atoll.commands.reply import Reply
from atoll.domain.account import Caller
from atoll.domain.web import SESSION_COOKIE
from atoll.doors.web.assets import for_tests
from framework.pages import Cloud

Device: TypeAlias = Literal["desktop", "phone"]
Scheme: TypeAlias = Literal["light", "dark"]
DEVICES: tuple[Device, ...] = ("desktop", "phone")
_SCREENS: dict[Device, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1200, "height": 850}},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}
# An interface of the machine came or went, with a VM of somebody's: Chromium then drops connections.
_UNRELATED = "net::ERR_NETWORK_CHANGED"
ZONE = "Europe/Berlin"
TARGET_PX = 24  # WCAG 2.2, 2.5.8
_AXE = """async () => (await axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']}))
    .violations.flatMap(v => v.nodes.map(n => v.id + ': ' + n.target + ': ' + n.failureSummary))"""
# Links within a sentence may be as high as its line.
_SMALL = """size => [...document.querySelectorAll('a, button, input, select, textarea, summary')]
    .filter(e => e.checkVisibility({visibilityProperty: true}))
    .filter(e => !e.matches('.skip, p a, li a, label input, td a, th a'))
    .map(e => [e.outerHTML.slice(0, 120), e.getBoundingClientRect()])
    .filter(([_, box]) => box.width < size || box.height < size)
    .map(([html, box]) => `${html}: ${box.width} x ${box.height}`)"""
_WIDE = """() => {
    const edge = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= edge) return [];
    return [...document.querySelectorAll('body *')]
        .filter(e => e.getBoundingClientRect().right > edge + 1).map(e => e.outerHTML.slice(0, 120));
}"""


@dataclass
class Visitor:
    """One person, one page."""

    cloud: Cloud
    who: Caller
    context: BrowserContext
    page: Page
    device: Device
    troubles: list[str] = field(default_factory=list)

    async def link(self) -> str:
        """What `browser` prints."""
        return str((await self.cloud.data(self.who, "browser"))["url"])

    async def is_signed_in(self) -> None:
        """Have a session, as if by an earlier visit."""
        session = await self.cloud.control.sessions.new_session(self.who.account.id)
        await self.context.add_cookies(
            [{"name": SESSION_COOKIE, "value": session, "url": self.cloud.url, "secure": True}]
        )

    async def open(self, path: str) -> Response:
        """Go to a page of the cloud; it is followed from when this returns."""
        return await self.goto(self.cloud.url + path)

    async def goto(self, url: str) -> Response:
        """Go anywhere."""
        try:
            response = await self.page.goto(url)
        except Error as error:
            if _UNRELATED not in error.message:
                raise
            response = await self.page.goto(url)
        assert response is not None
        return response

    async def run(self, line: str) -> Reply:
        """The same person at a terminal."""
        return await self.cloud.run(self.who, line)

    def forget(self, pattern: str) -> None:
        """Leave out troubles that a test has made."""
        self.troubles[:] = [each for each in self.troubles if not re.search(pattern, each)]

    def id_of(self, name: str) -> str:
        """Which VM of the engine has this name."""
        held = self.cloud.engine.identities
        return [vm for vm, identity in held.items() if identity.hostname == name][-1]

    async def line_of(self, button: str) -> None:
        """Press the button that says this line, and wait for its result."""
        await self.page.get_by_role("button", name=button, exact=True).click()
        await self.said(button)

    async def said(self, text: str) -> None:
        """Wait for the panel to say something."""
        await expect(self.page.locator("#said .act-said:not(.going)")).to_contain_text(text)

    async def violations(self) -> list[str]:
        """What axe-core finds."""
        await self.page.evaluate((for_tests() / "axe.js").read_text())
        found: list[str] = await self.page.evaluate(_AXE)
        return found

    async def misfits(self) -> list[str]:
        """What is wider than the screen, or too small for a finger."""
        wide: list[str] = await self.page.evaluate(_WIDE)
        small: list[str] = await self.page.evaluate(_SMALL, TARGET_PX)
        return wide + small

    async def faults(self) -> list[str]:
        """All of what a page must not have, with where it was found."""
        path = self.page.url.removeprefix(self.cloud.url)
        found = [*await self.misfits(), *await self.violations(), *self.troubles]
        self.troubles.clear()
        if await self.page.locator("h1").count() != 1:
            found.append("it has not one h1")
        if not (await self.page.title()).endswith(" · Atoll"):
            found.append("it has no title")
        if await self.page.locator("html").get_attribute("lang") != "en":
            found.append("it has no language")
        return [f"{path}: {fault}" for fault in found]

    def watch(self, page: Page) -> None:
        """Keep what goes wrong on it."""
        page.on("console", lambda m: self._happened(f"console {m.type}: {m.text}"))
        page.on("pageerror", lambda error: self._happened(f"script: {error}"))
        page.on("requestfailed", self._failed)
        page.on("response", self._answered)

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # what a page that is left was waiting for
            self._happened(f"{request.url}: {request.failure}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self._happened(f"{response.url}: {response.status}")

    def _happened(self, trouble: str) -> None:
        if _UNRELATED not in trouble:
            self.troubles.append(trouble)


@asynccontextmanager
async def visiting(
    browser: Browser,
    cloud: Cloud,
    device: Device = "desktop",
    *,
    who: Caller | None = None,
    scheme: Scheme = "light",
    has_script: bool = True,
    is_signed_in: bool = True,
) -> AsyncIterator[Visitor]:
    """Somebody new, or `who`, signed in; anything that went wrong fails the test."""
    who = who or await cloud.person()
    async with await browser.new_context(
        **_SCREENS[device],
        color_scheme=scheme,
        java_script_enabled=has_script,
        locale="de-DE",
        timezone_id=ZONE,
    ) as context:
        context.set_default_timeout(10_000)
        visitor = Visitor(cloud, who, context, await context.new_page(), device)
        visitor.watch(visitor.page)
        if is_signed_in:
            await visitor.is_signed_in()
        yield visitor
        assert not visitor.troubles, "\n".join(visitor.troubles)
