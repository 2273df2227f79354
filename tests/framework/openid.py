"""A cloud whose apps ask who somebody is, in process: people with browsers, and what an app does."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import httpx2
from starlette.types import ASGIApp

from atoll.base.fetch import Fetcher
from atoll.commands.addresses import Addresses
from atoll.config import Config, Https, Provider
from atoll.domain.account import Account, Published
from atoll.domain.vm import Phase, VmRecord
from atoll.domain.web import HOST_HEADER, SESSION_COOKIE
from atoll.doors.web.elsewhere import BACK as BACK_FROM
from atoll.services.answers import Answers
from atoll.services.changes import Changes
from atoll.services.elsewhere import Elsewhere
from atoll.services.identities import Identities
from atoll.services.issuer import Issuer
from atoll.services.joining import Joining
from atoll.services.keyring import KeyRing
from atoll.services.openid import OpenId
from atoll.services.sessions import Sessions
from atoll.services.tokens import Tokens
from atoll.store import accounts, vms
from atoll.store.engine import Store
from framework.cloud import Clock, store_in
from framework.front import Heard, NoLanguage, http, ways_upon
from framework.published import published
from framework.signing import b64url

ANN = Account(id="acct-ann", email="ann&co'@example.com")
BOB = Account(id="acct-bob", email="bob@example.com")
DOMAIN = "atoll.localhost"
WEB = f"web.{DOMAIN}"
BACK = f"https://{WEB}:8443/callback"
VERIFIER = secrets.token_urlsafe(48)


@dataclass
class Browser:
    """Somebody's, behind HAProxy: follows nothing by itself, and keeps cookies of the cloud's host."""

    app: ASGIApp
    domain: str = DOMAIN
    cookies: dict[str, str] = field(default_factory=dict)

    async def get(self, url: str, **headers: str) -> httpx2.Response:
        """Go there."""
        return await self._send("GET", url, None, headers)

    async def post(self, url: str, form: dict[str, str], **headers: str) -> httpx2.Response:
        """Send a form of a page of the cloud."""
        return await self._send("POST", url, form, {"sec_fetch_site": "same-origin", **headers})

    async def _send(
        self, method: str, url: str, form: dict[str, str] | None, more: dict[str, str]
    ) -> httpx2.Response:
        transport = httpx2.ASGITransport(app=self.app)
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = {HOST_HEADER: self.domain, "accept": "text/html", "cookie": cookie}
        headers |= {name.replace("_", "-"): value for name, value in more.items()}
        async with httpx2.AsyncClient(
            transport=transport, base_url=f"https://{self.domain}:8443"
        ) as client:
            answer = await client.request(method, url, data=form, headers=headers)
        for line in answer.headers.get_list("set-cookie"):
            for name, morsel in SimpleCookie(line).items():
                self.cookies.pop(name, None)
                if morsel["max-age"] != "0":
                    self.cookies[name] = morsel.coded_value
        return answer


@dataclass
class World:
    """The application and what stands behind it; `shown` is what the edge knows of VMs."""

    store: Store
    sessions: Sessions
    issuer: Issuer
    openid: OpenId
    app: ASGIApp
    clock: Clock
    shown: list[Published]
    heard: Heard
    domain: str = DOMAIN

    async def browser(self, account: Account | None = ANN) -> Browser:
        """One in which this account is signed in."""
        browser = Browser(self.app, self.domain)
        if account is not None:
            browser.cookies[SESSION_COOKIE] = await self.sessions.new_session(account.id)
        return browser

    async def program(self, method: str, path: str, **sent: Any) -> httpx2.Response:
        """An app's own request."""
        transport = httpx2.ASGITransport(app=self.app)
        async with httpx2.AsyncClient(
            transport=transport, base_url=f"https://{self.domain}:8443"
        ) as client:
            return await client.request(method, path, **sent)

    async def trade(self, code: str, **other: str) -> httpx2.Response:
        """An app trades its code."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "client_id": WEB,
            "redirect_uri": BACK,
            "code_verifier": VERIFIER,
        }
        return await self.program("POST", "/oauth/token", data={**form, **other})

    def show(self, *names: str, owner: Account = ANN, to: tuple[Account, ...] = ()) -> None:
        """Let the edge know these VMs alone, open to their owner and `to`."""
        accounts = [account.id for account in (owner, *to)]
        self.shown[:] = [published(name, None, accounts) for name in names]


def challenge() -> str:
    """PKCE's, S256."""
    return b64url(hashlib.sha256(VERIFIER.encode()).digest())


