"""The page of a running cloud, as a person has it: Chromium, HAProxy, real VMs."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, ViewportSize

from atoll.base.aio import poll
from framework.atoll import Atoll
from framework.browser import chromium, sign_in
from framework.site import ROWS

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]

VM = "pagevm"
PHONE = ViewportSize(width=390, height=844)
WIDER = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


class Person:
    """A browser that signed in by the link of `browser`; what its pages complain about is kept."""

    def __init__(self, atoll: Atoll, context: BrowserContext) -> None:
        self.atoll = atoll
        self.context = context
        self.said: list[str] = []
        context.on("console", lambda message: self.said.append(f"{message.type} {message.text}"))
        context.on("weberror", lambda error: self.said.append(str(error.error)))

    async def sign_in(self) -> Page:
        """Open the link; ends on the list of VMs."""
        page = await self.context.new_page()
        await sign_in(page, self.atoll)
        return page

    def complaints(self) -> list[str]:
        """Those that are not about this machine: Chromium sees the networks of VMs come and go."""
        about_networks = (
            "ERR_NETWORK_CHANGED",
            "[object Event]",
            "htmx:sendError",
            "htmx:afterRequest",
        )
        return [text for text in self.said if not any(part in text for part in about_networks)]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def browser(atoll: Atoll, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """Chromium; whatever VMs the tests made go at the end."""
    authority = atoll.config.control_state / "keys" / "ca.pem"
    async with chromium(tmp_path_factory.mktemp("home"), authority=authority) as running:
        yield running
    await atoll.ssh("rm", f"'{VM}*'")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def person(atoll: Atoll, browser: Browser) -> AsyncIterator[Person]:
    """At a desk."""
    async with await browser.new_context() as context:
        yield Person(atoll, context)


async def until(check: Callable[[], Awaitable[object]], what: str, *, seconds: float = 30) -> None:
    """Wait for something to be true."""

    async def asked() -> bool | None:
        return True if await check() else None

    await poll(asked, seconds=seconds, what=what, every=0.1)


async def shows(page: Page, pattern: str, *, seconds: float = 30) -> None:
    """Wait until a terminal's page has a row like this."""

    async def check() -> bool:
        return any(re.search(pattern, row) for row in await page.evaluate(ROWS))

    try:
        await until(check, pattern, seconds=seconds)
    except Exception as error:
        raise AssertionError(f"no {pattern!r} in {await page.evaluate(ROWS)}") from error


async def test_a_vm_is_made_by_the_form_and_appears_by_itself(atoll: Atoll, person: Person) -> None:
    page = await person.sign_in()
    watching = await person.context.new_page()
    await watching.goto(atoll.url())
    await page.evaluate("document.querySelector('details.new').open = true")  # it is, without VMs
    await page.fill("#new-name", VM)
    await page.fill("#new-setup_script", "#!/bin/sh\necho made by a page > /run/made")
    line = page.locator("form[action='/run/new'] output")
    await until(lambda: _reads(line, f"new --name={VM} --setup-script=-"), "the line")
    await page.click("form[action='/run/new'] button.main")
    await page.wait_for_selector(f"#said :text('{VM} is running')")
    for each in (page, watching):
        await each.wait_for_selector(f"#vm-{VM} .state.running")
    read = "for _ in $(seq 50); do cat /run/made && exit; sleep 0.2; done"
    assert (await atoll.ssh(read, user=VM)).out == b"made by a page\n"


async def _reads(locator: object, text: str) -> bool:
    return text in ((await locator.text_content()) or "")  # type: ignore[attr-defined]


async def test_its_page_says_what_listens_inside(atoll: Atoll, person: Person) -> None:
    await atoll.ssh("systemd-run --user --unit site python3 -m http.server 8000", user=VM)
    page = await person.context.new_page()
    await page.goto(atoll.url("", f"/vm/{VM}"))

    async def listens() -> bool:
        await page.reload()
        await page.wait_for_selector("dt:has-text('Ports')")
        return "8000" in await page.inner_text("main")

    await until(listens, "port 8000")
    text = await page.inner_text("main")
    for part in (f"https://{VM}.{atoll.config.https.domain}", "you, signed in", "new", "debian"):
        assert part in text, part


