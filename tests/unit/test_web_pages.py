"""The pages over a whole control with a fake engine: what they show, and that they run lines only."""

from __future__ import annotations

import asyncio
import gzip
import html
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlencode

import httpx2
import pytest

from atoll.base.errors import Conflict
from atoll.commands.library import slug_of
from atoll.commands.parse import parse
from atoll.commands.verbs import REGISTRY
from atoll.domain.web import SESSION_COOKIE
from atoll.doors.web.pages import prose
from atoll.rpc.messages import Stat, StatVm
from fakes.engine import FakeEngine
from framework.api import Door, door
from framework.cloud import Control, control
from framework.forms import PageForm, forms, scripts

SIGNED_IN = ("/", "/vm/web", "/vm/web/now", "/vm/web/log", "/keys", "/people", "/mail", "/usage", "/run",
             "/run/new", "/docs", "/docs/new")  # fmt: skip
# Not lines: a session's end, a terminal, what only a browser can make, and what the list is asked for,
# which changes nothing.
OWN = {
    "/logout": set(),
    "/terminal": {"kind", "vm"},
    "/": {"match"},
    "/passkeys": {"credential", "name"},
}
PAGE_BYTES = 150_000


Fields: TypeAlias = dict[str, str] | list[tuple[str, str]] | bytes


class Browser:
    """Ann's browser."""

    def __init__(self, api: Door, cookie: str, cloud: Control) -> None:
        self.cloud = cloud
        self.client = api.client
        self.headers = {"cookie": f"{SESSION_COOKIE}={cookie}", "accept": "text/html"}

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        """Open a page."""
        return await self.client.get(path, headers=self.headers | _named(headers))

    async def post(self, path: str, fields: Fields, **headers: str) -> httpx2.Response:
        """Send a form; redirects are not followed."""
        kind = {"content-type": "application/x-www-form-urlencoded"}
        body = fields if isinstance(fields, bytes) else urlencode(fields).encode()
        return await self.client.post(
            path, content=body, headers=self.headers | kind | _named(headers)
        )

    async def submit(self, path: str, fields: Fields) -> httpx2.Response:
        """Send a form and open what it leads to, when it is over."""
        sent = await self.post(path, fields)
        assert sent.status_code == 303, sent.text
        for _ in range(100):
            page = await self.get(sent.headers["location"])
            if 'http-equiv="refresh"' not in page.text:
                return page
            await asyncio.sleep(0)
        raise AssertionError("the act is not over")


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.fixture(name="browser")
async def _browser(tmp_path: Path) -> AsyncIterator[Browser]:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with (
        engine.serving(),
        control(tmp_path / "control", engine, loops=True) as cloud,
        door(cloud, tmp_path) as api,
    ):
        await cloud.run("new --name=web --tag=prod --comment='<b>bold</b>'")
        await cloud.run("new --name=db")
        await cloud.run("pause db")
        session = await api.sessions.new_session(cloud.ann.account.id)
        yield Browser(api, session, cloud)


@pytest.mark.parametrize("path", SIGNED_IN)
async def test_a_page_is_small_whole_and_without_inline_script(browser: Browser, path: str) -> None:
    page = await browser.get(path)
    assert page.status_code == 200
    assert len(gzip.compress(page.content)) < PAGE_BYTES
    sources, inline = scripts(page.text)
    assert not inline
    assert all(source.startswith("/static/") for source in sources)
    assert "<h1" in page.text
    assert 'name="viewport"' in page.text
    assert "bold</b>" not in page.text


async def test_pages_are_compressed_for_who_can_read_it(browser: Browser) -> None:
    small = await browser.get("/", accept_encoding="gzip")
    assert small.headers["content-encoding"] == "gzip"
    assert "web" in small.text
    plain = await browser.get("/", accept_encoding="identity")
    assert "content-encoding" not in plain.headers
    assert plain.text == small.text


