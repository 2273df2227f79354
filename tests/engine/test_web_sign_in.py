"""Signing in as people do, in Chromium: by mail with and without a script, by a passkey.

The authenticator is one that the browser plays itself.
"""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Browser, expect

from atoll.base.aio import poll
from framework.browser import add_authenticator
from framework.pages import Cloud
from framework.visit import DEVICES, Device, Visitor, visiting

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]


async def mailed(cloud: Cloud, to: str) -> str:
    """The text of the newest mail to somebody."""

    async def check() -> str | None:
        letters = await cloud.control.cloud.mail.letters(50)
        return next((letter.text for letter in letters if letter.to == to), None)

    return await poll(check, seconds=10, what="mail")


async def asks(visitor: Visitor) -> str:
    """Ask for mail as a person does; returns its text."""
    await visitor.open("/usage")
    email = visitor.who.account.email
    await visitor.page.get_by_label("e-mail address").fill(email)
    await visitor.page.get_by_role("button", name="E-mail me a link").click()
    await expect(visitor.page.locator("h1")).to_have_text("Look into your mail")
    visitor.forget("401")  # the page that asks to sign in
    return await mailed(visitor.cloud, email)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("has_script", [True, False], ids=["script", "no script"])
async def test_a_link_by_mail(
    cloud: Cloud, browser: Browser, device: Device, has_script: bool
) -> None:
    async with visiting(
        browser, cloud, device, is_signed_in=False, has_script=has_script
    ) as person:
        text = await asks(person)
        link = re.search(r"https://\S+", text)
        assert link
        await person.goto(link[0])
        if not has_script:
            await person.page.get_by_role("button", name="Sign in").click()
        await person.page.wait_for_url(f"{cloud.url}/")
        await expect(person.page.locator("h1")).to_contain_text("VMs")


async def test_a_link_that_is_opened_elsewhere_and_the_code(cloud: Cloud, browser: Browser) -> None:
    async with (
        visiting(browser, cloud, is_signed_in=False) as person,
        visiting(browser, cloud, "phone", is_signed_in=False) as phone,
    ):
        text = await asks(person)
        link, code = re.search(r"https://\S+", text), re.search(r"there: (\S+)", text)
        assert link
        assert code
        await phone.goto(link[0])
        await expect(phone.page.get_by_role("alert")).to_contain_text("only in the browser")
        phone.forget("403")
        await person.page.get_by_label("code").fill("0000-0000")
        await person.page.get_by_role("button", name="Sign in").click()
        await expect(person.page.get_by_role("alert")).to_contain_text("not the code")
        person.forget("403")
        await person.page.get_by_label("code").fill(code[1])
        await person.page.get_by_role("button", name="Sign in").click()
        await person.page.wait_for_url(f"{cloud.url}/")


@pytest.mark.parametrize("device", DEVICES)
async def test_a_passkey_is_made_and_signs_in(
    cloud: Cloud, browser: Browser, device: Device
) -> None:
    async with visiting(browser, cloud, device) as person:
        page = person.page
        devtools, id_ = await add_authenticator(page)
        await person.open("/keys")
        await page.get_by_text("New passkey").click()
        await page.get_by_label("name", exact=True).first.fill("phone")
        assert not await person.faults()
        await page.get_by_role("button", name="Make a passkey").click()
        await expect(page.locator("#keys")).to_contain_text("passkey rm phone")
        held = await devtools.send("WebAuthn.getCredentials", {"authenticatorId": id_})
        (credential,) = held["credentials"]
        assert (credential["isResidentCredential"], credential["rpId"]) == (True, "atoll.localhost")
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.locator("h1")).to_have_text("Sign in")
        person.forget("401")
        assert not await person.faults()
        await page.get_by_role("button", name="Use a passkey").click()
        await expect(page.locator("h1")).to_contain_text("VMs")
        sessions = (await cloud.data(person.who, "session ls"))["sessions"]
        assert [one["how"] for one in sessions] == ["passkey"]
        await person.run("passkey rm phone")
        await page.get_by_role("button", name="Sign out").click()
        await page.get_by_role("button", name="Use a passkey").click()
        await expect(page.locator("main")).to_contain_text("not good here")
        person.forget("401|403")


async def test_nothing_chosen_is_said(cloud: Cloud, browser: Browser) -> None:
    async with visiting(browser, cloud, is_signed_in=False) as person:
        await add_authenticator(person.page)
        await person.open("/")
        button = person.page.get_by_role("button", name="Use a passkey")
        await button.click()
        await expect(person.page.get_by_role("alert")).to_have_text("Nothing was chosen.")
        await expect(button).to_be_enabled()
        person.forget("401")


async def test_without_a_script_there_is_no_passkey_to_choose(
    cloud: Cloud, browser: Browser
) -> None:
    async with visiting(browser, cloud, is_signed_in=False, has_script=False) as person:
        await person.open("/")
        await expect(person.page.get_by_role("button", name="E-mail me a link")).to_be_visible()
        await expect(person.page.get_by_role("button", name="Use a passkey")).to_be_hidden()
        person.forget("401")


async def test_one_signs_the_other_browsers_out(cloud: Cloud, browser: Browser) -> None:
    async with visiting(browser, cloud) as here, visiting(browser, cloud, who=here.who) as there:
        await here.run("new --name seen")
        await there.open("/")
        await here.open("/keys")
        await expect(here.page.locator("#keys")).to_contain_text("this one")
        await here.line_of("session rm --others")
        await expect(there.page.locator("#said")).to_contain_text("signed out")
        await here.open("/keys")
        await expect(here.page.locator("h1")).to_contain_text("Keys")
        await here.run("rm --all '*'")


@pytest.mark.parametrize("device", DEVICES)
async def test_pages_of_people_and_mail(cloud: Cloud, browser: Browser, device: Device) -> None:
    async with visiting(browser, cloud, device, who=cloud.control.ann) as ann:
        await ann.open("/people")
        await ann.page.locator("summary").click()
        await ann.page.get_by_label("email needed").fill("eve@example.com")
        await ann.page.get_by_label("message").fill("<b>see</b>")
        await ann.page.get_by_role("button", name="Run").click()
        await ann.said("mail is on its way")
        await expect(ann.page.locator("#people")).to_contain_text("invite rm eve@example.com")
        assert not await ann.faults()
        await mailed(cloud, "eve@example.com")
        await ann.open("/mail")
        await expect(ann.page.locator("main")).to_contain_text("<b>see</b>")
        assert not await ann.faults()
        await ann.run("invite rm eve@example.com")
