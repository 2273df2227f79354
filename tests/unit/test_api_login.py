"""The sign-in pages, in process: where they lead, what they keep, whom they refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from atoll.base import ids
from atoll.config import Config
from atoll.domain.account import Account, Published
from atoll.domain.web import HOST_HEADER, SESSION_COOKIE, TOKEN_COOKIE
from atoll.services.answers import Answers
from atoll.services.changes import Changes
from atoll.services.keyring import KeyRing
from atoll.services.sessions import Sessions
from atoll.services.tokens import Tokens
from atoll.store import accounts
from atoll.store.engine import Store
from framework.cloud import store_in
from framework.front import Heard, NoLanguage, http, ways_upon
from framework.published import published

DOMAIN = "atoll.localhost"
WEB = f"web.{DOMAIN}"


class House:
    """The application, an account, one private VM and one public VM of somebody else."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.ann = Account(id=ids.new("acct"), email="<ann>@example.com")
        self.vms = [
            published("web", "10.213.1.2", {self.ann.id}),
            published("their", None, {"acct-x"}),
            published("blog", None, {"acct-x"}, is_public=True),
        ]
        self.sessions = Sessions(
            store=store,
            changes=Changes(),
            keys=KeyRing(folder / "token_keys.json"),
            session_seconds=3600,
        )
        self.heard = Heard()
        (folder / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
        built = http(
            config=Config(), language=NoLanguage(), sessions=self.sessions,
            callers=Tokens(store=store, domain=DOMAIN), changes=Changes(),
            answers=Answers(store=store, key=bytes(32)), published=self.named,
            ca=folder / "ca.pem", audit=self.heard, ways=ways_upon(store, Config()),
        )  # fmt: skip
        self.client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=built.app), base_url=f"https://{DOMAIN}:8443"
        )

    async def named(self, name: str) -> Published | None:
        """See Publishing."""
        return next((vm for vm in self.vms if vm.vm_name == name), None)

    async def get(self, path: str, *, host: str = DOMAIN, **headers: str) -> httpx2.Response:
        """A browser's GET through HAProxy."""
        return await self.client.get(path, headers=_headers(host, headers))

    async def post(self, path: str, *, host: str = DOMAIN, **headers: str) -> httpx2.Response:
        """A browser's POST through HAProxy."""
        return await self.client.post(path, headers=_headers(host, headers))

    async def on_its_way(self, to: str, cookie: str) -> tuple[str, str]:
        """Where a signed-in browser is led to with its code, and the cookie it got at the VM's host."""
        begin = urlsplit((await self.get(f"/login?to={to}", cookie=cookie)).headers["location"])
        assert begin.path == "/__atoll/login"
        named = {"host": begin.netloc, HOST_HEADER: str(begin.hostname)}
        begun = await self.client.get(f"{begin.path}?{begin.query}", headers=named)
        onward = begun.headers["location"].removeprefix(f"https://{DOMAIN}:8443")
        led = await self.get(onward, cookie=cookie)
        return led.headers["location"], begun.headers["set-cookie"].partition(";")[0]

    async def signed_in(self) -> str:
        """A Cookie header."""
        return f"{SESSION_COOKIE}={await self.sessions.new_session(self.ann.id)}"


def _headers(host: str, more: dict[str, str]) -> dict[str, str]:
    named = {name.replace("_", "-"): value for name, value in more.items()}
    return {HOST_HEADER: host, "accept": "text/html", **named}


@pytest.fixture(name="house")
async def _house(tmp_path: Path) -> AsyncIterator[House]:
    store = await store_in(tmp_path)
    house = House(store, tmp_path)
    async with store.begin() as tx:
        await accounts.add(tx, house.ann, now=0.0)
    async with house.client:
        yield house
    await store.close()


async def test_looking_at_a_link_uses_nothing(house: House) -> None:
    code = await house.sessions.login_code(house.ann.id)
    looked = await house.get(f"/login/{code}")
    assert looked.status_code == 200
    assert looked.headers["referrer-policy"] == "same-origin"  # else browsers name no origin
    assert "set-cookie" not in looked.headers
    redeemed = await house.post(f"/login/{code}")
    assert (redeemed.status_code, redeemed.headers["location"]) == (303, "/")


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "same-site", "origin": f"https://{WEB}:8443"},
        {"sec_fetch_site": "cross-site"},
        {"origin": "null"},
    ],
)
async def test_no_other_page_signs_a_browser_in(house: House, headers: dict[str, str]) -> None:
    """Else a VM's page makes its reader work as its owner, and read out what is typed."""
    code = await house.sessions.login_code(house.ann.id)
    answer = await house.post(f"/login/{code}", **headers)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    assert (await house.post(f"/login/{code}")).status_code == 303, "it was not used"


