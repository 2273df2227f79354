"""Signing keys: made once, changed in time, and never before those who verify can know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from atoll.base.errors import Invalid
from atoll.services.issuer import LONGEST_S, PUBLISH_S, ROTATE_S, Issuer
from framework.cloud import Clock

URL = "https://atoll.localhost:8443"


@pytest.fixture(name="clock")
def _clock() -> Clock:
    return Clock()


@pytest.fixture(name="issuer")
def _issuer(tmp_path: Path, clock: Clock) -> Issuer:
    return Issuer(url=URL, folder=tmp_path, now=clock)


def ids(issuer: Issuer) -> list[str]:
    return [key["kid"] for key in issuer.jwks()["keys"]]


def signed_by(token: str) -> str:
    return str(jws.extract_compact(token.encode()).headers()["kid"])


def token(issuer: Issuer) -> str:
    return issuer.sign({}, audience="x", seconds=60)


def test_what_is_signed_verifies_with_what_is_published(issuer: Issuer, clock: Clock) -> None:
    made = issuer.sign({"sub": "acct-1"}, audience="web.atoll.localhost", seconds=600)
    keys = KeySet.import_key_set(json.loads(json.dumps(issuer.jwks())))
    decoded = jwt.decode(made, keys, algorithms=["ES256"])
    assert decoded.header == {"typ": "JWT", "alg": "ES256", "kid": ids(issuer)[0]}
    claims = decoded.claims
    assert claims["exp"] - claims["iat"] == 600
    assert (claims["iss"], claims["aud"], claims["sub"]) == (URL, "web.atoll.localhost", "acct-1")


def test_claims_of_a_caller_replace_none_of_ours(issuer: Issuer) -> None:
    forged = {"iss": "https://evil.example", "aud": "all", "exp": 9e12, "iat": 0, "jti": "x"}
    claims = jwt.decode(
        issuer.sign(forged, audience="web", seconds=60),
        KeySet.import_key_set(issuer.jwks()),  # type: ignore[arg-type]
        algorithms=["ES256"],
    ).claims
    assert not forged.items() & claims.items()


@pytest.mark.parametrize("seconds", [0, -1, LONGEST_S + 1])
def test_no_token_outlives_its_published_key(issuer: Issuer, seconds: float) -> None:
    with pytest.raises(ValueError, match="up to 3600 s"):
        issuer.sign({}, audience="x", seconds=seconds)


def test_keys_are_kept_for_their_owner_alone(issuer: Issuer, tmp_path: Path) -> None:
    before = ids(issuer)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert ids(Issuer(url=URL, folder=tmp_path)) == before


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"keys": 1}', '{"keys": [1]}', '{"keys": [{"jwk": {}}]}']
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "issuer.json"
    path.write_text(text)
    with pytest.raises(Invalid, match=r"issuer\.json is damaged") as caught:
        Issuer(url=URL, folder=tmp_path)
    assert caught.value.hint == f"Try: rm {path}"


def test_nothing_private_is_published(issuer: Issuer) -> None:
    assert set(issuer.jwks()["keys"][0]) == {"kty", "crv", "x", "y", "use", "alg", "kid"}


def test_the_next_key_is_published_before_it_signs(issuer: Issuer, clock: Clock) -> None:
    first = signed_by(token(issuer))
    clock.time += ROTATE_S - PUBLISH_S
    assert len(ids(issuer)) == 2
    clock.time += PUBLISH_S - 1
    assert signed_by(token(issuer)) == first
    clock.time += 1
    assert signed_by(token(issuer)) == ids(issuer)[1] != first


def test_an_old_key_is_published_until_its_last_token_has_ended(
    issuer: Issuer, clock: Clock, tmp_path: Path
) -> None:
    first = signed_by(token(issuer))
    clock.time += ROTATE_S - PUBLISH_S
    token(issuer)
    clock.time += PUBLISH_S
    token(issuer)
    assert "d" not in json.loads((tmp_path / "issuer.json").read_text())["keys"][0]["jwk"]
    clock.time += LONGEST_S
    assert first in ids(issuer)
    clock.time += LONGEST_S
    assert first not in ids(issuer)


def test_a_cloud_that_slept_for_years_signs_and_changes_its_key(
    issuer: Issuer, clock: Clock
) -> None:
    first = signed_by(token(issuer))
    clock.time += 100 * ROTATE_S
    assert signed_by(token(issuer)) == first
    clock.time += PUBLISH_S
    assert signed_by(token(issuer)) != first


def test_a_clock_that_is_set_back_stops_nothing(issuer: Issuer, clock: Clock) -> None:
    token(issuer)
    clock.time -= ROTATE_S
    assert signed_by(token(issuer)) in ids(issuer)


def test_a_leaked_key_is_disowned_at_once(issuer: Issuer, tmp_path: Path) -> None:
    old = token(issuer)
    issuer.rotate()
    keys = KeySet.import_key_set(issuer.jwks())  # type: ignore[arg-type]
    with pytest.raises(JoseError):
        jwt.decode(old, keys, algorithms=["ES256"])
    assert ids(Issuer(url=URL, folder=tmp_path)) == ids(issuer)
