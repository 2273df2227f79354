"""The pages in Chromium, used as people use them: at a desk and on a phone, with and without a script."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from atoll.base.errors import Conflict
from atoll.rpc.messages import Create, Pause
from framework.pages import Cloud
from framework.visit import DEVICES, ZONE, Device, Visitor, visiting

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

LOST = r"503|net::ERR_|console error: \[object Event\]"  # what a browser says of a lost connection
HOSTILE = "<b id=x>bold</b><img src=x onerror=alert(1)>&amp;\"'"


@pytest_asyncio.fixture(loop_scope="module", params=DEVICES, name="ann")
async def _ann(
    request: pytest.FixtureRequest, cloud: Cloud, browser: Browser
) -> AsyncIterator[Visitor]:
    """Somebody new, signed in, on either device. Her VMs go with the test: names are the cloud's."""
    async with visiting(browser, cloud, request.param) as visitor:
        yield visitor
        await gone(visitor)


async def gone(visitor: Visitor) -> None:
    if (await visitor.cloud.data(visitor.who, "ls"))["vms"]:
        await visitor.run("rm --all '*'")


async def names(visitor: Visitor) -> list[str]:
    """The list, from above."""
    return await visitor.page.locator("#vms .name").all_inner_texts()


# -- signing in ------------------------------------------------------------------------------


async def test_signing_out_is_seen_everywhere(ann: Visitor) -> None:
    """Also by a page that is open: its stream ends, and what it asks says how to sign in."""
    other = await ann.context.new_page()
    await other.goto(f"{ann.cloud.url}/run/whoami")
    await ann.open("/")
    await ann.page.get_by_role("button", name="Sign out").click()
    await expect(ann.page.locator("h1")).to_have_text("Sign in")
    await expect(ann.page.locator("main")).to_contain_text("ssh -p 2222 localhost browser")
    await other.get_by_role("button", name="Run", exact=True).click()
    await expect(other.locator("#said")).to_contain_text("ssh -p 2222 localhost browser")
    assert ann.troubles[0] == f"{ann.cloud.url}/: 401"
    ann.forget("401")


async def test_a_session_that_ends_elsewhere_is_said(ann: Visitor) -> None:
    await ann.run("new --name=late")
    await ann.open("/")
    await ann.cloud.control.sessions.revoke_account(ann.who.account.id)
    await ann.run("pause late")
    await expect(ann.page.locator("#said")).to_contain_text("signed out")
    await expect(ann.page.locator("#said")).to_contain_text("ssh -p 2222 localhost browser")
    await expect(ann.page.locator("#vm-late .state")).to_have_text("running")


@pytest.mark.parametrize("device", DEVICES)
async def test_a_link_signs_in_once(cloud: Cloud, browser: Browser, device: Device) -> None:
    async with visiting(browser, cloud, device, is_signed_in=False) as ann:
        link = await ann.link()
        await ann.goto(link)
        await ann.page.wait_for_url(f"{cloud.url}/")
        await expect(ann.page.locator("h1")).to_contain_text("VMs")
    async with visiting(browser, cloud, device, is_signed_in=False) as late:
        await late.goto(link)
        await expect(late.page.locator("h1")).to_have_text("This link is over")
        late.troubles.clear()


# -- the list --------------------------------------------------------------------------------


