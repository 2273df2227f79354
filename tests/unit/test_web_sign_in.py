"""Signing in by mail and by passkey, over the pages: asking tells nothing, a trick costs nothing."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import httpx2
import pytest

from atoll.base.aio import poll
from atoll.base.limits import Limits
from atoll.base.source import network_of, plain
from atoll.config import Config
from atoll.domain.web import HOST_HEADER, SESSION_COOKIE
from atoll.services.mailed_links import LINK_S, TRIES
from atoll.store import audit
from fakes.engine import FakeEngine
from framework.api import Door, door
from framework.authenticator import Authenticator
from framework.cloud import Control, control
from framework.forms import forms, scripts

DOMAIN = "atoll.localhost"
ORIGIN = f"https://{DOMAIN}:8443"
FOREIGN = (
    {"sec-fetch-site": "same-site", "origin": f"https://web.{DOMAIN}:8443"},
    {"sec-fetch-site": "cross-site"},
    {"origin": "null"},
    {"origin": "https://evil.example"},
)
POSTS = ("/login/mail", "/login/typed", "/login/mail/x", "/login/passkey", "/login/passkey/question",
         "/passkeys", "/passkeys/offer")  # fmt: skip


@dataclass
class Somebody:
    """A browser with its cookies."""

    client: httpx2.AsyncClient
    source: str = "192.0.2.1"
    cookies: dict[str, str] = field(default_factory=dict)

    async def get(self, path: str) -> httpx2.Response:
        """Open a page."""
        return await self._ask("GET", path, {})

    async def post(
        self, path: str, fields: dict[str, str] | None = None, **more: str
    ) -> httpx2.Response:
        """Send a form."""
        return await self._ask("POST", path, more, urlencode(fields or {}).encode())

    async def _ask(
        self, method: str, path: str, more: dict[str, str], body: bytes = b""
    ) -> httpx2.Response:
        headers = {
            HOST_HEADER: DOMAIN,
            "accept": "text/html",
            "x-forwarded-for": self.source,
            "content-type": "application/x-www-form-urlencoded",
            "cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()),
            **more,
        }
        self.client.cookies.clear()
        answer = await self.client.request(method, path, headers=headers, content=body)
        for each in answer.headers.get_list("set-cookie"):
            name, _, value = each.split(";")[0].partition("=")
            self.cookies[name] = value
        return answer

    @property
    def is_signed_in(self) -> bool:
        return SESSION_COOKIE in self.cookies


@dataclass
class House:
    """The pages, and mail that went out."""

    cloud: Control
    api: Door

    def somebody(self, source: str = "192.0.2.1") -> Somebody:
        """A new browser."""
        return Somebody(self.api.client, source)

    async def mailed(self, count: int = 1) -> tuple[str, str]:
        """Path and code of the newest mail, once there are so many."""

        async def check() -> str | None:
            found = await self.cloud.cloud.mail.letters(50)
            return found[0].text if len(found) >= count else None

        text = await poll(check, seconds=10, what="mail", every=0.005)
        link = re.search(rf"{re.escape(ORIGIN)}(/login/mail/\S{{43}})\n", text)
        code = re.search(r"code there: ([0-9a-z]{4}-[0-9a-z]{4})\n", text)
        assert link
        assert code
        return link[1], code[1]

    async def audited(self) -> list[tuple[str, ...]]:
        """Who did what how, as it is recorded, commands aside."""
        await self.cloud.cloud.audit.flush()
        async with self.cloud.store.read() as tx:
            records = await audit.chain(tx, 0, limit=100)
        return [
            (one.who, one.act, one.what, one.result, one.detail)
            for one in records
            if one.act != "command"
        ]

    async def is_quiet(self) -> int:
        """How many letters there are once all that was asked is answered."""
        links, mail = self.cloud.cloud.mailed_links, self.cloud.cloud.mail

        async def check() -> bool | None:
            return (links.waiting + mail.waiting == 0) or None

        await poll(check, seconds=10, what="quiet", every=0.005)
        return len(await mail.letters(50))


async def _shop() -> dict[str, str]:
    """A domain of its own that a VM has."""
    return {"shop.example.net": "web"}


@pytest.fixture(name="house")
async def _house(tmp_path: Path) -> AsyncIterator[House]:
    engine = FakeEngine(tmp_path / "engine.sock")
    config = Config.model_validate({"accounts": {"domains": ["corp.example"]}})
    async with (
        engine.serving(),
        control(tmp_path / "control", engine, config=config, loops=True) as cloud,
        door(cloud, tmp_path, custom=_shop) as api,
    ):
        yield House(cloud, api)


# -- the link --------------------------------------------------------------------------------


async def test_a_link_signs_in_the_browser_that_asked_once(house: House) -> None:
    ann = house.somebody("198.51.100.7")
    page = await ann.get("/")
    assert page.status_code == 401
    assert {form.action for form in forms(page.text)} == {"/login/mail", "/login/passkey"}
    assert not scripts(page.text)[1]
    asked = await ann.post("/login/mail", {"email": "Ann@example.com"})
    assert (asked.status_code, asked.headers["location"]) == (303, "/login/sent")
    assert "code" in (await ann.get("/login/sent")).text
    link, _ = await house.mailed()
    looked = await ann.get(link)
    assert (looked.status_code, ann.is_signed_in) == (200, False)
    assert "static/go." in looked.text
    redeemed = await ann.post(link)
    assert (redeemed.status_code, redeemed.headers["location"]) == (303, "/")
    assert (await ann.get("/people")).status_code == 200
    (session,) = (await house.cloud.data("session ls"))["sessions"] or [None]
    assert (session["how"], session["source"]) == ("mail", "198.51.100.7")
    again = house.somebody()
    again.cookies = dict(ann.cookies)
    del again.cookies[SESSION_COOKIE]
    assert (await again.post(link)).status_code == 403
    assert not again.is_signed_in


async def test_a_link_that_was_asked_for_elsewhere_signs_nobody_in_and_stays_good(
    house: House,
) -> None:
    """Neither a victim in to the attacker's account, nor an attacker in to the victim's."""
    asker, other = house.somebody(), house.somebody()
    await asker.post("/login/mail", {"email": "ann@example.com"})
    link, code = await house.mailed()
    for cookies in ({}, {"__Host-atoll-asked": "x" * 43}, {"__Host-atoll-asked": ""}):
        other.cookies = dict(cookies)
        answer = await other.post(link)
        assert (answer.status_code, other.is_signed_in) == (403, False)
        assert "only in the browser that asked" in answer.text
        assert (await other.post("/login/typed", {"code": code})).status_code == 403
        assert not other.is_signed_in
    await other.post("/login/mail", {"email": "bob@example.com"})
    assert (await other.post(link)).status_code == 403
    assert (await asker.post(link)).status_code == 303
    assert asker.is_signed_in


async def test_what_only_looks_at_links_uses_nothing(house: House) -> None:
    """A mail scanner, a preview: GET and HEAD."""
    ann = house.somebody()
    await ann.post("/login/mail", {"email": "ann@example.com"})
    link, _ = await house.mailed()
    scanner = house.somebody("203.0.113.5")
    for _ in range(3):
        assert (await scanner.get(link)).status_code == 200
        assert (await ann.get(link)).status_code == 200
    assert (await ann.post(link)).status_code == 303


async def test_a_link_ends(house: House) -> None:
    ann = house.somebody()
    await ann.post("/login/mail", {"email": "ann@example.com"})
    link, code = await house.mailed()
    house.cloud.clock.time += LINK_S + 1
    assert (await ann.post(link)).status_code == 403
    assert (await ann.post("/login/typed", {"code": code})).status_code == 403
    assert not ann.is_signed_in


async def test_the_newest_mail_counts(house: House) -> None:
    ann = house.somebody()
    await ann.post("/login/mail", {"email": "ann@example.com"})
    first, _ = await house.mailed()
    await ann.post("/login/mail", {"email": "ann@example.com"})
    second, _ = await house.mailed(2)
    assert (await ann.post(first)).status_code == 403
    assert (await ann.post(second)).status_code == 303


@pytest.mark.parametrize("code", ["x", "a" * 43, "é" * 43, "%00", "' OR 1=1 --", "a" * 5000])
async def test_nonsense_is_no_link(house: House, code: str) -> None:
    ann = house.somebody()
    await ann.post("/login/mail", {"email": "ann@example.com"})
    assert (await ann.post(f"/login/mail/{code}")).status_code == 403
    assert not ann.is_signed_in


# -- the code --------------------------------------------------------------------------------


@pytest.mark.parametrize("spelled", [str, str.upper, lambda code: f" {code.replace('-', ' ')} "])
async def test_the_code_of_a_mail_that_is_read_elsewhere(house: House, spelled: object) -> None:
    assert callable(spelled)
    ann = house.somebody()
    await ann.post("/login/mail", {"email": "ann@example.com"})
    link, code = await house.mailed()
    assert (await ann.post("/login/typed", {"code": spelled(code)})).status_code == 303
    assert ann.is_signed_in
    late = house.somebody()
    late.cookies = dict(ann.cookies)
    assert (await late.post(link)).status_code == 403


async def test_the_code_cannot_be_guessed(house: House) -> None:
    ann = house.somebody()
    await ann.post("/login/mail", {"email": "ann@example.com"})
    _, code = await house.mailed()
    wrong = [await ann.post("/login/typed", {"code": f"0000-000{n}"}) for n in range(TRIES)]
    right = await ann.post("/login/typed", {"code": code})
    said = {(answer.status_code, answer.text) for answer in (*wrong, right)}
    assert [status for status, _ in said] == [403]
    assert not ann.is_signed_in


# -- who asks learns nothing -----------------------------------------------------------------


async def test_every_address_gets_the_same_answer(house: House) -> None:
    answers = set()
    for email in ("ann@example.com", "nobody@example.com", "new@corp.example"):
        asker = house.somebody()
        sent = await asker.post("/login/mail", {"email": email})
        cookie = sent.headers["set-cookie"].replace(asker.cookies["__Host-atoll-asked"], "…")
        await house.is_quiet()
        page = await asker.get("/login/sent")
        wrong = await asker.post("/login/typed", {"code": "0000-0000"})
        answers.add((sent.status_code, sent.text, sent.headers["location"], cookie, page.text,
                     wrong.status_code, wrong.text))  # fmt: skip
    assert len(answers) == 1
    assert await house.is_quiet() == 2, "nobody@example.com got no mail"


async def test_what_depends_on_the_address_is_done_when_the_answer_is_out(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that its time tells nothing: asking touches neither the store nor the mail."""
    links = house.cloud.cloud.mailed_links
    looked: list[str] = []
    real = links._answer

    async def answer(asked: object) -> None:
        looked.append(asked.email)  # type: ignore[attr-defined]
        await real(asked)  # type: ignore[arg-type]

    monkeypatch.setattr(links, "_answer", answer)
    await links.ask("ann@example.com", source="192.0.2.1")
    assert looked == []
    assert links.waiting == 1
    assert await house.is_quiet() == 1


