"""Atoll as an OpenID provider: a stock client's way through it, and who is turned away."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx2
import pytest
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.jwk import KeySet
from sqlalchemy import update

from atoll.domain.account import Published
from atoll.domain.sharing import EVERYBODY, Opening
from atoll.domain.web import SESSION_COOKIE
from atoll.services.openid import CODE_S, TOKEN_S
from atoll.store.schema import vms
from framework.openid import (
    ANN,
    BACK,
    BOB,
    DOMAIN,
    VERIFIER,
    WEB,
    World,
    agree,
    answer_of,
    challenge,
    code_for,
    request,
    world,
)
from framework.published import openings, published

ISSUER = f"https://{DOMAIN}:8443"


@pytest.fixture(name="cloud")
async def _cloud(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def userinfo(cloud: World, token: str) -> httpx2.Response:
    return await cloud.program(
        "GET", "/oauth/userinfo", headers={"authorization": f"Bearer {token}"}
    )


async def claims_of(cloud: World, token: str) -> dict[str, Any]:
    keys = (await cloud.program("GET", "/oauth/jwks.json")).json()
    claims: dict[str, Any] = jwt.decode(
        token, KeySet.import_key_set(keys), algorithms=["ES256"]
    ).claims
    return claims


async def test_a_stock_client_goes_all_the_way(cloud: World) -> None:
    found = await cloud.program("GET", "/.well-known/openid-configuration")
    metadata = found.json()
    assert metadata["issuer"] == ISSUER
    client = AsyncOAuth2Client(
        client_id=WEB,
        token_endpoint_auth_method="none",
        scope="openid email",
        redirect_uri=BACK,
        code_challenge_method="S256",
        transport=httpx2.ASGITransport(app=cloud.app),
    )
    async with client:
        url, state = client.create_authorization_url(
            metadata["authorization_endpoint"], code_verifier=VERIFIER, nonce="n-0"
        )
        browser = await cloud.browser()
        asked = await browser.get(url)
        assert asked.status_code == 200
        given = await agree(browser, url)
        token = await client.fetch_token(
            metadata["token_endpoint"],
            authorization_response=given.headers["location"],
            state=state,
            code_verifier=VERIFIER,
        )
        told = (await client.get(metadata["userinfo_endpoint"])).json()
    keys = KeySet.import_key_set((await cloud.program("GET", metadata["jwks_uri"])).json())
    decoded = jwt.decode(token["id_token"], keys, algorithms=["ES256"])
    claims = CodeIDToken(
        decoded.claims,
        decoded.header,
        options={"iss": {"value": ISSUER}, "aud": {"value": WEB}},
        params={"nonce": "n-0", "client_id": WEB, "access_token": token["access_token"]},
    )
    claims.validate(now=cloud.clock.time)
    assert told == {"sub": ANN.id, "email": ANN.email, "email_verified": True}
    assert claims["email"] == ANN.email
    assert claims["auth_time"] == cloud.clock.time
    assert claims["exp"] - claims["iat"] == TOKEN_S == 600


async def test_the_question_names_vm_owner_and_what_is_told(cloud: World) -> None:
    cloud.show("web", to=(BOB,))
    page = (await (await cloud.browser(BOB)).get(request())).text
    assert WEB in page
    assert "ann&amp;co&#39;@example.com" in page
    assert "&co'" not in page
    assert BOB.id in page
    assert BOB.email in page
    assert BOB.email not in (await (await cloud.browser(BOB)).get(request(scope="openid"))).text


async def test_an_app_may_ask_by_a_form(cloud: World) -> None:
    browser = await cloud.browser()
    form = dict(parse_qsl(urlsplit(request()).query))
    led = await browser.post("/oauth/authorize", form, sec_fetch_site="same-site")
    assert (led.status_code, led.headers["location"]) == (303, request())
    huge = await browser.post("/oauth/authorize", {**form, "state": "x" * 9_000})
    assert huge.status_code == 400


async def test_the_question_is_asked_once(cloud: World) -> None:
    browser = await cloud.browser()
    await code_for(browser)
    assert "code" in answer_of(await browser.get(request()))
    assert "code" in answer_of(await browser.get(request(prompt="none")))
    assert (await browser.get(request(prompt="consent"))).status_code == 200
    other = request(client_id=f"blog.{DOMAIN}", redirect_uri=f"https://blog.{DOMAIN}:8443/")
    assert (await browser.get(other)).status_code == 200, "another VM is another question"


async def test_the_audit_is_told_who_let_an_app_know_what(cloud: World) -> None:
    browser = await cloud.browser()
    await code_for(browser)
    await browser.get(request())  # is not asked, so there is nothing new
    told = [(one["act"], one["who"], one["vm"], one["what"]) for one in cloud.heard.records]
    assert told == [("grant", ANN.email, "web", "openid tell email openid")]


async def test_more_than_was_agreed_to_is_asked_again(cloud: World) -> None:
    browser = await cloud.browser()
    token = (await cloud.trade(await code_for(browser, scope="openid"))).json()
    assert "email" not in await claims_of(cloud, token["id_token"])
    assert (await browser.get(request())).status_code == 200


async def test_no_is_told_to_the_app(cloud: World) -> None:
    browser = await cloud.browser()
    action = f"/oauth/consent?{urlsplit(request()).query}"
    said = answer_of(await browser.post(action, {"account": ANN.id, "answer": "deny"}))
    assert (said["error"], said["state"], said["iss"]) == ("access_denied", "st", ISSUER)


async def test_who_is_signed_out_signs_in_and_comes_back(cloud: World) -> None:
    browser = await cloud.browser(None)
    assert (await browser.get(request())).status_code == 401
    code = await cloud.sessions.login_code(ANN.id)
    signed_in = await browser.post(f"/login/{code}", {})
    onward = signed_in.headers["location"]
    assert onward.startswith("/oauth/authorize?")
    assert (await browser.get(onward)).status_code == 200
    assert answer_of(await agree(browser, onward))["state"] == "st"


@pytest.mark.parametrize(
    "path", ["//evil.example", "/\\evil.example", "/ /x", ".evil.example/", "@evil.example/", ""]
)
async def test_a_path_that_leads_elsewhere_is_not_followed(cloud: World, path: str) -> None:
    to = f"{ISSUER}{path}"
    for account in (ANN, None):
        browser = await cloud.browser(account)
        answer = await browser.get(f"/login?{urlencode({'to': to})}")
        assert (answer.status_code, answer.headers.get("location")) == (400, None)
    signing_in = await cloud.browser(None)
    signing_in.cookies["__Host-atoll-to"] = to
    answer = await signing_in.post(f"/login/{await cloud.sessions.login_code(ANN.id)}", {})
    assert answer.headers["location"] == "/"


async def test_a_page_that_may_not_ask_hears_so(cloud: World) -> None:
    nobody = await cloud.browser(None)
    assert answer_of(await nobody.get(request(prompt="none")))["error"] == "login_required"
    ann = await cloud.browser()
    assert answer_of(await ann.get(request(prompt="none")))["error"] == "consent_required"


@pytest.mark.parametrize("wish", [{"max_age": "60"}, {"prompt": "login"}])
async def test_a_fresh_sign_in_can_be_asked_for(cloud: World, wish: dict[str, str]) -> None:
    browser = await cloud.browser()
    await code_for(browser)
    cloud.clock.time += 61
    assert (await browser.get(request(**wish))).status_code == 401
    signed_in = await browser.post(f"/login/{await cloud.sessions.login_code(ANN.id)}", {})
    code = answer_of(await browser.get(signed_in.headers["location"]))["code"]
    claims = await claims_of(cloud, (await cloud.trade(code)).json()["id_token"])
    assert claims["auth_time"] == cloud.clock.time


async def test_a_session_that_is_too_old_is_no_answer_without_a_page(cloud: World) -> None:
    browser = await cloud.browser()
    await code_for(browser)
    cloud.clock.time += 61
    said = answer_of(await browser.get(request(prompt="none", max_age="60")))
    assert said["error"] == "login_required"


async def test_where_an_app_may_be_answered(cloud: World) -> None:
    browser = await cloud.browser()
    for uri in (
        f"https://{WEB}:8443",
        f"https://{WEB}:8443/cb?a=b",
        f"https://{WEB}:3000/cb",
        f"https://5000-{WEB}:8443/cb",
    ):
        given = await agree(browser, request(redirect_uri=uri))
        where = given.headers["location"]
        assert where.startswith(f"{uri}{'&' if '?' in uri else '?'}code="), where


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/",
        f"https://their.{DOMAIN}:8443/",
        f"https://{DOMAIN}:8443/",
        f"http://{WEB}:8443/",
        "http://localhost:3000/",
        f"https://{WEB}:8443@evil.example/",
        f"https://{WEB}.evil.example/",
        f"https://{WEB}:22/",
        f"https://{WEB}:8443//evil.example",
        f"https://{WEB}:8443/\\evil.example",
        f"https://{WEB}:8443/#fragment",
        f"https://{WEB}:8443/__atoll/auth",
        f"https://{WEB}:8443/x/../__atoll/auth",
        f"https://{WEB}:8443/x/%2E%2e/__atoll/auth",
        f"https://{WEB}:8443/cb\n",
        f"https://{WEB.upper()}:8443/",
        "",
    ],
)
@pytest.mark.parametrize("prompt", [None, "none"])
async def test_no_answer_goes_anywhere_else(cloud: World, uri: str, prompt: str | None) -> None:
    for browser in (await cloud.browser(), await cloud.browser(None)):
        answer = await browser.get(request(redirect_uri=uri, prompt=prompt))
        assert answer.status_code == 400
        assert "location" not in answer.headers
        assert "is not" in answer.text
        assert (await agree(browser, request(redirect_uri=uri))).status_code == 400


@pytest.mark.parametrize(
    "client",
    [DOMAIN, "web", f"3000-{WEB}", f"WEB.{DOMAIN}", "web.evil.example", f"a.b.{DOMAIN}", ""],
)
async def test_nobody_else_is_a_client(cloud: World, client: str) -> None:
    answer = await (await cloud.browser()).get(request(client_id=client))
    assert answer.status_code == 400
    assert "location" not in answer.headers


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"scope": "email"}, "invalid_scope"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"prompt": "never"}, "invalid_request"),
        ({"max_age": "-1"}, "invalid_request"),
        ({"nonce": "\n"}, "invalid_request"),
        ({"request": "ey"}, "request_not_supported"),
        ({"request_uri": "https://evil.example"}, "request_uri_not_supported"),
    ],
)
async def test_what_is_wrong_is_told_to_the_app(
    cloud: World, wrong: dict[str, str | None], error: str
) -> None:
    said = answer_of(await (await cloud.browser()).get(request(**wrong)))
    assert (said["error"], said["state"], said["iss"]) == (error, "st", ISSUER)
    assert "code" not in said


async def test_a_parameter_that_is_there_twice_is_refused(cloud: World) -> None:
    browser = await cloud.browser()
    said = answer_of(await browser.get(f"{request()}&scope=openid"))
    assert said["error"] == "invalid_request"
    for name in ("client_id", "redirect_uri", "state"):
        assert (await browser.get(f"{request()}&{name}=x")).status_code == 400


async def test_who_may_not_open_a_vm_learns_nothing_of_it(cloud: World) -> None:
    cloud.show("web", "their")
    browser = await cloud.browser(BOB)
    theirs = await browser.get(request())
    nobodys = await browser.get(
        request(client_id=f"nosuch.{DOMAIN}", redirect_uri=f"https://nosuch.{DOMAIN}:8443/")
    )
    assert theirs.status_code == nobodys.status_code == 403
    assert theirs.text == nobodys.text.replace("nosuch", "web")
    assert (await agree(browser, request(), BOB)).status_code == 403


async def test_access_that_is_taken_away_ends_codes_and_tokens(cloud: World) -> None:
    cloud.show("web", to=(BOB,))
    browser = await cloud.browser(BOB)
    token = (await cloud.trade(await code_for(browser, BOB))).json()["access_token"]
    code = await code_for(browser, BOB)
    assert (await userinfo(cloud, token)).status_code == 200
    cloud.show("web")
    assert (await userinfo(cloud, token)).status_code == 401
    assert (await cloud.trade(code)).json()["error"] == "invalid_grant"


async def test_signing_out_ends_codes_and_tokens(cloud: World) -> None:
    browser = await cloud.browser()
    token = (await cloud.trade(await code_for(browser))).json()["access_token"]
    code = await code_for(browser)
    await cloud.sessions.revoke(browser.cookies[SESSION_COOKIE])
    assert (await userinfo(cloud, token)).status_code == 401
    assert (await cloud.trade(code)).json()["error"] == "invalid_grant"


async def test_a_code_works_once_and_a_second_use_ends_what_it_gave(cloud: World) -> None:
    code = await code_for(await cloud.browser())
    token = (await cloud.trade(code)).json()["access_token"]
    assert (await userinfo(cloud, token)).status_code == 200
    again = await cloud.trade(code)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert (await userinfo(cloud, token)).status_code == 401


@pytest.mark.parametrize(
    "other",
    [
        {"client_id": f"blog.{DOMAIN}"},
        {"redirect_uri": f"https://{WEB}:8443/other"},
        {"code_verifier": "x" * 43},
        {"code_verifier": challenge()},
        {"code_verifier": ""},
    ],
)
async def test_a_code_is_for_its_app_address_and_challenge(
    cloud: World, other: dict[str, str]
) -> None:
    code = await code_for(await cloud.browser())
    assert (await cloud.trade(code, **other)).json()["error"] == "invalid_grant"
    assert (await cloud.trade(code)).json()["error"] == "invalid_grant", "one try is all"


async def test_a_code_and_a_token_end_in_time(cloud: World) -> None:
    browser = await cloud.browser()
    code, late = await code_for(browser), await code_for(browser)
    cloud.clock.time += CODE_S - 1
    token = (await cloud.trade(code)).json()["access_token"]
    cloud.clock.time += 1
    assert (await cloud.trade(late)).json()["error"] == "invalid_grant"
    cloud.clock.time += TOKEN_S - 2
    assert (await userinfo(cloud, token)).status_code == 200
    cloud.clock.time += 1
    assert (await userinfo(cloud, token)).status_code == 401


@pytest.mark.parametrize(
    ("other", "error"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
        ({"client_secret": "guess"}, "invalid_client"),
        ({"code": "ünknown\x00"}, "invalid_grant"),
    ],
)
async def test_requests_for_tokens_that_are_refused(
    cloud: World, other: dict[str, str], error: str
) -> None:
    answer = await cloud.trade(**{"code": "x", **other})
    assert answer.json()["error"] == error
    assert answer.headers["cache-control"] == "no-store"


async def test_a_request_for_tokens_that_is_no_form(cloud: World) -> None:
    answer = await cloud.program("POST", "/oauth/token", json={"code": "x"})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    missing = await cloud.program("POST", "/oauth/token", data={"grant_type": "authorization_code"})
    assert missing.json()["error_description"] == "code is missing"


async def test_only_the_questions_own_page_answers_it(cloud: World) -> None:
    """The page of a VM must not agree for its reader."""
    browser = await cloud.browser()
    action = f"/oauth/consent?{urlsplit(request()).query}"
    form = {"account": ANN.id, "answer": "allow"}
    for headers in (
        {"sec_fetch_site": "same-site", "origin": f"https://{WEB}:8443"},
        {"sec_fetch_site": "cross-site"},
    ):
        assert (await browser.post(action, form, **headers)).status_code == 403
    assert (await browser.get(request())).status_code == 200, "still asked"


async def test_who_was_asked_must_be_who_answers(cloud: World) -> None:
    cloud.show("web", to=(BOB,))
    browser = await cloud.browser(BOB)
    answer = await agree(browser, request(), ANN)
    assert answer.headers["location"].startswith("/oauth/authorize?")
    assert (await browser.get(answer.headers["location"])).status_code == 200, "bob is asked"


async def test_the_question_cannot_be_framed(cloud: World) -> None:
    answer = await (await cloud.browser()).get(request())
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"


async def test_an_app_cannot_put_markup_into_the_question(cloud: World) -> None:
    page = await (await cloud.browser()).get(request(state='"><script>alert(1)</script>'))
    assert "<script>alert" not in page.text


async def test_a_vm_with_another_owner_asks_anew(cloud: World) -> None:
    browser = await cloud.browser(BOB)
    cloud.show("web", to=(BOB,))
    await code_for(browser, BOB)
    async with cloud.store.begin() as tx:
        await tx.execute(update(vms).where(vms.c.name == "web").values(owner=BOB.id))
    assert (await browser.get(request())).status_code == 200


async def test_a_public_vm_may_ask_anybody_who_is_signed_in(cloud: World) -> None:
    cloud.shown[:] = [published("web", None, is_public=True)]
    assert await code_for(await cloud.browser(BOB), BOB)


async def test_an_answer_goes_where_its_person_may_go(cloud: World) -> None:
    """A public path of a private site, for webhooks, makes nobody its visitor."""
    hooks = Opening(account=EVERYBODY, port=8000, path="/hooks")
    docs = Opening(account=BOB.id, port=3000, path="/docs", until=cloud.clock.time + 60)
    opened = openings([ANN.id]) | {hooks, docs}
    cloud.shown[:] = [Published(vm_name="web", address=None, port=8000, openings=opened)]
    browser = await cloud.browser(BOB)
    for uri, status in (
        (BACK, 403),
        (f"https://{WEB}:3000/callback", 403),
        (f"https://{WEB}:8443/hooks/../callback", 400),
        (f"https://{WEB}:3000/docs/callback", 200),
        (f"https://{WEB}:8443/hooks/x", 200),
    ):
        assert (await browser.get(request(redirect_uri=uri))).status_code == status, uri
    uri = f"https://3000-{WEB}:8443/docs"
    token = await cloud.trade(await code_for(browser, BOB, redirect_uri=uri), redirect_uri=uri)
    cloud.clock.time += 60
    assert (await userinfo(cloud, token.json()["access_token"])).status_code == 401


async def test_scripts_of_any_page_may_trade_and_ask(cloud: World) -> None:
    for path in ("/oauth/token", "/oauth/userinfo"):
        answer = await cloud.program("OPTIONS", path)
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers


async def test_documents_are_kept_for_less_than_a_key_is_announced(cloud: World) -> None:
    for path in ("/.well-known/openid-configuration", "/oauth/jwks.json"):
        answer = await cloud.program("GET", path)
        assert answer.headers["cache-control"] == "public, max-age=300"
        assert "private" not in json.dumps(answer.json())


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer x", "Basic x", "bearer  "])
async def test_userinfo_wants_a_token(cloud: World, header: str) -> None:
    answer = await cloud.program("GET", "/oauth/userinfo", headers={"authorization": header})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