async def test_a_vm_is_made_by_keyboard_alone(ann: Visitor) -> None:
    await ann.run("new --name=aaa")
    await ann.run("new --name=zzz")
    await ann.open("/")
    page, keys = ann.page, ann.page.keyboard
    await page.locator(".brand").focus()
    while not await page.evaluate("document.activeElement.matches('summary')"):
        await keys.press("Tab")
    await keys.press("Enter")
    await keys.press("Tab")
    await keys.type("mid")
    line = page.locator(".line")
    await expect(line).to_have_text("new --name=mid")
    for _ in range(6):
        await keys.press("Tab")
    comment = """it's "so": $HOME `x` \\ 'q'"""
    await keys.type(comment)
    await expect(line).to_have_text(f"new --name=mid --comment={shlex.quote(comment)}")
    await keys.press("Tab")
    await keys.type("#!/bin/sh\necho 'two'\n")
    await expect(line).to_contain_text("--setup-script=-")
    await keys.press("Tab")
    await keys.type("A=1\nB=x y")
    shown = (
        f"new --name=mid --comment={shlex.quote(comment)} --setup-script=- --env=A=1 --env='B=x y'"
    )
    await expect(line).to_have_text(shown)
    for _ in range(2):
        await keys.press("Tab")
    await keys.press("Enter")
    await ann.said(shown)
    assert await page.locator("#said .cmd code").inner_text() == shown
    await expect(page.locator("#vm-mid")).to_be_visible()
    assert await names(ann) == ["aaa", "mid", "zzz"]
    (made,) = (await ann.cloud.data(ann.who, "ls -l mid"))["vms"]
    assert made["comment"] == comment


async def test_a_dry_run_by_space(ann: Visitor) -> None:
    await ann.open("/run/new")
    box = ann.page.get_by_label("only say what would happen")
    await box.focus()
    await ann.page.keyboard.press("Space")
    await expect(ann.page.locator(".line")).to_have_text("new --dry-run")
    await ann.page.keyboard.press("Tab")
    await ann.page.keyboard.press("Space")
    await ann.said("new --dry-run")
    assert (await ann.cloud.data(ann.who, "ls"))["vms"] == []


async def test_rows_follow_in_every_browser(ann: Visitor, browser: Browser) -> None:
    for name in ("one", "two"):
        await ann.run(f"new --name={name}")
    await ann.open("/")
    async with visiting(browser, ann.cloud, ann.device, who=ann.who) as second:
        await second.open("/")
        state = second.page.locator("#vm-one .state")
        await ann.line_of("pause one")
        await expect(ann.page.locator("#vm-one .state")).to_have_text("paused")
        await expect(state).to_have_text("paused")
        await expect(ann.page.get_by_role("button", name="resume one")).to_be_focused()
        await ann.line_of("resume one")
        await expect(state).to_have_text("running")

        await second.open("/vm/one")
        await second.line_of("rm one")
        await expect(second.page.locator("main")).to_contain_text("no VM 'one'")
        await expect(ann.page.locator("#vm-one")).to_have_count(0)
        await second.page.locator("#said").get_by_role("button", name="undo").click()
        await expect(ann.page.locator("#vm-one")).to_have_count(1)
        assert await names(ann) == ["one", "two"]
        second.forget("404")  # its page asked for what is no more


async def test_the_list_is_searched(ann: Visitor) -> None:
    for name in ("web", "web-old", "db"):
        await ann.run(f"new --name={name}")
    await ann.open("/")
    await ann.page.get_by_label("Find VMs").fill("eb")
    await ann.page.keyboard.press("Enter")
    await ann.page.wait_for_url("**/?match=eb")
    await expect(ann.page.locator("h1")).to_contain_text("ls -l -- '*eb*'")
    assert await names(ann) == ["web", "web-old"]
    await ann.run("rm db")
    await ann.run("rename web-old other")
    await ann.run("new --name=cobweb")
    await expect(ann.page.locator("#vms .name")).to_have_text(["cobweb", "web"])


async def test_an_error_is_that_of_the_command_line(ann: Visitor) -> None:
    await ann.run("new --name=taken")
    await ann.open("/")
    await ann.page.locator("summary").click()
    await ann.page.get_by_label("name", exact=True).fill("taken")
    await ann.page.get_by_label("tag").fill("kept")
    await ann.page.get_by_role("button", name="Run", exact=True).click()
    with pytest.raises(Conflict) as error:
        await ann.run("new --name=taken")
    await ann.said(error.value.message)
    await ann.said(error.value.hint)
    assert await ann.page.get_by_label("name", exact=True).input_value() == "taken"
    assert await ann.page.get_by_label("tag").input_value() == "kept"