async def test_an_invited_person_joins_with_the_first_link(house: House) -> None:
    await house.cloud.run("invite eve@example.com")
    eve = house.somebody()
    await eve.post("/login/mail", {"email": "eve@example.com"})
    link, _ = await house.mailed(2)
    await house.cloud.run("invite rm eve@example.com")
    refused = await eve.post(link)
    assert (refused.status_code, eve.is_signed_in) == (403, False)
    assert "has no account here" in refused.text
    await house.cloud.run("invite eve@example.com")
    await eve.post("/login/mail", {"email": "eve@example.com"})
    link, _ = await house.mailed(4)
    assert (await eve.post(link)).status_code == 303
    assert [one["email"] for one in (await house.cloud.data("people"))["people"]][
        -1
    ] == "eve@example.com"


# -- limits ----------------------------------------------------------------------------------


async def test_one_address_gets_few_mails_and_nobody_is_told(house: House) -> None:
    for number in range(12):
        asker = house.somebody(f"192.0.2.{number}")
        sent = await asker.post("/login/mail", {"email": "ann@example.com"})
        assert sent.status_code == 303
    assert await house.is_quiet() == 5


async def test_one_source_asks_seldom_whatever_it_asks_for(house: House) -> None:
    asker = house.somebody("2001:db8::1")
    for number in range(20):
        assert (await asker.post("/login/mail", {"email": f"n{number}@x"})).status_code == 303
    for email in ("ann@example.com", "nobody@example.com"):
        assert (await asker.post("/login/mail", {"email": email})).status_code == 429
    neighbour = house.somebody("2001:db8::2:1")
    assert (await neighbour.post("/login/mail", {"email": "n@x"})).status_code == 429
    other = house.somebody("2001:db8:1::1")
    assert (await other.post("/login/mail", {"email": "n@x"})).status_code == 303