@pytest.mark.parametrize("path", [p for p in SIGNED_IN if not p.startswith("/docs")])
async def test_strangers_see_how_to_sign_in(browser: Browser, path: str) -> None:
    page = await browser.client.get(path, headers={"accept": "text/html"})
    assert page.status_code == 401
    assert "ssh -p 2222 localhost browser" in page.text
    assert "web" not in re.findall(r"\w+", page.text)
    answer = await browser.client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (401, "denied")


async def test_the_list_has_everything_at_once(browser: Browser) -> None:
    page = await browser.get("/")
    assert page.text.index('id="vm-db"') < page.text.index('id="vm-web"')
    for text in ("https://web.atoll.localhost:8443/", "prod", "paused", "pause web", "resume db"):
        assert text in page.text, text


async def test_every_form_of_every_page_is_a_verb(browser: Browser) -> None:
    """No page has a power that the command line has not."""
    verbs = {f"/run/{slug_of(command)}": command for command in REGISTRY}
    every = [*SIGNED_IN, "/vm/db", *(p for p in verbs if p not in ("/run/ssh", "/run/exit"))]
    seen = set()
    for path in every:
        for form in forms((await browser.get(path)).text):
            assert form.method == ("get" if form.action == "/" else "post")
            if form.action in OWN:
                assert {name for name, _ in form.fields} <= OWN[form.action]
                continue
            command = verbs[form.action]
            seen.add(command.name)
            names = {parameter.name for parameter in command.parameters}
            assert {name for name, _ in form.fields} | form.asked <= names | {"dry_run"}
    assert seen == {command.name for command in REGISTRY} - {"ssh", "exit"}


async def test_a_form_runs_the_line_it_shows_and_no_other(browser: Browser) -> None:
    """What a button says is what its form is answered with, and what is run."""
    for path in ("/", "/vm/web", "/vm/db", "/keys"):
        for form in forms((await browser.get(path)).text):
            if form.action in OWN:
                continue
            slug = form.action.removeprefix("/run/")
            said = await browser.post(f"/line/{slug}", form.fields)
            line = _code(said.text)
            shown = form.text.split("only say")[0].strip().splitlines()[-1].strip()
            if "needed" not in form.text:
                assert line == shown
                assert parse(REGISTRY, line).command.name.replace(" ", "-") == slug
            assert line


def _code(page: str) -> str:
    match = re.search(r"<code>(.*?)</code>", page)
    return html.unescape(match[1]) if match else ""


async def test_create_form(browser: Browser) -> None:
    fields = {
        "name": "app",
        "image": "",
        "cpu": "2",
        "tag": "a,b",
        "setup_script": "#!/bin/sh\r\n:",
    }
    line = await browser.post("/line/new", fields)
    assert _code(line.text) == "new --name=app --cpu=2 --tag=a,b --setup-script=-"
    page = await browser.submit("/run/new", fields)
    assert "app is running" in page.text
    assert "new --name=app --cpu=2 --tag=a,b --setup-script=-" in page.text
    assert (await browser.cloud.data("ls -l app"))["vms"][0]["cpus"] == 2
    assert (await browser.cloud.data("events app"))["events"][-1]["door"] == "web"


async def test_an_error_is_the_one_of_the_command_line(browser: Browser) -> None:
    page = await browser.submit("/run/new", {"name": "web"})
    with pytest.raises(Conflict) as error:
        await browser.cloud.run("new --name=web")
    text = html.unescape(page.text)
    assert error.value.message in text
    assert error.value.hint in text
    assert 'class="act-said failed"' in text


async def test_what_would_never_end_is_shown_as_it_is_now(browser: Browser) -> None:
    asked = forms((await browser.get("/run/events")).text)[1].asked
    assert "follow" not in asked
    page = await browser.submit("/run/events", {"follow": "true"})
    assert "events --follow" in page.text
    assert "new" in page.text


async def test_dry_run_changes_nothing(browser: Browser) -> None:
    page = await browser.submit("/run/rm", {"vm": "web", "dry_run": "true"})
    assert "rm --dry-run web" in page.text
    assert len((await browser.cloud.data("ls"))["vms"]) == 2


