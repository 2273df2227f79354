"""Signing in and out against a real store on disk, with a clock of our own."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.base.errors import Denied
from atoll.domain.account import Account
from atoll.domain.web import TOKEN_S
from atoll.services.changes import Changes
from atoll.services.keyring import KeyRing
from atoll.services.sessions import CODE_S, HANDOFF_S, Session, Sessions
from atoll.store import accounts
from atoll.store.engine import Store
from framework.cloud import Clock, store_in

ANN = Account(id="acct-000000000001", email="ann@example.com")
BOB = Account(id="acct-000000000002", email="böb@example.com")
HOST = "web.atoll.localhost"
WAY = "w" * 22


@pytest.fixture(name="clock")
def _clock() -> Clock:
    return Clock()


@pytest.fixture(name="store")
async def _store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await store_in(tmp_path)
    async with store.begin() as tx:
        for account in (ANN, BOB):
            await accounts.add(tx, account, now=0.0)
    yield store
    await store.close()


@pytest.fixture(name="ring")
def _ring(tmp_path: Path, clock: Clock) -> KeyRing:
    return KeyRing(tmp_path / "token_keys.json", now=clock)


@pytest.fixture(name="sessions")
def _sessions(store: Store, clock: Clock, ring: KeyRing) -> Sessions:
    return Sessions(store=store, changes=Changes(), keys=ring, session_seconds=86_400, now=clock)


async def signed_in(sessions: Sessions, account: Account = ANN) -> Session:
    found = await sessions.session(await sessions.new_session(account.id))
    assert found is not None
    return found


class TestLoginCodes:
    async def test_works_once(self, sessions: Sessions) -> None:
        code = await sessions.login_code(ANN.id)
        assert await sessions.redeem(code) == ANN
        with pytest.raises(Denied):
            await sessions.redeem(code)

    async def test_works_once_when_tried_at_the_same_moment(self, sessions: Sessions) -> None:
        code = await sessions.login_code(ANN.id)
        tried = await asyncio.gather(
            *(sessions.redeem(code) for _ in range(5)), return_exceptions=True
        )
        assert tried.count(ANN) == 1
        assert sum(isinstance(result, Denied) for result in tried) == 4

    async def test_ends(self, sessions: Sessions, clock: Clock) -> None:
        code = await sessions.login_code(ANN.id)
        clock.time += CODE_S + 1
        with pytest.raises(Denied):
            await sessions.redeem(code)

    @pytest.mark.parametrize("code", ["", "x", "a" * 43, "a" * 10_000, "é" * 43, "' OR 1=1 --"])
    async def test_nonsense(self, sessions: Sessions, code: str) -> None:
        with pytest.raises(Denied):
            await sessions.redeem(code)


class TestSessions:
    async def test_life(self, sessions: Sessions, clock: Clock) -> None:
        session_id = await sessions.new_session(ANN.id, user_agent="x" * 1000)
        assert await sessions.account_for_session(session_id) == ANN
        clock.time += 86_401
        assert await sessions.account_for_session(session_id) is None

    async def test_revoking_is_published_while_tokens_live(
        self, sessions: Sessions, clock: Clock
    ) -> None:
        session = await signed_in(sessions)
        await sessions.revoke(session.id)
        assert await sessions.session(session.id) is None
        assert await sessions.revoked() == {session.key: ANN.id}
        clock.time += TOKEN_S + 1
        assert await sessions.revoked() == {}

    async def test_revoking_bumps_once(self, store: Store, clock: Clock, ring: KeyRing) -> None:
        changes = Changes()
        sessions = Sessions(store=store, changes=changes, keys=ring, session_seconds=60, now=clock)
        session = await signed_in(sessions)
        await sessions.revoke(session.id)
        await sessions.revoke(session.id)
        await sessions.revoke("nonsense")
        assert changes.version == 1

    async def test_revoking_an_account(self, sessions: Sessions) -> None:
        mine, other = await signed_in(sessions), await signed_in(sessions, BOB)
        await sessions.revoke_account(ANN.id)
        assert await sessions.session(mine.id) is None
        assert await sessions.session(other.id) is not None

    async def test_a_key_opens_nothing(self, sessions: Sessions) -> None:
        session = await signed_in(sessions)
        assert await sessions.session(session.key) is None


class TestTokens:
    async def test_claims_and_signature(
        self, sessions: Sessions, clock: Clock, ring: KeyRing
    ) -> None:
        session = await signed_in(sessions)
        token = sessions.mint(host=HOST, account=ANN, session_id=session.id)
        head, payload, signature = token.split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
        assert claims == {
            "aud": HOST,
            "sub": ANN.id,
            "email": ANN.email,
            "sid": session.key,
            "iat": int(clock.time),
            "exp": int(clock.time + TOKEN_S),
        }
        # as HAProxy computes it: the key is the text of the hex digits
        key = ring.signing
        assert json.loads(base64.urlsafe_b64decode(head + "==")) == {
            "alg": "HS256", "kid": key.kid, "typ": "JWT",
        }  # fmt: skip
        digest = hmac.digest(key.text.encode(), f"{head}.{payload}".encode(), hashlib.sha256)
        assert base64.urlsafe_b64encode(digest).decode().rstrip("=") == signature

    async def test_never_outlives_its_session(self, sessions: Sessions, clock: Clock) -> None:
        token = sessions.mint(host=HOST, account=ANN, session_id="s", until=clock.time + 5)
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        assert claims["exp"] == int(clock.time) + 5

    async def test_email_fits_a_header(self, sessions: Sessions) -> None:
        for email in (BOB.email, "a\r\nX-Evil: 1@example.com", "a b@example.com\x7f"):
            account = Account(id=ANN.id, email=email)
            token = sessions.mint(host=HOST, account=account, session_id="s")
            shown = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))["email"]
            assert shown.isascii()
            assert shown.isprintable()

    async def test_key_that_is_revoked_reads_nothing(
        self, sessions: Sessions, ring: KeyRing
    ) -> None:
        session = await signed_in(sessions)
        token = sessions.mint(host=HOST, account=ANN, session_id=session.id)
        ring.rotate()
        assert sessions.session_key_in(token, host=HOST) == session.key
        ring.rotate(revoke=True)
        assert sessions.session_key_in(token, host=HOST) is None

    async def test_session_key_is_read_for_its_host_only(self, sessions: Sessions) -> None:
        session = await signed_in(sessions)
        token = sessions.mint(host=HOST, account=ANN, session_id=session.id)
        assert sessions.session_key_in(token, host=HOST) == session.key
        assert sessions.session_key_in(token, host="other.atoll.localhost") is None
        for forged in ("", "a.b.c", token[:-2], token + "x", "eyJhbGciOiJub25lIn0.e30."):
            assert sessions.session_key_in(forged, host=HOST) is None


class TestHandoff:
    async def test_once_for_one_host(self, sessions: Sessions) -> None:
        session = await signed_in(sessions)
        code = sessions.handoff(session, host=HOST, way=WAY)
        assert await sessions.redeem_handoff(code, host=HOST, way=WAY) == session
        assert await sessions.redeem_handoff(code, host=HOST, way=WAY) is None
        code = sessions.handoff(session, host=HOST, way=WAY)
        assert await sessions.redeem_handoff(code, host="other.atoll.localhost", way=WAY) is None
        assert (
            await sessions.redeem_handoff(code, host=HOST, way=WAY) is None
        )  # a wrong try uses it up

    async def test_one_session_holds_no_more_than_its_share(self, sessions: Sessions) -> None:
        session = await signed_in(sessions)
        codes = [sessions.handoff(session, host=HOST, way=WAY) for _ in range(60)]
        assert await sessions.redeem_handoff(codes[9], host=HOST, way=WAY) is None
        assert await sessions.redeem_handoff(codes[10], host=HOST, way=WAY) == session

    async def test_ends_with_time_and_with_the_session(
        self, sessions: Sessions, clock: Clock
    ) -> None:
        session = await signed_in(sessions)
        old = sessions.handoff(session, host=HOST, way=WAY)
        clock.time += HANDOFF_S + 1
        assert await sessions.redeem_handoff(old, host=HOST, way=WAY) is None
        fresh = sessions.handoff(session, host=HOST, way=WAY)
        await sessions.revoke(session.id)
        assert await sessions.redeem_handoff(fresh, host=HOST, way=WAY) is None


async def test_the_store_holds_no_secret(sessions: Sessions, tmp_path: Path) -> None:
    secrets = [
        await sessions.login_code(ANN.id),
        await sessions.new_session(ANN.id),
    ]
    with sqlite3.connect(tmp_path / "atoll.db") as database:
        dump = "\n".join(database.iterdump())
    database.close()
    for secret in secrets:
        assert secret not in dump
