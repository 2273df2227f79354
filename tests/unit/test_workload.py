"""What VMs are told about themselves: by their address alone, and only while they have it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from authlib.integrations.httpx_client import AsyncOAuth2Client
from joserfc import jwt
from joserfc.jwk import KeySet

from atoll.base.limits import Limits
from atoll.commands.addresses import Addresses
from atoll.doors.metadata.app import URL, Metadata
from atoll.doors.web.openid.endpoints import Endpoints
from atoll.services.issuer import Issuer
from atoll.services.workload import Workload
from fakes.engine import FakeEngine
from framework.cloud import Control, control
from framework.openid import ANN as PERSON
from framework.openid import BACK, VERIFIER, WEB, agree, world

ISSUER = "https://atoll.localhost:8443"
API = "https://api.example.com"
FOR_API = f"/token?audience={API}"


@dataclass
class Inside:
    """What VMs see."""

    control: Control
    issuer: Issuer
    workload: Workload
    app: Any

    async def get(self, address: str, path: str, **headers: str) -> httpx2.Response:
        """A request from that address."""
        transport = httpx2.ASGITransport(app=self.app, client=(address, 40_000))
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://metadata.int"
        ) as client:
            return await client.get(path, headers=sent)

    async def address(self, name: str) -> str:
        """Where a VM asks from."""
        vm = await self.control.cloud.access.find(self.control.ann, name)
        facts = await self.control.cloud.facts.fresh(vm.id)
        assert facts is not None
        assert facts.address is not None
        return facts.address


@pytest.fixture(name="inside")
async def _inside(tmp_path: Path) -> AsyncIterator[Inside]:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving(), control(tmp_path / "control", engine) as made:
        for name in ("web", "other"):
            await made.run(f"new --name {name}")
        await made.run("tag web prod")
        issuer = Issuer(url=ISSUER, folder=tmp_path, now=made.clock)
        workload = Workload(
            store=made.store,
            facts=made.cloud.facts,
            issuer=issuer,
            names=Addresses(made.cloud.config).names,
        )
        limits = Limits(per_second=1, burst=5, monotonic=made.clock)
        yield Inside(made, issuer, workload, Metadata(workload=workload, limits=limits).app())


def claims_of(inside: Inside, token: str) -> dict[str, Any]:
    keys = KeySet.import_key_set(inside.issuer.jwks())  # type: ignore[arg-type]
    claims: dict[str, Any] = jwt.decode(token, keys, algorithms=["ES256"]).claims
    return claims


async def test_a_vm_gets_a_token_that_names_it(inside: Inside) -> None:
    answer = await inside.get(await inside.address("web"), FOR_API)
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["cache-control"] == "no-store"
    vm = await inside.control.cloud.access.find(inside.control.ann, "web")
    claims = claims_of(inside, answer.text)
    assert (claims["iss"], claims["aud"], claims["sub"]) == (ISSUER, API, f"vm:{vm.id}")
    assert claims["exp"] - claims["iat"] == 600
    assert (claims["vm_name"], claims["tags"]) == ("web", ["prod"])
    assert (claims["account"], claims["owner_email"]) == (vm.owner, "ann@example.com")
    assert "email" not in claims, "it is no token about a person"


async def test_a_program_that_wants_json_gets_json(inside: Inside) -> None:
    address = await inside.address("web")
    answer = (await inside.get(address, FOR_API, accept="application/json")).json()
    assert answer["expires_in"] == 600
    assert claims_of(inside, answer["token"])["vm_name"] == "web"


async def test_a_vm_is_told_what_it_is(inside: Inside) -> None:
    about = (await inside.get(await inside.address("web"), "/")).json()
    assert about["name"] == "web"
    assert about["url"] == "https://web.atoll.localhost:8443/"
    assert (about["tags"], about["owner"]["email"]) == (["prod"], "ann@example.com")
    assert isinstance(about["port"], int)


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
async def test_nobody_else_is_told_anything(inside: Inside, accept: str) -> None:
    for path in ("/", FOR_API):
        for address in ("10.213.255.254", "127.0.0.1", "::1"):
            answer = await inside.get(address, path, accept=accept)
            assert answer.status_code == 404
            assert "no VM of this cloud" in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"x_forwarded_for": "ADDRESS"},
        {"forwarded": "for=ADDRESS"},
        {"x_real_ip": "ADDRESS"},
        {"via": "1.1 proxy"},
    ],
)
async def test_no_header_says_who_asks(inside: Inside, headers: dict[str, str]) -> None:
    web, other = await inside.address("web"), await inside.address("other")
    forged = {name: value.replace("ADDRESS", web) for name, value in headers.items()}
    answer = await inside.get(other, FOR_API, **forged)
    assert answer.status_code == 403
    for name in ("x_atoll_user_id", "x_atoll_host", "x_vm_id"):
        answer = await inside.get(other, "/", **{name: web})
        assert answer.json()["name"] == "other"


async def test_a_browser_in_a_vm_is_not_lured(inside: Inside) -> None:
    """A page whose name leads here (DNS rebinding) could else read the answer."""
    address = await inside.address("web")
    refused = await inside.get(address, FOR_API, host="evil.example")
    assert (refused.status_code, "evil.example" in refused.text) == (403, True)
    assert (await inside.get(address, FOR_API, host="169.254.169.254")).status_code == 200
    assert "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?audience=",
        f"?audience={'x' * 256}",
        "?audience=a%0Ab",
        "?audience=a&audience=b",
        "?audience=web.atoll.localhost",
        "?audience=WEB.atoll.localhost",
        "?audience=3000-web.atoll.localhost",
        "?audience=%20web.atoll.localhost",
    ],
)
async def test_audiences_that_are_refused(inside: Inside, query: str) -> None:
    """The web host of a VM among them: its app takes such tokens for people."""
    answer = await inside.get(await inside.address("web"), f"/token{query}")
    assert answer.status_code == 400
    assert "Try: /token?audience=https://" in answer.text


async def test_a_vm_that_is_paused_or_gone_is_nobody(inside: Inside) -> None:
    web, other = await inside.address("web"), await inside.address("other")
    await inside.control.run("pause web")
    await inside.control.run("rm other")
    for address in (web, other):
        assert (await inside.get(address, FOR_API)).status_code == 404


async def test_an_address_that_has_changed_hands_names_its_vm_of_now(inside: Inside) -> None:
    """What is remembered here may be old: the engine is asked."""
    facts, web, other = (
        inside.control.cloud.facts,
        await inside.address("web"),
        await inside.address("other"),
    )
    vm = await inside.control.cloud.access.find(inside.control.ann, "web")
    known = facts.get(vm.id)
    assert known is not None
    facts.observe(known.model_copy(update={"address": other}))
    assert (await inside.get(other, "/")).json()["name"] == "other"
    facts.observe(known.model_copy(update={"address": None}))
    assert (await inside.get(web, "/")).json()["name"] == "web"
    facts.observe(known.model_copy(update={"address": "10.213.9.9"}))
    moved = facts.get((await inside.control.cloud.access.find(inside.control.ann, "other")).id)
    assert moved is not None
    facts.observe(moved.model_copy(update={"address": web}))
    assert (await inside.get(web, "/")).json()["name"] == "web"


async def test_a_vm_that_asks_without_end_is_told_to_wait(inside: Inside) -> None:
    web, other = await inside.address("web"), await inside.address("other")
    answers = [(await inside.get(web, "/")).status_code for _ in range(7)]
    assert answers == [200] * 5 + [429] * 2
    assert (await inside.get(other, "/")).status_code == 200


async def test_an_app_reaches_the_provider_from_inside(inside: Inside, tmp_path: Path) -> None:
    """A VM does not reach its host's HTTPS; its visitor's browser does."""
    async with world(tmp_path / "cloud") as cloud:
        routes = Endpoints(openid=cloud.openid, issuer=cloud.issuer, back=URL).routes()
        limits = Limits(monotonic=cloud.clock)
        metadata_int = Metadata(workload=inside.workload, limits=limits, more=routes)
        async with AsyncOAuth2Client(
            client_id=WEB,
            token_endpoint_auth_method="none",
            scope="openid email",
            redirect_uri=BACK,
            code_challenge_method="S256",
            transport=httpx2.ASGITransport(app=metadata_int.app()),
        ) as client:
            found = await client.get(f"{URL}/.well-known/openid-configuration", auth=None)
            metadata = found.json()
            assert metadata["issuer"] == ISSUER
            url, state = client.create_authorization_url(
                metadata["authorization_endpoint"], code_verifier=VERIFIER
            )
            given = await agree(await cloud.browser(), url)
            token = await client.fetch_token(
                metadata["token_endpoint"],
                authorization_response=given.headers["location"],
                state=state,
                code_verifier=VERIFIER,
            )
            assert (await client.get(metadata["userinfo_endpoint"])).json()["sub"] == PERSON.id
            keys = (await client.get(metadata["jwks_uri"])).json()
    claims = jwt.decode(token["id_token"], KeySet.import_key_set(keys), ["ES256"]).claims
    assert (claims["iss"], claims["aud"]) == (ISSUER, WEB)


async def test_other_paths_are_nothing(inside: Inside) -> None:
    answer = await inside.get(await inside.address("web"), "/latest/meta-data")
    assert (answer.status_code, "nothing at this path" in answer.text) == (404, True)
