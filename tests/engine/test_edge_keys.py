"""Keys of tokens with the real HAProxy: rotated while people are signed in."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from joserfc import jwt
from joserfc.jwk import OctKey

from atoll.base.aio import poll
from atoll.domain.account import Account
from atoll.domain.web import TOKEN_COOKIE
from atoll.services.keyring import KeyRing
from framework.edge import Edge, running_edge, upstream

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]
WEB = "127.0.1.1"


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="edge")
async def _edge() -> AsyncIterator[Edge]:
    async with running_edge() as edge, upstream("web", WEB):
        yield edge


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="ann")
async def _ann(edge: Edge) -> Account:
    ann = await edge.account("ann@example.com")
    edge.publish("web", WEB, ann)
    await edge.agreed()
    return ann


async def status(edge: Edge, jar: str) -> int:
    """Of a request to the VM with this cookie."""
    return (await edge.curl(edge.url("web"), "-H", f"Cookie: {jar}")).status


async def test_rotation_signs_nobody_out(edge: Edge, ann: Account) -> None:
    before = await edge.token(ann, "web")
    edge.ring.rotate()
    # By the new key, before HAProxy is told anything: it has had the key already.
    assert await status(edge, await edge.token(ann, "web")) == 200
    edge.cloud.changes.bump()
    await edge.agreed()
    for jar in (before, await edge.token(ann, "web")):
        assert await status(edge, jar) == 200


async def test_revoked_keys_sign_nobody_in(edge: Edge, ann: Account) -> None:
    before = await edge.token(ann, "web")
    edge.ring.rotate(revoke=True)
    edge.cloud.changes.bump()

    async def refused() -> bool | None:
        return await status(edge, before) == 401 or None

    await poll(refused, seconds=1, what="the old token to be refused")
    await edge.agreed()
    assert await status(edge, await edge.token(ann, "web")) == 200


async def test_token_must_name_the_key_that_signed_it(edge: Edge, ann: Account) -> None:
    _, payload, _ = (await edge.token(ann, "web")).partition("=")[2].split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    signing = edge.ring.signing
    upcoming = next(kid for kid in edge.ring.table() if kid != signing.kid)
    for kid, expected in (
        (signing.kid, 200),
        (upcoming, 401),
        ("deadbeef", 401),
        ("-", 401),
        ("", 401),
        (f"{signing.kid} ", 401),
        (f"{signing.kid}\n", 401),
        (None, 401),
    ):
        header = {"alg": "HS256"} | ({} if kid is None else {"kid": kid})
        token = jwt.encode(header, claims, OctKey.import_key(signing.text), algorithms=["HS256"])
        assert await status(edge, f"{TOKEN_COOKIE}={token}") == expected, kid


async def test_tokens_of_the_release_before_are_good_until_their_end(
    edge: Edge, ann: Account
) -> None:
    _, payload, _ = (await edge.token(ann, "web")).partition("=")[2].split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    old = bytes(range(32))
    token = jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(old.hex()), algorithms=["HS256"])
    jar = f"{TOKEN_COOKIE}={token}"
    assert await status(edge, jar) == 401
    edge.use(KeyRing(edge.folder / "upgraded.json", nameless=old))
    await edge.agreed()
    assert await status(edge, jar) == 200
    edge.ring.rotate(revoke=True)
    edge.cloud.changes.bump()
    await edge.agreed()
    assert await status(edge, jar) == 401


async def test_keys_reach_haproxy_by_file_alone_too(edge: Edge, ann: Account) -> None:
    jar = await edge.token(ann, "web")
    await edge.kill_haproxy()
    await edge.start_haproxy()
    await edge.agreed()
    assert await status(edge, jar) == 200