async def test_a_link_changes_who_is_signed_in_only_when_that_is_wanted(house: House) -> None:
    path = f"/login/{await house.sessions.login_code(house.ann.id)}"
    assert "static/go." in (await house.get(path)).text
    asked = await house.get(path, cookie=await house.signed_in())
    assert "static/go." not in asked.text
    assert "&lt;ann&gt;@example.com is signed in here" in asked.text


async def test_session_cookie_is_locked_to_the_host(house: House) -> None:
    answer = await house.post(f"/login/{await house.sessions.login_code(house.ann.id)}")
    made = answer.headers.get_list("set-cookie")[0]
    assert made.startswith(f"{SESSION_COOKIE}=")
    for word in ("HttpOnly", "Secure", "Path=/", "SameSite=lax"):
        assert word in made
    assert "Domain" not in made


async def test_code_in_a_link_is_escaped(house: House) -> None:
    page = await house.get("/login/%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E")
    assert "<script>alert" not in page.text


async def test_who_is_signed_in_is_escaped(house: House) -> None:
    page = await house.get("/docs", cookie=await house.signed_in())
    assert page.status_code == 200
    assert "&lt;ann&gt;@example.com" in page.text


async def test_handoff_to_a_vm(house: House) -> None:
    where, way = await house.on_its_way(f"https://{WEB}:3001/a%3Fb", await house.signed_in())
    assert where.startswith(f"https://{WEB}:3001/__atoll/auth?code=")
    arrived = await house.get(where.removeprefix(f"https://{WEB}:3001"), host=WEB, cookie=way)
    assert arrived.headers["location"] == "/a?b"
    assert arrived.headers["set-cookie"].startswith(f"{TOKEN_COOKIE}=ey")


async def test_public_vm_may_know_who_comes(house: House) -> None:
    answer = await house.get(
        f"/login?to=https://blog.{DOMAIN}:8443/", cookie=await house.signed_in()
    )
    assert answer.status_code == 303


async def test_no_names_for_the_signed_in_stranger(house: House) -> None:
    cookie = await house.signed_in()
    theirs = await house.get(f"/login?to=https://their.{DOMAIN}:8443/", cookie=cookie)
    nobodys = await house.get(f"/login?to=https://nosuch.{DOMAIN}:8443/", cookie=cookie)
    assert theirs.status_code == nobodys.status_code == 403
    assert theirs.text == nobodys.text.replace("nosuch", "their")


@pytest.mark.parametrize(
    "to", ["https://evil.example/", "//evil.example", "javascript:alert(1)", "https://web.evil/"]
)
async def test_open_redirect_is_refused(house: House, to: str) -> None:
    answer = await house.get(f"/login?to={to}", cookie=await house.signed_in())
    assert answer.status_code == 400
    assert "location" not in answer.headers


@pytest.mark.parametrize("cookie", ["", "__Host-atoll-way=", f"__Host-atoll-way={'x' * 22}"])
async def test_a_code_of_somebody_else_signs_nobody_in(house: House, cookie: str) -> None:
    """Login CSRF: who makes a browser open their own code would have it act as theirs."""
    where, _ = await house.on_its_way(f"https://{WEB}:8443/", await house.signed_in())
    answer = await house.get(where.partition(":8443")[2], host=WEB, cookie=cookie)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


async def test_the_way_begins_at_its_own_host(house: House) -> None:
    for host in (
        "evil.example",
        f"their.{DOMAIN}:8443",
        f"{WEB}:1",
        "",
        f"{WEB}:8443@evil.example",
    ):
        named = {"host": host, HOST_HEADER: WEB}
        answer = await house.client.get("/__atoll/login?to=/a", headers=named)
        assert answer.status_code == 400, host


@pytest.mark.parametrize("to", ["//evil.example", "/\\evil.example", "https://evil.example", ""])
async def test_after_the_handoff_only_a_path(house: House, to: str) -> None:
    session = await house.sessions.session(await house.sessions.new_session(house.ann.id))
    assert session is not None
    code = house.sessions.handoff(session, host=WEB, way="w" * 22)
    way = f"__Host-atoll-way={'w' * 22}"
    answer = await house.get(f"/__atoll/auth?code={code}&to={to}", host=WEB, cookie=way)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


async def test_where_one_was_going_is_kept_through_sign_in(house: House) -> None:
    wanted = f"https://{WEB}:8443/deep"
    first = await house.get(f"/login?to={wanted}")
    assert first.status_code == 401
    assert "ssh -p 2222 localhost browser" in first.text
    kept = first.headers["set-cookie"].split(";")[0]
    code = await house.sessions.login_code(house.ann.id)
    redeemed = await house.post(f"/login/{code}", cookie=kept)
    onward = await house.get(redeemed.headers["location"], cookie=await house.signed_in())
    assert onward.headers["location"] == f"https://{WEB}:8443/__atoll/login?to=%2Fdeep"