async def test_the_panel_closes_and_hides_nothing(ann: Visitor) -> None:
    for number in range(12):
        await ann.run(f"new --name=vm-{number}-x")
    await ann.open("/")
    panel, end = ann.page.locator("#said .act-said"), ann.page.locator("footer button")
    await ann.line_of("pause vm-3-x")
    await end.focus()
    await ann.page.keyboard.press("End")
    below = await end.bounding_box()
    box = await panel.bounding_box()
    assert below
    assert box
    assert below["y"] + below["height"] <= box["y"]
    await ann.page.keyboard.press("Escape")
    await expect(panel).to_have_count(0)
    await ann.line_of("resume vm-3-x")
    await ann.page.get_by_role("button", name="Close").click()
    await expect(panel).to_have_count(0)
    await expect(ann.page.get_by_role("button", name="pause vm-3-x")).to_be_focused()
    await expect(ann.page.get_by_role("button", name="Close")).to_be_hidden()


# -- acts that take long ---------------------------------------------------------------------


async def test_a_long_act_goes_on_when_its_page_is_left(ann: Visitor) -> None:
    gate = ann.cloud.engine.hold[Create] = asyncio.Event()
    try:
        await ann.open("/run/new")
        await ann.page.get_by_label("name").fill("slow")
        await ann.page.get_by_label("cpu").fill("2")
        await ann.page.get_by_role("button", name="Run", exact=True).click()
        going = ann.page.locator("#said .act-said.going")
        await expect(going).to_contain_text("new --name=slow --cpu=2")
        await expect(going).to_contain_text("no warm template of this size yet")
        path = await going.get_attribute("hx-get")
        assert path
        await ann.open(path)
        await expect(ann.page.locator(".act-said.going")).to_contain_text("new --name=slow")
        await ann.open("/")
        await expect(ann.page.locator("#vm-slow .state")).to_have_text("starting")
    finally:
        gate.set()
        del ann.cloud.engine.hold[Create]
    await expect(ann.page.locator("#vm-slow .state")).to_have_text("running")
    await ann.open(path)
    await expect(ann.page.locator(".act-said.done")).to_contain_text("slow is running")
    await ann.page.get_by_role("link", name="Back").click()
    await ann.page.wait_for_url("**/run/new")


async def test_a_long_act_shows_its_end(ann: Visitor) -> None:
    await ann.run("new --name=long")
    await ann.open("/")
    gate = ann.cloud.engine.hold[Pause] = asyncio.Event()
    try:
        await ann.page.get_by_role("button", name="pause long").click()
        await expect(ann.page.locator("#said .act-said.going")).to_contain_text("pause long")
    finally:
        gate.set()
        del ann.cloud.engine.hold[Pause]
    await ann.said("long is paused")


# -- one VM ----------------------------------------------------------------------------------


async def test_the_page_of_a_vm_follows_it(ann: Visitor) -> None:
    await ann.run("new --name=web")
    await ann.cloud.use(ann.id_of("web"))
    await ann.open("/vm/web")
    page = ann.page
    await expect(page.locator("#now")).to_contain_text("of 1 vCPU")
    paths = await page.locator("svg[role=img] path.k1").first.get_attribute("d")
    assert paths
    assert paths.count("M") > 10, "gaps stay gaps"
    await page.get_by_role("link", name="7d").click()
    await expect(page.locator("#charts")).to_contain_text("Nothing was seen")

    await ann.run("pause web")
    await expect(page.locator("h1 .state")).to_have_text("paused")
    await expect(page.locator("#now")).to_have_text("It does not run.")
    await ann.line_of("resume web")
    await expect(page.locator("h1 .state")).to_have_text("running")
    await expect(page.locator("#now")).to_contain_text("of 1 vCPU")
    await expect(page.locator("#events tbody tr")).to_have_count(3)
    log = page.locator("summary", has_text="vm-logs web")
    await expect(page.locator("pre.log")).to_have_count(0)
    await log.click()
    await expect(page.locator("pre.log")).to_contain_text(f"{ann.id_of('web')} login:")