async def test_all_together_ask_no_more_than_can_be_answered(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = house.cloud.cloud.mailed_links
    few = Limits(burst=1, per_second=0.01, monotonic=house.cloud.clock)
    monkeypatch.setattr(links, "_of_all", few)
    statuses = [
        (await house.somebody(f"192.0.2.{n}").post("/login/mail", {"email": "n@x"})).status_code
        for n in range(2)
    ]
    assert statuses == [303, 429]


@pytest.mark.parametrize(
    "email", ["", "ann", "ann@example.com\r\nBcc: eve@evil.example", "a@b\n", "ann@example.com,e@x"]
)
async def test_no_address_is_said_so(house: House, email: str) -> None:
    answer = await house.somebody().post("/login/mail", {"email": email})
    assert answer.status_code == 400
    assert await house.is_quiet() == 0


def test_what_counts_as_one_source() -> None:
    assert network_of("192.0.2.1") == "192.0.2.1"
    assert network_of("2001:db8:1:2:3:4:5:6") == "2001:db8:1:2::/64"
    assert network_of("unix:" + "x" * 100) == ("unix:" + "x" * 100)[:64]
    assert network_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert network_of("fe80::1:2%eth0") == "fe80::/64"


def test_an_address_is_shown_as_people_write_it() -> None:
    for source, shown in (
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("unix:", "unix:"),
        ("", ""),
    ):
        assert plain(source) == shown


async def test_clients_by_ipv4_are_many_sources_to_an_edge_that_listens_for_both(
    house: House,
) -> None:
    """HAProxy on `::` says `::ffff:192.0.2.1`."""
    asker = house.somebody("::ffff:192.0.2.1")
    for number in range(20):
        assert (await asker.post("/login/mail", {"email": f"n{number}@x"})).status_code == 303
    asker.source = "192.0.2.1"
    assert (await asker.post("/login/mail", {"email": "n@x"})).status_code == 429
    for _ in range(30):
        assert (await asker.post("/login/passkey/question")).status_code == 200
    assert (await asker.post("/login/passkey/question")).status_code == 429
    other = house.somebody("::ffff:192.0.2.2")
    assert (await other.post("/login/mail", {"email": "ann@example.com"})).status_code == 303
    assert (await other.post("/login/passkey/question")).status_code == 200
    link, _ = await house.mailed()
    assert (await other.post(link)).status_code == 303
    (session,) = (await house.cloud.data("session ls"))["sessions"]
    assert session["source"] == "192.0.2.2"


# -- every form is asked by our own page -----------------------------------------------------


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("foreign", FOREIGN, ids=str)
async def test_no_other_page_sends_these_forms(
    house: House, path: str, foreign: dict[str, str]
) -> None:
    ann = house.somebody()
    ann.cookies[SESSION_COOKIE] = await house.api.sessions.new_session(house.cloud.ann.account.id)
    before = dict(ann.cookies)
    answer = await ann.post(path, {"email": "ann@example.com"}, **foreign)
    assert (answer.status_code, ann.cookies) == (403, before)
    assert "page of another site" in answer.text
    assert await house.is_quiet() == 0


@pytest.mark.parametrize("path", POSTS)
async def test_other_hosts_do_not_have_them(house: House, path: str) -> None:
    answer = await house.somebody().post(path, {}, **{HOST_HEADER: f"web.{DOMAIN}"})
    assert answer.status_code == 404


@pytest.mark.parametrize("to", ["https://evil.example/", "//evil.example", "https://web.evil/"])
async def test_no_way_to_sign_in_leads_elsewhere(house: House, to: str) -> None:
    ann = house.somebody()
    ann.cookies["__Host-atoll-to"] = to
    await ann.post("/login/mail", {"email": "ann@example.com"})
    _, code = await house.mailed()
    assert (await ann.post("/login/typed", {"code": code})).headers["location"] == "/"


async def test_where_one_was_going_is_kept(house: House) -> None:
    wanted = f"https://web.{DOMAIN}:8443/deep"
    ann = house.somebody()
    assert (await ann.get(f"/login?to={wanted}")).status_code == 401
    await ann.post("/login/mail", {"email": "ann@example.com"})
    link, _ = await house.mailed()
    assert (await ann.post(link)).headers["location"].startswith("/login?to=https%3A%2F%2Fweb.")


SHOP = "https://shop.example.net:8443"
WAYS = ("/", "/vm/web", "/login", "/login/sent", "/login/x", "/login/mail/x")


@pytest.mark.parametrize("path", WAYS)
async def test_a_form_that_signs_in_may_lead_to_a_custom_domain(house: House, path: str) -> None:
    """Its redirects count as its action: else the browser stops at the last of them."""
    ann = house.somebody()
    assert SHOP not in (await ann.get(path)).headers["content-security-policy"]
    asked = await ann.get(f"/login?to={SHOP}/deep")
    for page in (asked, await ann.get(path)):
        assert "<form" in page.text
        assert f" {SHOP};" in page.headers["content-security-policy"]


async def test_so_may_the_form_of_whoever_mistyped_the_code(house: House) -> None:
    ann = house.somebody()
    await ann.get(f"/login?to={SHOP}/deep")
    await ann.post("/login/mail", {"email": "ann@example.com"})
    _, code = await house.mailed()
    wrong = await ann.post("/login/typed", {"code": "0000-0000"})
    assert (wrong.status_code, "<form" in wrong.text) == (403, True)
    assert f" {SHOP};" in wrong.headers["content-security-policy"]
    arrived = await ann.post("/login/typed", {"code": code})
    assert arrived.headers["location"].startswith("/login?to=https%3A%2F%2Fshop.example.net")


async def test_where_somebody_goes_now_counts_and_not_where_they_went_before(house: House) -> None:
    ann = house.somebody()
    await ann.get(f"/login?to={SHOP}/deep")
    page = await ann.get(f"/login?to={ORIGIN}/vm/web")
    assert SHOP not in page.headers["content-security-policy"]


# -- passkeys --------------------------------------------------------------------------------


async def test_a_passkey_is_made_on_the_page_and_signs_in(house: House) -> None:
    ann, phone = house.somebody(), Authenticator(ORIGIN, DOMAIN)
    ann.cookies[SESSION_COOKIE] = await house.api.sessions.new_session(house.cloud.ann.account.id)
    offer = await ann.post("/passkeys/offer")
    assert offer.headers["content-type"] == "application/json"
    fields = {"credential": phone.made(offer.text), "name": " phone "}
    added = await ann.post("/passkeys", fields)
    assert (added.status_code, added.headers["location"]) == (303, "/keys")
    assert "passkey rm phone" in (await ann.get("/keys")).text
    late = house.somebody("203.0.113.9")
    question = await late.post("/login/passkey/question")
    stolen = house.somebody()
    answer = {"credential": phone.used(question.text)}
    assert (await stolen.post("/login/passkey", answer)).status_code == 403
    arrived = await late.post("/login/passkey", answer)
    assert (arrived.status_code, arrived.headers["location"]) == (303, "/")
    assert late.is_signed_in
    shown = (await house.cloud.data("session ls"))["sessions"]
    told = await house.audited()
    assert told == [
        ("ann@example.com", "grant", "passkey add phone", "ok", "{}"),
        ("unknown", "sign-in", "", "denied", '{"by":"passkey"}'),
        ("ann@example.com", "sign-in", "", "ok", '{"by":"passkey"}'),
    ]
    assert ("passkey", "203.0.113.9") in [(one["how"], one["source"]) for one in shown]


async def test_a_passkey_is_made_by_who_is_signed_in_alone(house: House) -> None:
    nobody = house.somebody()
    for path in ("/passkeys", "/passkeys/offer"):
        assert (await nobody.post(path)).status_code == 401
    ann, bob = house.somebody(), house.somebody()
    for who, caller in ((ann, house.cloud.ann), (bob, house.cloud.bob)):
        who.cookies[SESSION_COOKIE] = await house.api.sessions.new_session(caller.account.id)
    offer = await ann.post("/passkeys/offer")
    bob.cookies["__Host-atoll-passkey"] = ann.cookies["__Host-atoll-passkey"]
    fields = {"credential": Authenticator(ORIGIN, DOMAIN).made(offer.text)}
    assert (await bob.post("/passkeys", fields)).status_code == 403