async def test_forged_kept_place_is_ignored(house: House) -> None:
    code = await house.sessions.login_code(house.ann.id)
    kept = "__Host-atoll-to=https://evil.example/"
    assert (await house.post(f"/login/{code}", cookie=kept)).headers["location"] == "/"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec_fetch_site": "same-origin"}, 303),
        ({"origin": f"https://{DOMAIN}:8443"}, 303),
        ({}, 303),  # no browser: it had to be given the cookie
        ({"sec_fetch_site": "same-site", "origin": f"https://{WEB}"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": f"https://{WEB}:8443"}, 403),
    ],
)
async def test_signing_out_is_asked_by_our_own_page(
    house: House, headers: dict[str, str], status: int
) -> None:
    cookie = await house.signed_in()
    answer = await house.post("/logout", cookie=cookie, **headers)
    assert answer.status_code == status
    page = await house.get("/login", cookie=cookie)
    assert page.status_code == (401 if status == 303 else 303)


async def test_hosts_see_their_own_routes_only(house: House) -> None:
    assert (await house.get("/healthz", host=WEB)).status_code == 404
    assert (await house.post("/exec", host=WEB)).status_code == 404
    assert (await house.get("/__atoll/auth?code=x")).status_code == 404
    assert (await house.get("/", host="evil.example")).status_code == 421
    assert (await house.get("/exec")).status_code == 405


async def test_every_answer_is_locked_down(house: House) -> None:
    for path in ("/", "/login/x", "/nosuch", "/healthz", "/static/atoll.css", "/ca.pem"):
        headers = (await house.get(path)).headers
        assert "default-src 'none'" in headers["content-security-policy"], path
        assert "unsafe" not in headers["content-security-policy"], path
        assert headers["x-content-type-options"] == "nosniff"


async def test_the_docs_are_open_on_the_clouds_host_alone(house: House) -> None:
    for path in ("/docs.md", "/docs/skill.md", "/llms.txt"):
        answer = await house.get(path)
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert (await house.get(path, host=WEB)).status_code == 404


async def test_other_methods_and_paths_say_what_works(house: House) -> None:
    answer = await house.client.get("/exec")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json() == {
        "code": "invalid",
        "error": "GET does not work here",
        "hint": "Try: POST",
    }
    answer = await house.client.post("/nowhere")
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")


async def test_the_audit_is_told_of_every_sign_in_and_way_in(house: House) -> None:
    code = await house.sessions.login_code(house.ann.id)
    signed = await house.post(f"/login/{code}", x_forwarded_for="192.0.2.7")
    cookie = signed.headers["set-cookie"].partition(";")[0]
    assert (await house.post(f"/login/{code}", x_forwarded_for="192.0.2.8")).status_code == 403
    to, way = await house.on_its_way(f"https://{WEB}:8443/", cookie)
    assert (
        await house.get(f"/login?to=https://their.{DOMAIN}:8443/", cookie=cookie)
    ).status_code == 403
    let_in = await house.get(to.partition(":8443")[2], host=WEB, cookie=way)
    token = let_in.headers["set-cookie"].partition(";")[0]
    assert token.startswith(TOKEN_COOKIE)
    await house.post("/__atoll/logout", host=WEB, cookie=token)
    await house.post("/__atoll/logout", host=WEB, cookie=token)  # nobody is signed in any more
    told = house.heard.records
    assert [(r["act"], r["who"], r.get("what", ""), r.get("result", "")) for r in told] == [
        ("sign-in", house.ann.email, "", "ok"),
        ("sign-in", "unknown", "", "denied"),
        ("web", house.ann.email, f"https://their.{DOMAIN}", "denied"),
        ("web", house.ann.email, f"https://{WEB}", "ok"),
        ("sign-out", house.ann.email, "", ""),
    ]
    assert [r["detail"] for r in told[:2]] == [{"by": "link"}, {"by": "link"}]
    assert [r["source"] for r in told[:2]] == ["192.0.2.7", "192.0.2.8"]
    assert {r["credential"] for r in told if r["who"] != "unknown"} == {told[0]["credential"]}
    assert [r.get("vm") for r in told] == [None, None, "their", "web", None]
    assert code not in str(told)


async def test_signing_out_of_the_cloud_is_told_once(house: House) -> None:
    cookie = await house.signed_in()
    for _ in range(2):
        await house.post("/logout", cookie=cookie)
    assert [r["act"] for r in house.heard.records] == ["sign-out"]