async def test_everything_of_a_vm_can_be_changed(ann: Visitor) -> None:
    await ann.run("new --name=app")
    await ann.open("/vm/app")
    page = ann.page
    for verb, field, value, shown in (
        ("comment", "text", "it's mine", "it's mine"),
        ("tag", "tag", "prod", "prod"),
        ("share port", "port", "3000", "3000"),
    ):
        await page.locator("summary", has_text=f"{verb} app").click()
        form = page.locator(f"form[action='/run/{verb.replace(' ', '-')}'].fill")
        await form.get_by_label(field, exact=True).fill(value)
        await form.get_by_role("button", name="Run").click()
        await ann.said(verb)
        await expect(page.locator("#machine")).to_contain_text(shown)
    await ann.line_of("share set-public app")
    await expect(page.locator("#machine")).to_contain_text("anybody")

    await page.locator("summary", has_text="rename app").click()
    form = page.locator("form[action='/run/rename'].fill")
    await form.get_by_label("new").fill("shop")
    await form.get_by_role("button", name="Run").click()
    await page.wait_for_url("**/vm/shop")
    await expect(page.locator("h1")).to_contain_text("shop")
    ann.forget("404")  # parts may be asked for by the old name before the page moves


async def test_addresses_and_tokens_can_be_copied(ann: Visitor) -> None:
    await ann.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await ann.run("new --name=web")
    await ann.open("/vm/web")
    read = "navigator.clipboard.readText()"
    await ann.page.get_by_role("button", name="Copy the SSH line").click()
    assert await ann.page.evaluate(read) == "ssh -p 2222 web@localhost"
    await ann.open("/run/ssh-key-generate-api-key")
    await ann.page.get_by_role("button", name="Run", exact=True).click()
    await ann.said("ssh-key generate-api-key")
    await ann.page.get_by_role("button", name="Copy the result").click()
    assert await ann.page.evaluate(read) == await ann.page.locator("#said pre").inner_text()


async def test_times_are_the_readers(ann: Visitor) -> None:
    await ann.run("new --name=web")
    await ann.open("/vm/web")
    made = ann.page.locator("#machine time")
    at = await made.get_attribute("datetime")
    assert at
    said = datetime.fromisoformat(at).astimezone(ZoneInfo(ZONE))
    await expect(made).to_contain_text(said.strftime("%d.%m.%Y, %H:%M"))
    await expect(made).to_have_attribute("title", f"{at[:10]} {at[11:19]} UTC")
    await expect(ann.page.locator("#events time")).to_contain_text(said.strftime("%H:%M"))


async def test_a_vm_that_goes_meanwhile(ann: Visitor) -> None:
    await ann.run("new --name=brief")
    await ann.open("/vm/brief")
    await expect(ann.page.locator("#now")).to_contain_text("of 1 vCPU")
    await ann.run("rm brief")
    await expect(ann.page.locator("h1")).to_have_text("brief")
    await expect(ann.page.locator("main")).to_contain_text("no VM 'brief'")
    await expect(ann.page.locator("#now")).to_have_count(0)
    ann.forget("404")


# -- trouble ---------------------------------------------------------------------------------


async def test_after_a_restart_rows_are_right_again(ann: Visitor) -> None:
    """Also what changed twice meanwhile, and is as it was when the page was opened."""
    for name in ("left", "right"):
        await ann.run(f"new --name={name}")
    await ann.open("/")
    left, right = (ann.page.locator(f"#vm-{name} .state") for name in ("left", "right"))
    await ann.run("pause left")
    await expect(left).to_have_text("paused")
    await ann.cloud.stop()
    await ann.run("resume left")
    async with ann.page.expect_response(lambda answer: answer.status == 503):
        pass
    await ann.cloud.start()
    await expect(left).to_have_text("running")
    await ann.run("pause right")
    await expect(right).to_have_text("paused")
    assert ann.troubles
    ann.forget(LOST)


