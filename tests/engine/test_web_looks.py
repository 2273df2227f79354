"""Every page in Chromium, at a desk's width and a phone's, light and dark: readable by all, and quiet.

"Quiet": nothing on the console, no request that failed, nothing the Content-Security-Policy stopped.
"""

from __future__ import annotations

import re

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from atoll.commands.library import slug_of
from atoll.commands.verbs import REGISTRY
from atoll.domain.account import Caller
from framework.pages import Cloud
from framework.visit import Device, Scheme, visiting

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]

BOTH = [("desktop", "light"), ("phone", "dark")]  # colours do not depend on the width
NAME = "a-name-as-long-as-a-person-would-think-of-for-a-vm"
PAGES = ("/", f"/vm/{NAME}", "/vm/idle", f"/vm/{NAME}/now", f"/vm/{NAME}/charts", f"/vm/{NAME}/events",
         f"/vm/{NAME}/log", "/keys", "/people", "/login/sent", "/usage", "/run", "/docs", "/docs/new",
         "/run/new", "/run/tag", "/run/ssh-key-add")  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="ann")
async def _ann(cloud: Cloud) -> Caller:
    """Somebody with something on every page."""
    ann = await cloud.person()
    await cloud.run(ann, f"new --name={NAME} --tag=prod,shop --comment='{'word ' * 30}'")
    await cloud.run(ann, "new --name=idle")
    await cloud.run(ann, "pause idle")
    await cloud.run(ann, "ssh-key generate-api-key --label=ci --exp=30d --vm=idle")
    for line in (
        f"share add {NAME} {'long' * 12}@example.com --port 3000 --path /docs --for 2h",
        f"share add {NAME} bob@example.com --root",
        f"share set-public {NAME} --path /hooks",
        f"share add-link {NAME} --for 1w",
    ):
        await cloud.run(ann, line)
    await cloud.run(await cloud.person(), f"share ask {NAME} --message 'for the review'")
    (vm,) = (vm for vm in cloud.engine.vms.values() if vm.address)
    await cloud.use(vm.vm)
    cloud.engine.consoles[vm.vm] = "[    0.000000] Linux version 6 " + "long " * 60 + "\n" * 30
    return ann


@pytest.mark.parametrize(("device", "scheme"), BOTH)
async def test_every_page_is_for_everybody(
    cloud: Cloud, browser: Browser, ann: Caller, device: Device, scheme: Scheme
) -> None:
    async with visiting(browser, cloud, device, who=ann, scheme=scheme) as visitor:
        page, found = visitor.page, list[str]()
        for path in PAGES:
            assert (await visitor.open(path)).status == 200
            if path.count("/") == 2 and path.startswith("/vm/"):
                await expect(page.locator("#charts nav")).to_be_visible()
            await page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            if path == f"/vm/{NAME}":
                await expect(page.locator("pre.log")).to_be_visible()
            found += await visitor.faults()
        assert not found, "\n".join(found)


@pytest.mark.parametrize(("device", "scheme"), BOTH)
async def test_results_are_for_everybody(
    cloud: Cloud, browser: Browser, ann: Caller, device: Device, scheme: Scheme
) -> None:
    """With a result and with an error below, and on pages of their own."""
    async with visiting(browser, cloud, device, who=ann, scheme=scheme) as visitor:
        found: list[str] = []
        for path, line in (("/run/whoami", "whoami"), ("/run/help", "help"), ("/run/rm", "rm")):
            await visitor.open(path)
            if line == "rm":
                await visitor.page.locator("#rm-vm").fill("nosuch")
            await visitor.page.get_by_role("button", name="Run", exact=True).click()
            await visitor.said(line)
            found += await visitor.faults()
        assert not found, "\n".join(found)


@pytest.mark.parametrize(("device", "scheme"), BOTH)
async def test_strangers_see_a_page_that_is_one(
    cloud: Cloud, browser: Browser, device: Device, scheme: Scheme
) -> None:
    async with visiting(browser, cloud, device, scheme=scheme, is_signed_in=False) as visitor:
        found: list[str] = []
        for path in ("/", "/login", "/login/nosuch", "/share/nosuch", "/docs/nosuch", "/nosuch"):
            await visitor.open(path)
            visitor.troubles.clear()  # that it is refused
            found += await visitor.faults()
        assert not found, "\n".join(found)


@pytest.mark.parametrize(("device", "scheme"), BOTH)
async def test_who_is_not_let_in_can_ask(
    cloud: Cloud, browser: Browser, ann: Caller, device: Device, scheme: Scheme
) -> None:
    """The page the edge leads to, and what the owner then sees."""
    port = cloud.url.rpartition(":")[2].strip("/")
    async with visiting(browser, cloud, device, scheme=scheme) as visitor:
        await visitor.open(f"/login?to=https%3A%2F%2F{NAME}.atoll.localhost%3A{port}%2F")
        visitor.troubles.clear()  # that it is refused
        found = await visitor.faults()
        await visitor.page.locator("#ask-message").fill("for the demo")
        await visitor.page.get_by_role("button", name="Run", exact=True).click()
        await visitor.said("its owner has been asked")
        found += await visitor.faults()
        email = visitor.who.account.email
    asked = (await cloud.run(ann, f"share show {NAME}")).data["requests"]
    assert (email, "for the demo") in [(one["email"], one["message"]) for one in asked]
    async with visiting(browser, cloud, device, who=ann, scheme=scheme) as visitor:
        await visitor.open(f"/vm/{NAME}")
        await visitor.page.get_by_role(
            "button", name=f"share add {NAME} {email}", exact=True
        ).click()
        await visitor.said(f"{email} may open")
        found += await visitor.faults()
    assert not found, "\n".join(found)


@pytest.mark.parametrize("device", ["desktop", "phone"])
async def test_a_share_link_is_opened_with_a_button(
    cloud: Cloud, browser: Browser, ann: Caller, device: Device
) -> None:
    link = (await cloud.run(ann, f"share add-link {NAME}")).data
    async with visiting(browser, cloud, device) as visitor:
        await visitor.open(f"/share/{link['token']}")
        found = await visitor.faults()
        assert await uses(cloud, ann, link["token"]) == 0
        async with visitor.page.expect_request(re.compile(r"/login\?to=")):
            await visitor.page.get_by_role("button", name="Open", exact=True).click()
        await visitor.page.wait_for_url(re.compile("/__atoll/login"))
        visitor.troubles.clear()  # no edge is here, which would know that address
    assert await uses(cloud, ann, link["token"]) == 1
    assert not found, "\n".join(found)


async def uses(cloud: Cloud, ann: Caller, token: str) -> int:
    """How often a link was used."""
    links = (await cloud.run(ann, f"share show {NAME}")).data["links"]
    return next(int(link["use_count"]) for link in links if link["token"] == token)


async def test_every_verb_has_a_form_that_fits_a_phone(
    cloud: Cloud, browser: Browser, ann: Caller
) -> None:
    async with visiting(browser, cloud, "phone", who=ann) as visitor:
        found: list[str] = []
        for command in REGISTRY:
            if command.name in ("ssh", "exit"):
                continue
            await visitor.open(f"/run/{slug_of(command)}")
            found += await visitor.misfits()
        assert not found, "\n".join(found)
