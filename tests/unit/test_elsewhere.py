"""Signing in with another provider: one that is another Atoll, one with the usual things, and liars."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, RSAKey
from sqlalchemy import update

from atoll.base.errors import Unavailable
from atoll.base.fetch import Fetcher
from atoll.config import Config, Oidc, load, render
from atoll.config import Provider as Settings
from atoll.domain.account import Account
from atoll.domain.web import SESSION_COOKIE
from atoll.store import accounts, schema
from framework.cloud import Clock
from framework.openid import ANN, BOB, Browser, World, agree, world
from framework.provider import CLIENT, ISSUER, SECRET, Provider, by_hmac, unsigned

AT = "/login/from/example?"


@pytest.fixture(name="provider")
def _provider() -> Provider:
    return Provider(now=Clock())


@pytest.fixture(name="cloud")
async def _cloud(tmp_path: Path, provider: Provider) -> AsyncIterator[World]:
    secret = tmp_path / "client-secret"
    secret.write_text(f"{SECRET}\n")
    settings = Settings(
        name="example", label="Ex & Co", issuer=ISSUER, client_id=CLIENT, client_secret_file=secret
    )
    transport = httpx.ASGITransport(app=provider.app())
    async with world(tmp_path / "cloud", providers=[settings], transport=transport) as made:
        provider.now = made.clock
        yield made


async def arrive(browser: Browser, provider: Provider, **other: str) -> httpx2.Response:
    """All the way to the provider and back."""
    gone = await browser.get("/login/with/example", sec_fetch_site="same-origin")
    assert gone.status_code == 303, gone.text
    answer = {**provider.agrees(gone.headers["location"]), **other}
    return await browser.get(AT + str(httpx.QueryParams(answer)), sec_fetch_site="cross-site")


async def who(cloud: World, browser: Browser) -> Account | None:
    return await cloud.sessions.account_for_session(browser.cookies.get(SESSION_COOKIE, ""))


async def test_the_sign_in_page_offers_it(cloud: World) -> None:
    for path in ("/login", "/"):
        page = (await (await cloud.browser(None)).get(path)).text
        assert '<a class="button" href="/login/with/example">Sign in with Ex &amp; Co</a>' in page


async def test_somebody_signs_in_and_goes_where_they_wanted(
    cloud: World, provider: Provider
) -> None:
    browser = await cloud.browser(None)
    await browser.get("/login?to=https://atoll.localhost:8443/vm/web")
    arrived = await arrive(browser, provider)
    assert (arrived.status_code, arrived.headers["location"]) == (303, "/vm/web")
    assert await who(cloud, browser) == ANN
    assert set(browser.cookies) == {SESSION_COOKIE}
    (told,) = cloud.heard.records
    assert (told["act"], told["who"], told["detail"]) == ("sign-in", ANN.email, {"by": "provider"})


async def test_an_atoll_signs_in_with_another_atoll(tmp_path: Path) -> None:
    """The second one runs in a VM of the first, so it is an app of that VM."""
    inner = "web.atoll.localhost"
    async with world(tmp_path / "outer") as outer:
        settings = Settings(name="outer", issuer=outer.issuer.url, client_id=inner)
        transport = httpx.ASGITransport(app=outer.app)
        async with world(
            tmp_path / "inner", domain=inner, providers=[settings], transport=transport
        ) as within:
            here, there = await within.browser(None), await outer.browser()
            gone = await here.get("/login/with/outer")
            given = await agree(there, gone.headers["location"])
            arrived = await here.get(given.headers["location"])
            assert arrived.status_code == 303
            assert await who(within, here) == ANN


async def test_an_identity_stays_when_its_address_changes(cloud: World, provider: Provider) -> None:
    await arrive(await cloud.browser(None), provider)
    for email in (BOB.email, "new@example.com", None):
        provider.claims["email"] = email
        browser = await cloud.browser(None)
        await arrive(browser, provider)
        assert await who(cloud, browser) == ANN


async def test_an_account_keeps_its_identity_when_its_own_address_changes(
    cloud: World, provider: Provider
) -> None:
    await arrive(await cloud.browser(None), provider)
    async with cloud.store.begin() as tx:
        for account, email in ((ANN, "x@example.com"), (BOB, ANN.email)):
            table = schema.accounts
            await tx.execute(update(table).where(table.c.id == account.id).values(email=email))
    browser = await cloud.browser(None)
    await arrive(browser, provider)
    found = await who(cloud, browser)
    assert found is not None
    assert found.id == ANN.id


async def test_who_gets_anns_address_later_does_not_get_her_account(
    cloud: World, provider: Provider
) -> None:
    await arrive(await cloud.browser(None), provider)
    provider.claims["sub"] = "2"
    browser = await cloud.browser(None)
    answer = await arrive(browser, provider)
    assert answer.status_code == 403
    assert "belongs to somebody else at Ex &amp; Co" in answer.text
    assert await who(cloud, browser) is None


async def test_an_address_that_nobody_has_is_told_so(cloud: World, provider: Provider) -> None:
    provider.claims["email"] = "eve@example.com"
    answer = await arrive(await cloud.browser(None), provider)
    assert answer.status_code == 403
    assert "eve@example.com has no account here" in answer.text
    (told,) = cloud.heard.records
    assert (told["who"], told["result"], told["detail"]) == (
        "unknown",
        "denied",
        {"by": "provider"},
    )


@pytest.mark.parametrize("verified", [False, None, "true", 1, "false"])
async def test_an_address_must_be_checked(
    cloud: World, provider: Provider, verified: object
) -> None:
    provider.claims["email_verified"] = verified
    browser = await cloud.browser(None)
    answer = await arrive(browser, provider)
    assert answer.status_code == 403
    assert "does not say that it has checked" in answer.text
    assert await who(cloud, browser) is None


@pytest.mark.parametrize(
    "email", ["ann&co'@EXAMPLE.com", "ann&co'@example\u2024com", "\u1d43nn&co'@example.com", 7]
)
async def test_only_plain_addresses_count(cloud: World, provider: Provider, email: object) -> None:
    provider.claims["email"] = email
    browser = await cloud.browser(None)
    await arrive(browser, provider)
    assert await who(cloud, browser) == (ANN if email == "ann&co'@EXAMPLE.com" else None)


async def test_a_letter_that_becomes_another_one_is_not_it(
    cloud: World, provider: Provider
) -> None:
    kim = Account(id="acct-kim", email="kim@example.com")
    async with cloud.store.begin() as tx:
        await accounts.add(tx, kim, now=0.0)
    provider.claims["email"] = "\u212aim@example.com"  # KELVIN SIGN, whose small letter is k
    browser = await cloud.browser(None)
    await arrive(browser, provider)
    assert await who(cloud, browser) is None


CONFUSED: dict[str, Callable[[Provider, dict[str, Any]], str]] = {
    "none": lambda _provider, claims: unsigned(claims),
    "hs256 with the public key": lambda provider, claims: by_hmac(
        claims, provider.key.as_pem(private=False)
    ),
    "another key with its name": lambda provider, claims: jwt.encode(
        {"alg": "RS256", "kid": provider.key.kid},
        claims,
        RSAKey.generate_key(2048),
        algorithms=["RS256"],
    ),
    "a key of its own": lambda _provider, claims: jwt.encode(
        {"alg": "ES256", "jwk": (key := ECKey.generate_key("P-256")).as_dict(private=False)},
        claims,
        key,
        algorithms=["ES256"],
    ),
    "no token": lambda _provider, _claims: "a.b.c",
    "a huge one": lambda _provider, _claims: "a" * 100_000,
}


@pytest.mark.parametrize("how", CONFUSED)
async def test_a_signature_is_one_of_its_published_keys(
    cloud: World, provider: Provider, how: str
) -> None:
    provider.sign = lambda claims: CONFUSED[how](provider, claims)
    browser = await cloud.browser(None)
    assert (await arrive(browser, provider)).status_code == 403
    assert await who(cloud, browser) is None


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"},
        {"iss": ISSUER + "/"},
        {"aud": "another"},
        {"aud": [CLIENT, "another"]},
        {"aud": CLIENT, "azp": "another"},
        {"aud": None},
        {"nonce": "another"},
        {"nonce": None},
        {"nonce": 7},
        {"exp": 1_800_000_000 - 60},
        {"exp": None},
        {"exp": "2030-01-01"},
        {"iat": 1_800_000_000 + 120},
        {"nbf": 1_800_000_000 + 120},
        {"nbf": "never"},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 256},
        {"sub": 7},
    ],
)
async def test_a_token_is_for_us_of_now_and_of_this_sign_in(
    cloud: World, provider: Provider, claims: dict[str, Any]
) -> None:
    provider.claims = claims
    browser = await cloud.browser(None)
    answer = await arrive(browser, provider)
    assert (answer.status_code, "its ID token" in answer.text) == (403, True)
    assert await who(cloud, browser) is None


async def test_a_new_key_is_asked_for_once(cloud: World, provider: Provider) -> None:
    await arrive(await cloud.browser(None), provider)
    provider.key = RSAKey.generate_key(2048, auto_kid=True)
    refused = await arrive(await cloud.browser(None), provider)
    assert refused.status_code == 403, "its keys were just asked for"
    cloud.clock.time += 61
    browser = await cloud.browser(None)
    await arrive(browser, provider)
    assert await who(cloud, browser) == ANN
    assert provider.asked.count("/keys") == 2
    assert provider.asked.count("/.well-known/openid-configuration") == 1


async def test_a_weak_key_is_no_key(cloud: World, provider: Provider) -> None:
    with pytest.warns(SecurityWarning):
        provider.key = RSAKey.generate_key(1024, auto_kid=True)
    assert (await arrive(await cloud.browser(None), provider)).status_code == 403


async def test_an_answer_counts_in_the_browser_that_asked(cloud: World, provider: Provider) -> None:
    """Else somebody is signed in to an account that another person then reads along in."""
    eve, victim = await cloud.browser(None), await cloud.browser(None)
    gone = await eve.get("/login/with/example")
    answer = str(httpx.QueryParams(provider.agrees(gone.headers["location"])))
    await victim.get("/login/with/example")
    for browser in (victim, await cloud.browser(None)):
        refused = await browser.get(AT + answer)
        assert refused.status_code == 403
        assert "not begun here" in refused.text
        assert await who(cloud, browser) is None


@pytest.mark.parametrize("other", [{"state": "x"}, {"state": ""}, {"iss": "https://evil.example"}])
async def test_an_answer_of_something_else_is_refused(
    cloud: World, provider: Provider, other: dict[str, str]
) -> None:
    browser = await cloud.browser(None)
    assert (await arrive(browser, provider, **other)).status_code == 403
    assert await who(cloud, browser) is None


async def test_a_provider_that_names_itself_must_do_so(cloud: World, provider: Provider) -> None:
    provider.metadata = {"authorization_response_iss_parameter_supported": True}
    assert (await arrive(await cloud.browser(None), provider)).status_code == 403
    assert (await arrive(await cloud.browser(None), provider, iss=ISSUER)).status_code == 303


async def test_an_answer_is_good_for_one_try(cloud: World, provider: Provider) -> None:
    browser = await cloud.browser(None)
    gone = await browser.get("/login/with/example")
    answer = AT + str(httpx.QueryParams(provider.agrees(gone.headers["location"])))
    assert (await browser.get(answer)).status_code == 303
    assert (await browser.get(answer)).status_code == 403


async def test_no_page_of_a_vm_sends_anybody_there(cloud: World) -> None:
    for site in ("same-site", "cross-site"):
        answer = await (await cloud.browser(None)).get("/login/with/example", sec_fetch_site=site)
        assert answer.status_code == 403
    assert (await (await cloud.browser(None)).get("/login/with/nobody")).status_code == 404


async def test_what_a_provider_says_is_text(cloud: World, provider: Provider) -> None:
    browser = await cloud.browser(None)
    said = {"error": "<b>no</b>", "error_description": "<script>x</script>\x1b[2J" + "y" * 9000}
    answer = await arrive(browser, provider, **said)
    assert "<script>x" not in answer.text
    assert "&lt;b&gt;no&lt;/b&gt;: &lt;script&gt;x" in answer.text
    assert "\x1b" not in answer.text
    assert "y" * 300 not in answer.text
    provider.status, provider.token = 400, {"error": "invalid_grant", "id_token": None}
    assert "Ex &amp; Co said: invalid_grant" in (await arrive(browser, provider)).text


@pytest.mark.parametrize("path", ["/keys", "/token"])
async def test_a_huge_answer_is_not_read(cloud: World, provider: Provider, path: str) -> None:
    provider.huge = path
    answer = await arrive(await cloud.browser(None), provider)
    assert answer.status_code == 503
    assert "id.example cannot be asked: its answer has more than 256 KiB" in answer.text


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"issuer": None},
        {"token_endpoint": "http://id.example/token"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "https://[x"},
        {"authorization_endpoint": "https:///x"},
        {"jwks_uri": ["https://id.example/keys"]},
    ],
)
async def test_a_provider_that_is_set_up_wrong_is_told_and_left_alone_for_a_moment(
    cloud: World, provider: Provider, metadata: dict[str, Any]
) -> None:
    provider.metadata = metadata
    browser = await cloud.browser(None)
    for _ in range(3):
        answer = await browser.get("/login/with/example")
        assert answer.status_code == 503
        assert "Ex &amp; Co is not set up right" in answer.text
    assert len(provider.asked) == 1
    provider.metadata = {}
    cloud.clock.time += 11
    assert (await browser.get("/login/with/example")).status_code == 303


async def test_a_server_that_is_slow_packs_or_redirects_is_no_server() -> None:
    async def answers(scope: Any, receive: Any, send: Any) -> None:
        headers = {
            "/packed": [(b"content-encoding", b"gzip")],
            "/moved": [(b"location", b"https://evil.example/")],
        }.get(scope["path"], [])
        status = 302 if scope["path"] == "/moved" else 200
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"[]"})

    fetcher = Fetcher(transport=httpx.ASGITransport(app=answers))
    for path, said in (("packed", "packed"), ("moved", "302"), ("list", "no JSON object")):
        with pytest.raises(Unavailable, match=said):
            await fetcher.json("GET", f"https://id.example/{path}")
    with pytest.raises(Unavailable, match="no URL"):
        await fetcher.json("GET", "https://[")


async def test_a_server_that_never_answers_is_left() -> None:
    slow = Provider(now=Clock(), slow="/keys")
    fetcher = Fetcher(transport=httpx.ASGITransport(app=slow.app()))
    with pytest.raises(Unavailable, match="did not answer within"):
        await fetcher.json("GET", f"{ISSUER}/keys", seconds=0.05)


async def test_a_secret_that_cannot_be_read_is_told(
    cloud: World, provider: Provider, tmp_path: Path
) -> None:
    secret = tmp_path / "client-secret"
    for spoil in (lambda: secret.write_bytes("schlüssel".encode()), secret.unlink):
        spoil()
        answer = await arrive(await cloud.browser(None), provider)
        assert answer.status_code == 503
        assert "client-secret cannot be read" in answer.text


def test_providers_are_settings_like_others(tmp_path: Path) -> None:
    path = tmp_path / "atoll.toml"
    path.write_text(
        '[[oidc.providers]]\nname = "google"\nissuer = "https://accounts.google.com"\n'
        'client_id = "id"\nclient_secret_file = "/etc/atoll/google"\n'
        '[[oidc.providers]]\nname = "dex"\nissuer = "https://dex.example/dex"\nclient_id = "x"\n'
        'label = "The \\"Dex\\""\nscopes = ["openid", "email", "groups"]\n'
    )
    config = load(path)
    assert [provider.name for provider in config.oidc.providers] == ["google", "dex"]
    path.write_text(render(config))
    assert load(path) == config
    path.write_text(render(Config(), only_set=True))
    assert load(path).oidc == Oidc()


def test_two_providers_of_one_name_are_refused() -> None:
    one = {"name": "a", "issuer": "https://a.example", "client_id": "x"}
    for other in ({"name": "b"}, {"issuer": "https://b.example"}):
        with pytest.raises(ValueError, match="two have the same"):
            Oidc.model_validate(json.loads(json.dumps({"providers": [one, {**one, **other}]})))