async def test_a_button_acts_and_every_page_follows(atoll: Atoll, person: Person) -> None:
    other = await person.context.new_page()
    await other.goto(atoll.url())
    page = await person.context.new_page()
    await page.goto(atoll.url("", f"/vm/{VM}"))
    await page.click(f"button:has-text('pause {VM}')")
    await page.wait_for_selector("h1 .state.paused")
    await other.wait_for_selector(f"#vm-{VM} .state.paused")
    assert json.loads((await atoll.ssh("ls", "--json", VM)).out)["vms"][0]["status"] == "paused"
    await atoll.ssh("resume", VM)
    await page.wait_for_selector("h1 .state.running")
    await other.wait_for_selector(f"#vm-{VM} .state.running")


async def test_a_terminal_is_a_shell_that_survives_a_reload(atoll: Atoll, person: Person) -> None:
    page = await person.context.new_page()
    await page.goto(atoll.url("", f"/vm/{VM}"))
    await page.click(f"button:has-text('ssh {VM}')")
    await page.wait_for_url(re.compile("/terminal/"))
    await shows(page, r"\$$")
    await page.keyboard.type("cd /tmp; kept=tide; echo $((6 * 7))\n")
    await shows(page, "^42$")
    await page.reload()
    await shows(page, "^42$")
    await page.click("#terminal")
    await page.keyboard.type("echo $kept $PWD\n")
    await shows(page, "^tide /tmp$")
    await page.keyboard.type("seq 300000 | tail -n +1; echo over\n")
    await shows(page, "^over$", seconds=120)
    await page.set_viewport_size({"width": 700, "height": 500})
    await page.keyboard.type("stty size\n")
    columns, rows = await page.evaluate(
        "[document.getElementById('terminal').terminal.cols,"
        " document.getElementById('terminal').terminal.rows]"
    )
    await shows(page, f"^{rows} {columns}$")
    await page.keyboard.type("exit\n")
    await page.wait_for_selector("#terminal-again", state="visible")


async def test_two_terminals_and_a_pause(atoll: Atoll, person: Person) -> None:
    pages = []
    for number in range(2):
        page = await person.context.new_page()
        await page.goto(atoll.url("", f"/vm/{VM}"))
        await page.click(f"button:has-text('ssh {VM}')")
        await shows(page, r"\$$")
        await page.keyboard.type(f"echo this is {number}{number}\n")
        await shows(page, f"^this is {number}{number}$")
        pages.append(page)
    await atoll.ssh("pause", VM)
    for page in pages:
        await page.wait_for_selector("#terminal-status:has-text('paused')")
    await atoll.ssh("resume", VM)


async def test_the_command_line_in_the_page(atoll: Atoll, person: Person) -> None:
    page = await person.context.new_page()
    await page.goto(atoll.url("", "/terminal"))
    await page.click("button:has-text('command line')")
    await shows(page, "atoll>$")
    await page.keyboard.type(f"comment {VM} 'from the page'\n")
    await shows(page, "atoll>$")
    await page.keyboard.type("ls page\t\n")
    await shows(page, f"^{VM} .*from the page$")


@pytest.mark.parametrize("path", ["/", f"/vm/{VM}", "/keys", "/usage", "/run/new", "/terminal"])
async def test_on_a_phone_nothing_is_wider_than_the_screen(
    atoll: Atoll, browser: Browser, path: str
) -> None:
    async with await browser.new_context(
        viewport=PHONE, has_touch=True, color_scheme="dark"
    ) as context:
        somebody = Person(atoll, context)
        page = await somebody.sign_in()
        await page.goto(atoll.url("", path))
        await page.wait_for_selector("h1")
        assert not await page.evaluate(WIDER)
        assert not somebody.complaints()


async def test_what_it_used_is_drawn(atoll: Atoll, person: Person) -> None:
    """A minute after it ran there is a first point."""

    async def seen() -> bool:
        reply = json.loads((await atoll.ssh("stat", VM, "--range=24h", "--json")).out)
        return bool(reply["points"])

    await until(seen, "a point", seconds=150)
    page = await person.context.new_page()
    await page.goto(atoll.url("", f"/vm/{VM}"))
    await page.wait_for_selector("figure.chart svg[aria-label^='Memory']")


async def test_signed_out_is_signed_out(atoll: Atoll, person: Person) -> None:
    """The last one: nothing was complained about until here."""
    assert not person.complaints()
    page = await person.context.new_page()
    await page.goto(atoll.url("", "/terminal"))
    await page.click("button:has-text('command line')")
    await shows(page, "atoll>$")
    other = await person.context.new_page()
    await other.goto(atoll.url())
    await other.click("button:has-text('Sign out')")
    await page.wait_for_selector("#terminal-status:has-text('signed out')")
    response = await other.goto(atoll.url())
    assert response is not None
    assert response.status == 401