def request(**other: str | None) -> str:
    """The path that an app sends its visitor to; None leaves a parameter out."""
    query: dict[str, str | None] = {
        "response_type": "code",
        "client_id": WEB,
        "redirect_uri": BACK,
        "scope": "openid email",
        "state": "st",
        "nonce": "no",
        "code_challenge": challenge(),
        "code_challenge_method": "S256",
        **other,
    }
    left = {name: value for name, value in query.items() if value is not None}
    return f"/oauth/authorize?{urlencode(left)}"


def answer_of(response: httpx2.Response, back: str = BACK) -> dict[str, str]:
    """What the app is told by way of the browser."""
    assert response.status_code == 303, response.text
    where, _, query = response.headers["location"].partition("?")
    assert where == back
    return dict(parse_qsl(query))


async def agree(browser: Browser, path: str, account: Account = ANN) -> httpx2.Response:
    """Answer the question behind `path`."""
    action = f"/oauth/consent?{urlsplit(path).query}"
    return await browser.post(action, {"account": account.id, "answer": "allow"})


async def code_for(browser: Browser, account: Account = ANN, **other: str | None) -> str:
    """A code, once the browser's person has agreed."""
    given = await agree(browser, request(**other), account)
    return answer_of(given, other.get("redirect_uri") or BACK)["code"]


def record(name: str, owner: Account) -> VmRecord:
    """A VM of the store."""
    return VmRecord(
        id=f"vm-{name}",
        owner=owner.id,
        name=name,
        image="debian",
        cpus=1,
        memory_bytes=1 << 30,
        disk_bytes=1 << 30,
        phase=Phase.LIVE,
        port=8000,
        host_key="",
        created_at=0.0,
        tags=("prod",),
    )


@asynccontextmanager
async def world(
    folder: Path,
    *,
    domain: str = DOMAIN,
    providers: Sequence[Provider] = (),
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[World]:
    """Ann has `web` and `blog`, bob has `their`. `providers` are reached by `transport`."""
    store = await store_in(folder)
    async with store.begin() as tx:
        for account in (ANN, BOB):
            await accounts.add(tx, account, now=0.0)
        for name, owner in (("web", ANN), ("blog", ANN), ("their", BOB)):
            await vms.add(tx, record(name, owner))
    clock, config = Clock(), Config(https=Https(domain=domain))
    names = Addresses(config).names
    sessions = Sessions(
        store=store,
        changes=Changes(),
        keys=KeyRing(folder / "token_keys.json"),
        session_seconds=86_400,
        now=clock,
    )
    issuer = Issuer(url=names.url(domain, ""), folder=folder, now=clock)
    shown: list[Published] = []

    async def named(name: str) -> Published | None:
        return next((vm for vm in shown if vm.vm_name == name), None)

    openid = OpenId(store=store, issuer=issuer, sessions=sessions, published=named, now=clock)
    fetcher = Fetcher(transport=transport)
    elsewhere = [
        Elsewhere(
            settings=settings,
            redirect_uri=names.url(domain, f"{BACK_FROM}{settings.name}"),
            fetcher=fetcher,
            now=clock,
        )
        for settings in providers
    ]
    (folder / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    heard = Heard()
    built = http(
        config=config,
        language=NoLanguage(),
        sessions=sessions,
        callers=Tokens(store=store, domain=domain),
        changes=Changes(),
        answers=Answers(store=store, key=bytes(32)),
        published=named,
        ca=folder / "ca.pem",
        openid=openid,
        issuer=issuer,
        elsewhere=elsewhere,
        identities=Identities(
            store=store, joining=Joining(store=store, changes=Changes(), now=clock), now=clock
        ),
        ways=ways_upon(store, config),
        audit=heard,
    )
    made = World(store, sessions, issuer, openid, built.app, clock, shown, heard, domain)
    made.show("web", "blog")
    yield made
    await store.close()
