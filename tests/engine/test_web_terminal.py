"""Terminals as a person has them: Chromium on the page, a control behind it, a real shell over SSH.

No engine runs: the VM is an sshd in this process. What the floods carry comes from a source beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Page

from atoll.base.aio import poll
from atoll.doors.web.assets import for_tests
from framework.fountain import Fountains
from framework.site import WATCH, Screen, Site, site

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

FLOOD = 100_000_000


@pytest_asyncio.fixture(name="site", scope="module", loop_scope="module")
async def _site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with site(tmp_path_factory.mktemp("site")) as made:
        yield made


async def test_typing_and_a_reload_that_keeps_the_screen(site: Site) -> None:
    async with site.person() as ann:
        screen = await site.opened(ann)
        await screen.type(
            "echo $((6*7)); tput setaf 1; echo co''lour; printf '\\e[38;2;9;99;9mdeep\\e[m\\n'\n"
        )
        await screen.shows("^42$", "^colour$", "^deep$", r"^\$$")
        await screen.type("cd /tmp; left=be''hind\n")
        await screen.shows("hind$", r"^\$$")
        before = await screen.rows()
        await screen.page.reload()
        await screen.shows("hind$", r"^\$$")
        assert (await screen.rows())[: len(before)] == before
        await screen.type("pwd; echo $left\n")
        await screen.shows("^/tmp$", "^behind$", r"^\$$")


async def test_a_question_in_old_output_is_not_answered_again(site: Site) -> None:
    """`\\e[6n` asks where the cursor is; the answer would be typed into the shell at each reload."""
    async with site.person() as ann:
        screen = await site.opened(ann)
        await screen.type("IFS= read -rs -d R -p $'\\e[6n' where; echo got ${#where}\n")
        await screen.shows(r"^got \d+$", r"^\$$")
        await screen.page.reload()
        await screen.shows(r"^got \d+$", r"^\$$")
        await screen.type("echo clean\n")
        await screen.shows(r"^\$ echo clean$", "^clean$", r"^\$$")


async def test_a_connection_that_is_cut_comes_back(site: Site) -> None:
    async with site.person() as ann:
        screen = await site.opened(ann)
        await screen.type("for n in 1 2 3 4 5 6 7 8 9; do echo tick $n; sleep 0.3; done\n")
        await screen.shows("^tick 1$")
        site.front.cut()
        await screen.says("trying again")
        await screen.type("echo from be''fore\n")
        site.front.mend()
        await screen.shows("^from before$", r"^\$$")
        ticks = [row for row in await screen.rows() if row.startswith("tick")]
        assert ticks == [f"tick {number}" for number in range(1, 10)]
        await screen.says("^$")


async def test_several_at_once_and_in_two_pages(site: Site) -> None:
    async with site.person() as ann:
        one, two = await site.opened(ann), await site.opened(ann)
        await one.type("name=one; echo $name\n")
        await two.type("echo [$name]\n")
        await one.shows("^one$", r"^\$$")
        await two.shows(r"^\[\]$", r"^\$$")
        again = Screen(await ann.new_page())
        await again.page.goto(one.page.url)
        await again.shows("^one$", r"^\$$")
        await again.type("echo be''side $name\n")
        await one.shows("^beside one$", r"^\$$")


async def test_the_window_and_the_letters_resize_the_terminal(site: Site) -> None:
    async with site.person() as ann:
        screen = await site.opened(ann)
        page, columns = screen.page, "document.getElementById('terminal').terminal.cols"

        async def follows(change: str) -> int:
            """Wait until the page's columns are others, and the shell's the same."""

            async def is_so() -> bool | None:
                return await page.evaluate(f"{columns} {change}") or None

            await poll(is_so, seconds=10, what=change)
            now: int = await page.evaluate(columns)
            wait = f"until stty size | grep -q ' {now}$'; do sleep 0.1; done; clear\n"
            await screen.type(wait)
            await screen.type(f"echo no''w {now}\n")
            await screen.shows(f"^now {now}$", r"^\$$")
            return now

        wide = await follows("> 100")
        await page.set_viewport_size({"width": 700, "height": 500})
        narrow = await follows(f"< {wide}")
        await page.click("[data-key=larger]")
        assert await follows(f"< {narrow}") > 40
        await page.click("[data-key=smaller]")
        await follows(f"== {narrow}")
        await page.reload()
        await screen.shows(r"^\$$")
        await follows(f"== {narrow}")


async def test_a_paste_of_several_lines_comes_whole(site: Site) -> None:
    async with site.person(permissions=["clipboard-read", "clipboard-write"]) as ann:
        screen = await site.opened(ann)
        lines = "\n".join(f"row {number} of a paste, {'x' * 60}" for number in range(3000))
        await screen.type("cat > /dev/null\n")
        await screen.page.evaluate("text => navigator.clipboard.writeText(text)", "echo a\necho b")
        await screen.type("\x04")
        await screen.shows(r"^\$$")  # only the shell marks pastes, and cat may still be there
        await screen.page.click("[data-key=paste]")
        await screen.shows("echo a", "echo b")
        assert "a" not in await screen.rows(), "a marked paste does not send itself"
        await screen.type("\n")
        await screen.shows("^a$", "^b$", r"^\$$")
        await screen.type("stty -echo; echo rea''dy; md5sum\n")
        await screen.shows("^ready$")
        await screen.page.evaluate("text => navigator.clipboard.writeText(text)", lines)
        await screen.page.keyboard.press("Control+Shift+V")
        await screen.type("\n\x04")
        digest = hashlib.md5((lines + "\n").encode()).hexdigest()
        await screen.shows(f"^{digest}  -$", r"^\$$", seconds=30)


async def test_the_prompt_completes_and_pages(site: Site) -> None:
    async with site.person() as ann:
        screen = await site.opened(ann, "New command line")
        await screen.type("who")
        await screen.page.keyboard.press("Tab")
        await screen.page.keyboard.press("Enter")
        await screen.shows("^laptop", "^atoll>$")
        await screen.type("doc all\n")
        await screen.shows("space next")
        await screen.type("q")
        await screen.shows("^atoll>$")
        await screen.type("exit\n")
        await screen.says("You have left the prompt")
        await screen.page.click("button:text-is('New terminal')")
        await screen.shows("^atoll>$")


async def test_exit_says_so_and_offers_a_new_one(site: Site) -> None:
    async with site.person() as ann:
        screen = await site.opened(ann)
        await screen.type("exit 3\n")
        await screen.says("ended with exit code 3")
        await screen.page.reload()
        await screen.says("ended with exit code 3")
        await screen.page.click("button:text-is('New terminal')")
        await screen.shows(r"^\$$")


async def test_without_a_mouse_and_for_a_reader(site: Site) -> None:
    async with site.person() as ann:
        screen = await site.opened(ann)
        await screen.page.keyboard.press("Tab")
        inside = "document.getElementById('terminal').contains(document.activeElement)"
        assert await screen.page.evaluate(inside), "Tab is typed"
        await screen.page.keyboard.press("Control+Shift+L")
        assert not await screen.page.evaluate(inside), "and this leaves"
        assert await screen.page.evaluate("document.activeElement.dataset.key") == "escape"
        await accessible(screen.page)
        await screen.page.emulate_media(color_scheme="dark")
        await accessible(screen.page)
        await screen.page.goto(f"{site.house.origin}/terminal")
        await accessible(screen.page)


async def test_on_a_phone(site: Site) -> None:
    phone = {"viewport": {"width": 360, "height": 700}, "has_touch": True, "is_mobile": True}
    async with site.person(**phone) as ann:
        screen = await site.opened(ann)
        wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        assert not await screen.page.evaluate(wide)
        await screen.type("sleep 600\n")
        await screen.page.tap("[data-key=control]")
        await screen.type("c")
        await screen.shows(r"\^C", r"^\$$")
        await screen.type("echo up\n")
        await screen.shows("^up$", r"^\$$")
        await screen.page.tap("[data-key=up]")
        await screen.type("\n")
        await screen.shows("^up$", r"echo up$", "^up$", r"^\$$")
        await accessible(screen.page)


async def test_signing_out_ends_it(site: Site) -> None:
    async with site.person() as ann:
        screen = await site.opened(ann)
        await site.house.sessions.revoke(site.house.cookies["ann"])
        await screen.says("You have signed out")
    await site.house.sign_in("ann")


async def test_a_flood_of_100_mb_leaves_the_page_its_time(tmp_path: Path) -> None:
    async with site(tmp_path, Fountains()) as source, source.person() as ann:
        screen = await source.opened(ann, "New command line")
        await screen.page.evaluate(WATCH)
        began = await screen.page.evaluate("performance.now()")
        await screen.type(f"{FLOOD}\n")
        await screen.shows("^done$", "^>$", seconds=100)
        took = await screen.page.evaluate("performance.now()") - began
        worst = max(await screen.page.evaluate("gaps"))
        assert worst < took / 3, f"busy {worst:.0f} of {took:.0f} ms: how fast it is, bench/ says"

        await screen.type("9000000000\n")
        await screen.shows("quick brown fox")
        await screen.page.keyboard.press("Control+C")
        await screen.shows("^stopped$", "^>$", seconds=5)


async def accessible(page: Page) -> None:
    """No finding of axe: labels, roles, contrast."""
    await page.evaluate((for_tests() / "axe.js").read_text() + ";0")
    found = await page.evaluate("axe.run()")
    assert not [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found["violations"]]
