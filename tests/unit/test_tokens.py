"""API tokens against a real store on disk, with a clock of our own."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.base.errors import Conflict, Invalid
from atoll.domain.account import Account, Door, Scope
from atoll.services.tokens import Tokens
from atoll.store import accounts
from atoll.store.engine import Store
from framework.cloud import Clock

ANN = Account(id="acct-000000000001", email="ann@example.com")
BOB = Account(id="acct-000000000002", email="böb@example.com")


@pytest.fixture(name="clock")
def _clock() -> Clock:
    return Clock()


@pytest.fixture(name="tokens")
async def _tokens(tmp_path: Path, clock: Clock) -> AsyncIterator[Tokens]:
    store = Store(f"sqlite+aiosqlite:///{tmp_path / 'atoll.db'}")
    await store.migrate()
    async with store.begin() as tx:
        for account in (ANN, BOB):
            await accounts.add(tx, account, now=0.0)
    yield Tokens(store=store, now=clock)
    await store.close()


async def test_caller(tokens: Tokens) -> None:
    made, token = await tokens.new(ANN, "ci", ["ls", "new"])
    caller = await tokens.caller_for_token(token, "192.0.2.7")
    assert made.label == "ci"
    assert caller is not None
    assert (caller.account, caller.door, caller.source) == (ANN, Door.EXEC, "192.0.2.7")
    assert caller.scope == Scope(cmds=frozenset({"ls", "new"}))


async def test_nothing_allowed_is_not_everything(tokens: Tokens) -> None:
    _, token = await tokens.new(ANN, "none", [])
    caller = await tokens.caller_for_token(token, "")
    assert caller is not None
    assert caller.scope.cmds == frozenset()


async def test_ends(tokens: Tokens, clock: Clock) -> None:
    _, token = await tokens.new(ANN, expires_at=clock.time + 10)
    assert await tokens.caller_for_token(token, "") is not None
    clock.time += 10
    assert await tokens.caller_for_token(token, "") is None


async def test_removed(tokens: Tokens) -> None:
    made, token = await tokens.new(ANN)
    assert not await tokens.remove(BOB, made.label)
    assert await tokens.remove(ANN, made.label)
    assert await tokens.caller_for_token(token, "") is None


async def test_listed_without_the_secret(tokens: Tokens, clock: Clock) -> None:
    _, token = await tokens.new(ANN, "ci")
    await tokens.caller_for_token(token, "")
    (listed,) = await tokens.of(ANN)
    assert (listed.label, listed.last_used_at) == ("ci", clock.time)
    assert token not in repr(listed)
    assert await tokens.of(BOB) == ()


@pytest.mark.parametrize("label", ["a b", "-x", "x" * 65, "é", "a\n"])
async def test_odd_labels(tokens: Tokens, label: str) -> None:
    with pytest.raises(Invalid):
        await tokens.new(ANN, label)


async def test_label_in_use(tokens: Tokens) -> None:
    await tokens.new(ANN, "ci")
    await tokens.new(BOB, "ci")
    with pytest.raises(Conflict):
        await tokens.new(ANN, "ci")


async def test_already_over(tokens: Tokens, clock: Clock) -> None:
    with pytest.raises(Invalid):
        await tokens.new(ANN, expires_at=clock.time)


@pytest.mark.parametrize("token", ["", "atoll1.", "atoll1.x", "exe1.abc", "a" * 9000])
async def test_nonsense(tokens: Tokens, token: str) -> None:
    assert await tokens.caller_for_token(token, "") is None


async def test_the_store_holds_no_secret(tokens: Tokens, tmp_path: Path) -> None:
    _, token = await tokens.new(ANN)
    with sqlite3.connect(tmp_path / "atoll.db") as database:
        dump = "\n".join(database.iterdump())
    database.close()
    assert token.removeprefix("atoll1.") not in dump