async def test_rm_offers_undo(browser: Browser) -> None:
    page = await browser.submit("/run/rm", {"vm": "web"})
    undo = next(form for form in forms(page.text) if form.action == "/run/undo")
    assert (await browser.get("/vm/web")).status_code == 404
    await browser.submit(undo.action, undo.fields)
    assert (await browser.get("/vm/web")).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"admin=1", 400, "takes no"),
        (b"name=%ff", 400, "cannot be read"),
        (b"\xff", 400, "cannot be read"),
        (b"name=" + b"x" * 300_000, 400, "at most 256 KiB"),
        (b"&".join([b"tag=a"] * 300), 400, "more than 200"),
        (b"name=" + b"x" * 10_000, 303, ""),  # the verb itself refuses
        (b"name=a%00b", 303, ""),
    ],
)  # fmt: skip
async def test_hostile_forms(browser: Browser, body: bytes, status: int, text: str) -> None:
    answer = await browser.post("/run/new", body)
    assert answer.status_code == status
    assert text in answer.text
    assert len((await browser.cloud.data("ls"))["vms"]) == 2


@pytest.mark.parametrize("path", ["/run/nosuch", "/run/ssh", "/run/exit", "/line/nosuch"])
async def test_no_such_form(browser: Browser, path: str) -> None:
    assert (await browser.post(path, {})).status_code == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "same-site", "origin": "https://web.atoll.localhost:8443"},
        {"sec_fetch_site": "cross-site"},
        {"origin": "null"},
        {"origin": "https://web.atoll.localhost:8443"},
        {"origin": "https://["},
    ],
)
@pytest.mark.parametrize("path", ["/run/rm", "/line/rm"])
async def test_forms_of_other_sites_are_refused(
    browser: Browser, path: str, headers: dict[str, str]
) -> None:
    answer = await browser.post(path, {"vm": "web"}, **headers)
    assert answer.status_code == 403
    assert len((await browser.cloud.data("ls"))["vms"]) == 2


async def test_who_signs_out_while_a_form_is_on_its_way_runs_nothing(browser: Browser) -> None:
    """The client decides how long its form takes to arrive."""

    async def body() -> AsyncIterator[bytes]:
        yield b"vm=w"
        cookie = browser.headers["cookie"].partition("=")[2]
        await browser.cloud.language._sessions.revoke(cookie)  # type: ignore[attr-defined]
        yield b"eb"

    kind = {"content-type": "application/x-www-form-urlencoded"}
    answer = await browser.client.post("/run/rm", content=body(), headers=browser.headers | kind)
    assert answer.status_code == 401
    assert len((await browser.cloud.data("ls"))["vms"]) == 2


async def test_a_multipart_form_is_refused(browser: Browser) -> None:
    answer = await browser.post("/run/rm", b"", content_type="multipart/form-data; boundary=x")
    assert answer.status_code == 400


async def test_an_act_is_its_accounts_alone(browser: Browser) -> None:
    sent = await browser.post("/run/whoami", {})
    mine = await browser.get(sent.headers["location"])
    assert "ann@example.com" in mine.text
    cookie = await browser_of_bob(browser)
    theirs = await browser.client.get(
        sent.headers["location"], headers={"cookie": cookie, "accept": "text/html"}
    )
    assert theirs.status_code == 404


async def browser_of_bob(browser: Browser) -> str:
    """A Cookie header of bob's."""
    sessions = browser.cloud.language._sessions
    return f"{SESSION_COOKIE}={await sessions.new_session(browser.cloud.bob.account.id)}"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("match", "line", "rows"),
    [
        ("eb", "ls -l -- '*eb*'", ["web"]),
        ("w*", "ls -l -- 'w*'", ["web"]),
        ("-l", "ls -l -- '*-l*'", []),
        ("'; rm *", "ls -l -- ''\"'\"'; rm *'", []),
        ("x" * 5_000, f"ls -l -- '*{'x' * 5_000}*'", []),
        (" ", "ls -l", ["db", "web"]),
    ],
)
async def test_the_list_is_what_a_pattern_finds(
    browser: Browser, match: str, line: str, rows: list[str]
) -> None:
    page = await browser.get(f"/?{urlencode({'match': match})}")
    assert re.findall('class="name" href="/vm/([^"]+)"', page.text) == rows
    assert f'<code class="says">{line}</code>' in html.unescape(page.text)
    assert ("No such VM" in page.text) is (not rows)


