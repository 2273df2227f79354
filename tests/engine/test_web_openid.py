"""The question of an app who somebody is, in Chromium: readable by all, and its answer arrives.

A form whose answer leads to another host needs the Content-Security-Policy's leave, which only a browser
checks. The VM's page is control's "nothing here": what counts is that the browser got there.
"""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import Browser, expect

from framework.openid import request
from framework.pages import Cloud
from framework.visit import DEVICES, Device, Visitor, visiting

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]


def asking(cloud: Cloud, vm: str) -> tuple[str, str]:
    """Where an app of this VM sends its visitor, and where the answer goes."""
    host = urlsplit(cloud.url).netloc
    back = f"https://{vm}.{host}/callback"
    return request(client_id=f"{vm}.{host.partition(':')[0]}", redirect_uri=back), back


async def answered(visitor: Visitor, back: str) -> dict[str, list[str]]:
    """What the app is told."""
    await visitor.page.wait_for_url(f"{back}?*")
    visitor.forget(r"callback.*404|status of 404")
    return parse_qs(urlsplit(visitor.page.url).query)


@pytest.mark.parametrize("has_script", [True, False])
@pytest.mark.parametrize("device", DEVICES)
async def test_the_question_is_readable_and_its_answer_arrives(
    cloud: Cloud, browser: Browser, device: Device, has_script: bool
) -> None:
    vm = f"app-{device}-{has_script}".lower()
    path, back = asking(cloud, vm)
    async with visiting(browser, cloud, device, has_script=has_script) as visitor:
        await visitor.run(f"new --name={vm}")
        await visitor.open(path)
        await expect(visitor.page.get_by_role("heading", level=1)).to_have_text(f"Sign in to {vm}")
        if has_script:
            assert not await visitor.faults()
        await visitor.page.get_by_role("button", name="No").click()
        assert (await answered(visitor, back))["error"] == ["access_denied"]
        await visitor.open(path)
        await visitor.page.get_by_role("button", name="Tell it").click()
        told = await answered(visitor, back)
        assert (told["state"], set(told)) == (["st"], {"code", "state", "iss"})


async def test_who_is_signed_out_comes_back_to_the_question(cloud: Cloud, browser: Browser) -> None:
    path, _ = asking(cloud, "app")
    async with visiting(browser, cloud, is_signed_in=False) as visitor:
        await visitor.run("new --name=app")
        await visitor.open(path)
        visitor.forget("401")
        await visitor.goto(await visitor.link())
        await visitor.page.wait_for_url("**/oauth/authorize?*")
        await expect(visitor.page.get_by_role("button", name="Tell it")).to_be_visible()
