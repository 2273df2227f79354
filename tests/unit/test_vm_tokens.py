"""Tokens of a VM's address against a real store: which HAProxy is told of, and until when."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from atoll.base.aio import poll
from atoll.domain.sharing import Grant, Who
from atoll.domain.vm_token import VmToken
from atoll.doors.edge import tickets
from atoll.services.public_key import parse_key
from atoll.services.tokens import Tokens
from atoll.services.vm_tokens import VmTokens
from atoll.store import accounts, grants, vms
from atoll.store.accounts import SshKey
from atoll.store.engine import Store
from contracts.store import ANN, BOB, vm
from framework.cloud import Clock, store_in
from framework.signing import SshKeyFile

WEB, OTHER = vm(1, name="web", tags=("ci",)), vm(2, name="other")
NAMESPACE = "v0@web.atoll.localhost"


class Told:
    """How often the edge was told."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


@pytest.fixture(name="clock")
def _clock() -> Clock:
    return Clock()


@pytest.fixture(name="told")
def _told() -> Told:
    return Told()


@pytest.fixture(name="store")
async def _store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await store_in(tmp_path)
    async with store.begin() as tx:
        await accounts.add(tx, ANN, now=0.0)
        for one in (WEB, OTHER):
            await vms.add(tx, one)
    yield store
    await store.close()


@pytest.fixture(name="known")
def _known(store: Store, clock: Clock, told: Told) -> VmTokens:
    return VmTokens(store=store, domain="atoll.localhost", changed=told, now=clock, most_each=3)


@pytest.fixture(name="key")
async def _key(tmp_path: Path, store: Store) -> SshKeyFile:
    key = SshKeyFile.new(tmp_path, "key")
    async with store.begin() as tx:
        await accounts.add_key(tx, row(key))
    return key


def row(key: SshKeyFile) -> SshKey:
    return SshKey(
        fingerprint=parse_key(key.line).fingerprint, account=ANN.id, name="laptop",
        public_key=key.line, tag="ci", created_at=0.0,
    )  # fmt: skip


async def test_kept_tokens_of_one_vm_in_time(
    store: Store, known: VmTokens, clock: Clock, told: Told
) -> None:
    tokens = Tokens(store=store, domain="atoll.localhost", changed=told, now=clock)
    await tokens.new(ANN, "whole")
    await tokens.new(ANN, "tagged", tag="ci")
    await tokens.new(ANN, "web", vm=WEB.id, expires_at=clock.time + 10)
    (good,) = await known.good()
    assert (good.vm_name, good.account, good.email) == ("web", ANN.id, ANN.email)
    assert good.until == clock.time + 10
    assert told.times == 3
    clock.time += 10
    assert await known.good() == ()
    await tokens.remove(ANN, "web")
    assert told.times == 4


async def test_end_is_told(store: Store, known: VmTokens, clock: Clock, told: Told) -> None:
    tokens = Tokens(store=store, domain="atoll.localhost", now=clock)
    await tokens.new(ANN, "web", vm=WEB.id, expires_at=clock.time + 0.01)
    await known.good()

    async def is_told() -> bool | None:
        return told.times > 0 or None

    await poll(is_told, seconds=5, what="the end of the token to be told", every=0.01)


async def test_signed_is_good_from_its_first_showing(
    known: VmTokens, key: SshKeyFile, clock: Clock, told: Told
) -> None:
    token = key.token(f'{{"exp":{int(clock.time) + 60},"ctx":[1, "é"]}}', namespace=NAMESPACE)
    assert await known.good() == ()
    good = await known.admit("web", token)
    assert good is not None
    assert good.ctx == '[1,"\\u00e9"]'
    assert await known.good() == (good,)
    assert told.times == 1
    clock.time += 60
    assert await known.good() == ()
    assert await known.admit("web", token) is None


async def test_signed_for_another_place_is_not(known: VmTokens, key: SshKeyFile) -> None:
    token = key.token(namespace=NAMESPACE)
    assert await known.admit("other", token) is None
    assert await known.admit("nosuch", token) is None
    other = key.token(namespace="v0@other.atoll.localhost")
    assert await known.admit("other", other) is None  # the key is for VMs with a tag
    for broken in (key.token(), token[:-1], "atoll0.x.y", "", "atoll1." + "x" * 43):
        assert await known.admit("web", broken) is None


async def test_who_may_open_nothing_does_not_learn_that_there_is_such_a_vm(
    store: Store, known: VmTokens, clock: Clock, tmp_path: Path
) -> None:
    stranger = SshKeyFile.new(tmp_path, "stranger")
    async with store.begin() as tx:
        await accounts.add(tx, BOB, now=0.0)
        await accounts.add_key(tx, replace(row(stranger), account=BOB.id, tag=None))
    token = stranger.token(namespace=NAMESPACE)
    assert await known.admit("web", token) is None
    given = Grant(
        id="gr-1", vm=WEB.id, kind=Who.PERSON, who=BOB.email, path="/docs",
        created_at=0.0, created_by=ANN.id, expires_at=clock.time + 5,
    )  # fmt: skip
    for grant in (given, replace(given, id="gr-2", kind=Who.PUBLIC, who="")):
        async with store.begin() as tx:
            await grants.put(tx, grant)
        assert await known.admit("web", token) is not None
        async with store.begin() as tx:
            await grants.put(tx, replace(grant, expires_at=clock.time))
        assert await known.admit("web", token) is None


async def test_signed_ends_with_key_tag_name_and_vm(
    store: Store, known: VmTokens, key: SshKeyFile
) -> None:
    token = key.token(namespace=NAMESPACE)
    assert await known.admit("web", token) is not None

    async with store.begin() as tx:
        await accounts.remove_key(tx, row(key).fingerprint)
    assert await known.good() == ()
    async with store.begin() as tx:
        await accounts.add_key(tx, row(key))
    assert await known.good() == ()  # it is forgotten, not hidden
    assert await known.admit("web", token) is not None

    async with store.begin() as tx:
        await vms.set_tags(tx, WEB.id, ())
    assert await known.good() == ()
    async with store.begin() as tx:
        await vms.set_tags(tx, WEB.id, ("ci",))
    assert await known.admit("web", token) is not None

    async with store.begin() as tx:
        await vms.change(tx, WEB, name="www")
    assert await known.good() == ()


async def test_signed_ones_of_an_account_are_bounded(known: VmTokens, key: SshKeyFile) -> None:
    signed = [key.token(f'{{"ctx":{n}}}', namespace=NAMESPACE) for n in range(5)]
    for token in signed:
        await known.admit("web", token)
    assert [good.ctx for good in await known.good()] == ["2", "3", "4"]


def test_value() -> None:
    token = VmToken(vm_name="web", hash="ab", account="acct-a", email="böb@example.com")
    ((key, value),) = tickets.table([token], domain="atoll.localhost").items()
    assert key == "web.atoll.localhost|ab"
    account, until, ctx, email = value.split(":")
    assert (account, until, ctx) == ("acct-a", "0", "0")
    assert base64.urlsafe_b64decode(email + "==") == b"b%C3%B6b@example.com"