async def test_the_way_back_leads_to_what_is_there(browser: Browser) -> None:
    """A VM's page that is gone, or elsewhere, is not where its own act leads back to."""
    sent = await browser.post(
        "/run/rename", {"old": "web", "new": "shop"}, referer="https://x/vm/web"
    )
    part = await browser.get(sent.headers["location"], hx_request="true")
    assert part.headers["hx-redirect"] == "/vm/shop"
    assert 'href="/vm/shop"' in (await browser.get(sent.headers["location"])).text
    sent = await browser.post("/run/rm", {"vm": "shop"}, referer="https://x/vm/shop")
    assert 'href="/">Back' in (await browser.get(sent.headers["location"])).text
    part = await browser.get("/vm/shop", hx_request="true")
    assert (part.status_code, part.headers["hx-retarget"]) == (404, "#main")


async def test_a_referer_that_is_no_url_leads_back_to_the_list(browser: Browser) -> None:
    sent = await browser.post("/run/whoami", {}, referer="https://[")
    assert 'href="/">Back' in (await browser.get(sent.headers["location"])).text


async def test_a_log_that_is_not_there_is_no_error_of_the_page(browser: Browser) -> None:
    page = await browser.get("/vm/db/log")
    assert page.status_code == 200
    assert "is not running (it is paused)" in page.text


async def test_ports_that_are_served_are_links(browser: Browser) -> None:
    stats = browser.cloud.engine.stats
    (vm,) = (vm.vm for vm in browser.cloud.engine.vms.values() if vm.address)
    stats[vm] = Stat(vm=vm, ports=(22, 3000, 10_000))
    page = await browser.get("/vm/web/now")
    assert re.findall('href="(https://[0-9][^"]*)"', page.text) == [
        "https://3000-web.atoll.localhost:8443/"
    ]


async def test_pages_show_no_vm_of_others(browser: Browser) -> None:
    headers = {"cookie": await browser_of_bob(browser), "accept": "text/html"}
    assert "No VM yet" in (await browser.client.get("/", headers=headers)).text
    for part in ("", "/now", "/events", "/log", "/charts"):
        answer = await browser.client.get(f"/vm/web{part}", headers=headers)
        assert answer.status_code == 404, part


async def test_a_vm_that_stops_while_it_is_measured(browser: Browser) -> None:
    browser.cloud.engine.refuse[StatVm].append(Conflict("web is being paused"))
    part = await browser.get("/vm/web/now", hx_request="true")
    assert (part.status_code, part.text.strip()) == (200, "<p>It does not run.</p>")


async def test_parts_come_without_the_page_for_htmx(browser: Browser) -> None:
    part = await browser.get("/vm/web/now", hx_request="true")
    assert "<html" not in part.text
    missing = await browser.get("/vm/nosuch/now", hx_request="true")
    assert missing.status_code == 404
    assert "<html" not in missing.text
    assert missing.headers["hx-reselect"] == "#error"


def test_backquotes_mark_what_is_typed_and_nothing_else() -> None:
    assert prose("`undo` <b> `a < b`, `") == "<code>undo</code> &lt;b&gt; <code>a &lt; b</code>, `"


def test_forms_are_read_as_a_browser_would() -> None:
    """The reader of these tests itself."""
    read = forms(
        '<form action="/run/x" method="post"><input type="hidden" name="a" value="1">'
        '<textarea name="b">t</textarea><select name="c"><option value="">x</option>'
        '<option value="2" selected>y</option></select><button>go</button></form>'
    )
    assert read == [
        PageForm("/run/x", "post", [("a", "1"), ("b", "t"), ("c", ""), ("c", "2")],
                 {"b", "c"}, "xygo")
    ]  # fmt: skip