async def test_an_act_that_a_restart_took_is_said(ann: Visitor) -> None:
    await ann.run("new --name=long")
    await ann.open("/")
    gate = ann.cloud.engine.hold[Pause] = asyncio.Event()
    try:
        await ann.page.get_by_role("button", name="pause long").click()
        await expect(ann.page.locator("#said .act-said.going")).to_contain_text("pause long")
        await ann.cloud.stop()
        await ann.page.wait_for_event("response", lambda answer: "/acts/" in answer.url)
        await expect(ann.page.locator("#said .act-said.going")).to_contain_text("pause long")
    finally:
        gate.set()
        del ann.cloud.engine.hold[Pause]
        await ann.cloud.start()
    await expect(ann.page.locator("#said")).to_contain_text("no longer kept")
    ann.forget(f"{LOST}|404")


async def test_what_cannot_be_sent_is_said(ann: Visitor) -> None:
    await ann.run("new --name=web")
    await ann.open("/")
    await ann.cloud.stop()
    try:
        await ann.page.get_by_role("button", name="pause web").click()
        await expect(ann.page.locator("#said")).to_contain_text("This cloud does not answer")
    finally:
        await ann.cloud.start()
    ann.forget(LOST)


async def test_a_page_of_a_vm_is_right_after_a_restart(ann: Visitor) -> None:
    await ann.run("new --name=sole")
    await ann.open("/vm/sole")
    await expect(ann.page.locator("#now")).to_contain_text("of 1 vCPU")
    await ann.cloud.stop()
    await ann.run("pause sole")
    async with ann.page.expect_response(lambda answer: answer.status == 503):
        pass
    await ann.cloud.start()
    await expect(ann.page.locator("h1 .state")).to_have_text("paused")
    ann.forget(LOST)


async def test_markup_and_escapes_are_text(ann: Visitor) -> None:
    await ann.run(f"new --name=evil --comment={shlex.quote(HOSTILE)}")
    vm = ann.id_of("evil")
    ann.cloud.engine.consoles[vm] = (
        f"\x1b[31mred\x1b[0m \x9b31m {HOSTILE}\r\n</pre><script>alert(1)</script>"
    )
    page = ann.page
    await ann.open("/")
    await expect(page.locator("#vm-evil .note")).to_have_text(HOSTILE)
    await ann.open("/vm/evil")
    await expect(page.locator("#machine dd", has_text="bold")).to_have_text(HOSTILE)
    await page.locator("summary", has_text="vm-logs").click()
    await expect(page.locator("pre.log")).to_contain_text(HOSTILE)
    await ann.open("/run/comment")
    await page.locator("#comment-text").fill(HOSTILE)
    await expect(page.locator(".line")).to_contain_text(HOSTILE[:20])
    assert await page.locator("#x").count() == 0


# -- without a script ------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
async def test_without_a_script(cloud: Cloud, browser: Browser, device: Device) -> None:
    async with visiting(browser, cloud, device, has_script=False, is_signed_in=False) as ann:
        page = ann.page
        await ann.goto(await ann.link())
        await page.get_by_role("button", name="Sign in").click()
        await page.wait_for_url(f"{cloud.url}/")
        await page.get_by_label("name", exact=True).fill("plain")
        gate = cloud.engine.hold[Create] = asyncio.Event()
        try:
            await page.get_by_role("button", name="Run", exact=True).click()
            await expect(page.locator(".act-said.going")).to_contain_text("new --name=plain")
        finally:
            gate.set()
            del cloud.engine.hold[Create]
        await expect(page.locator(".act-said.done")).to_contain_text("plain is running")
        await page.get_by_role("link", name="Back").click()
        await page.get_by_role("button", name="pause plain").click()
        await expect(page.locator(".act-said")).to_contain_text("plain is paused")
        await ann.open("/vm/plain")
        await expect(page.locator("time")).to_contain_text(" UTC")
        await page.get_by_role("link", name="What happened").click()
        await expect(page.locator("tbody tr")).to_have_count(2)
        await ann.open("/docs")
        await page.get_by_role("link", name="new", exact=True).click()
        await expect(page.locator("article h1")).to_have_count(1)
        await gone(ann)
