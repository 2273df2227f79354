"""API tokens against a real store on disk, with a clock of our own."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.base.errors import Conflict, Denied, Invalid
from atoll.domain.account import Account, Door, Scope
from atoll.domain.permission import DEFAULT_CMDS
from atoll.services.signature import parse
from atoll.services.tokens import Tokens
from atoll.store import accounts, vms
from atoll.store.accounts import SshKey
from atoll.store.engine import Store
from contracts.store import vm
from framework.cloud import Clock, store_in
from framework.signing import SshKeyFile

ANN = Account(id="acct-000000000001", email="ann@example.com")
BOB = Account(id="acct-000000000002", email="böb@example.com")


@pytest.fixture(name="clock")
def _clock() -> Clock:
    return Clock()


@pytest.fixture(name="tokens")
async def _tokens(store: Store, clock: Clock) -> Tokens:
    return Tokens(store=store, domain="atoll.localhost", now=clock)


@pytest.fixture(name="store")
async def _store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await store_in(tmp_path)
    async with store.begin() as tx:
        for account in (ANN, BOB):
            await accounts.add(tx, account, now=0.0)
    yield store
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


async def test_removal_is_told(tokens: Tokens) -> None:
    told: list[str] = []
    tokens.when_token_ends(told.append)
    made, token = await tokens.new(ANN, "ci")
    caller = await tokens.caller_for_token(token, "")
    assert caller is not None
    assert not await tokens.remove(ANN, "other")
    assert told == []
    await tokens.remove(ANN, "ci")
    assert told == [made.fingerprint] == [caller.token] == [caller.credential]


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


@pytest.fixture(name="key", scope="module")
def _key(tmp_path_factory: pytest.TempPathFactory) -> SshKeyFile:
    return SshKeyFile.new(tmp_path_factory.mktemp("keys"), "ann")


async def registered(store: Store, key: SshKeyFile, *, vm: str | None = None) -> SshKey:
    """The key among ann's."""
    read = parse(key.sign(b""))
    assert read is not None
    stored = SshKey(
        fingerprint=read.fingerprint,
        account=ANN.id,
        name="ci",
        public_key=key.line,
        vm=vm,
        created_at=1.0,
    )
    async with store.begin() as tx:
        await accounts.add_key(tx, stored)
    return stored


class TestSigned:
    """Tokens of `ssh-keygen -Y sign`; what is refused in them is in test_signed_token.py."""

    async def test_caller(self, tokens: Tokens, store: Store, key: SshKeyFile) -> None:
        stored = await registered(store, key)
        for prefix in ("atoll0", "exe0"):
            token = key.token('{"cmds":["ls","ssh web"],"ctx":"any"}', prefix=prefix)
            caller = await tokens.caller_for_token(token, "192.0.2.7")
            assert caller is not None
            assert (caller.account, caller.door, caller.source) == (ANN, Door.EXEC, "192.0.2.7")
            assert caller.key_fingerprint == stored.fingerprint
            assert caller.scope == Scope(cmds=frozenset({"ls", "ssh web"}))

    async def test_nothing_said_is_the_default(
        self, tokens: Tokens, store: Store, key: SshKeyFile
    ) -> None:
        await registered(store, key)
        caller = await tokens.caller_for_token(key.token(), "")
        assert caller is not None
        assert caller.scope.cmds == frozenset(DEFAULT_CMDS)

    async def test_no_wider_than_its_key(
        self, tokens: Tokens, store: Store, key: SshKeyFile
    ) -> None:
        async with store.begin() as tx:
            await vms.add(tx, vm(1, owner=ANN.id))
        await registered(store, key, vm=vm(1).id)
        caller = await tokens.caller_for_token(key.token('{"cmds":["ls"]}'), "")
        assert caller is not None
        assert caller.scope == Scope(cmds=frozenset({"ls"}), vm=vm(1).id)

    async def test_ends_with_its_key_and_its_time(
        self, tokens: Tokens, store: Store, key: SshKeyFile, clock: Clock
    ) -> None:
        stored = await registered(store, key)
        token, brief = key.token(), key.token(f'{{"exp":{int(clock.time) + 5}}}')
        assert await tokens.caller_for_token(brief, "") is not None
        clock.time += 5
        with pytest.raises(Denied, match="it ended"):
            await tokens.caller_for_token(brief, "")
        assert await tokens.caller_for_token(token, "") is not None
        async with store.begin() as tx:
            await accounts.remove_key(tx, stored.fingerprint)
        with pytest.raises(Denied, match="no key here signed"):
            await tokens.caller_for_token(token, "")

    async def test_of_another_cloud(
        self, store: Store, key: SshKeyFile, tokens: Tokens, clock: Clock
    ) -> None:
        await registered(store, key)
        elsewhere = Tokens(store=store, domain="elsewhere.example", now=clock)
        with pytest.raises(Denied, match=r"v0@elsewhere\.example"):
            await elsewhere.caller_for_token(key.token(), "")
        with pytest.raises(Denied):
            await tokens.caller_for_token(key.token(namespace="v0@elsewhere.example"), "")

    async def test_of_a_strangers_key(self, tokens: Tokens, key: SshKeyFile) -> None:
        with pytest.raises(Denied, match="no key here signed"):
            await tokens.caller_for_token(key.token(), "")
