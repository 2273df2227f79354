"""Stores of earlier releases, migrated by today's code: every row is there. A newer one is refused."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from atoll.base.aio import poll
from atoll.base.errors import Conflict
from atoll.domain.operation import OpState
from atoll.domain.snapshot import Reason
from atoll.domain.vm import Phase
from atoll.rpc.messages import Clone, Create, Spec, Vm, VmState
from atoll.store import accounts, events, operations, schema, sessions, snapshots, vms
from atoll.store.engine import Store
from fakes.engine import FakeEngine
from framework.cloud import control
from framework.past import STORES, restore
from past import write_store as past

KNOW_WHO_CHOSE = {"ad377ad", "9c0089b"}  # a web port
HAVE_SNAPSHOTS = {"9c0089b"}


def store_in(database: Path) -> Store:
    return Store(f"sqlite+aiosqlite:///{database}")


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    restore(request.param, tmp_path / "atoll.db")
    made = store_in(tmp_path / "atoll.db")
    await made.migrate()
    yield made
    await made.close()


def test_there_is_a_store_of_the_first_release() -> None:
    assert "c99cd20" in STORES


async def test_its_tables_are_todays(store: Store) -> None:
    async with store.read() as tx:
        differences = await tx.run_sync(
            lambda connection: compare_metadata(
                MigrationContext.configure(connection, opts={"compare_type": True}),
                schema.metadata,
            )
        )
    assert differences == []


async def test_accounts_keys_tokens_and_sessions_are_there(store: Store) -> None:
    async with store.read() as tx:
        assert await accounts.first_admin(tx) == past.ANN
        assert await accounts.by_email(tx, past.BOB.email) == past.BOB
        assert await accounts.keys_of(tx, past.ANN.id) == past.KEYS
        assert await accounts.by_key(tx, "SHA256:ci") == (past.ANN, past.KEYS[1])
        assert await sessions.tokens_of(tx, past.ANN.id) == past.TOKENS
        session = await sessions.session(tx, past.SESSION)
        assert session is not None
        assert (session.account, session.revoked_at) == (past.BOB, None)
    async with store.begin() as tx:
        assert await sessions.use_code(tx, past.CODE, now=past.NOW) == past.ANN


async def test_vms_trash_journal_and_events_are_there(
    store: Store, request: pytest.FixtureRequest
) -> None:
    # Before that was written down, a port that is not 8000 had been chosen.
    is_chosen = request.node.callspec.params["store"] not in KNOW_WHO_CHOSE
    async with store.read() as tx:
        for vm in past.VMS:
            assert await vms.get(tx, vm.id) == replace(vm, is_port_chosen=is_chosen)
        gone = replace(past.GONE, is_port_chosen=is_chosen)
        assert await vms.trashed(tx, past.ANN.id) == (gone,)
        assert await operations.unfinished(tx) == (past.MAKING, past.CLONING)
        assert await operations.knows(tx, past.DEV.id)
        assert await events.latest(tx, past.ANN.id, limit=9) == (past.HAPPENED,)
    async with store.begin() as tx:
        ended = await operations.tried(tx, past.FAILED)
        assert (ended.state, ended.kind) == (OpState.FAILED, past.FAILED.kind)


async def test_snapshots_are_there_and_a_history_may_be(
    store: Store, request: pytest.FixtureRequest
) -> None:
    has_some = request.node.callspec.params["store"] in HAVE_SNAPSHOTS
    async with store.read() as tx:
        held = await snapshots.of_vms(tx, [past.WEB.id])
        assert held == (past.SNAPSHOTS if has_some else ())
    point = replace(past.SNAPSHOTS[0], id="snap-9", name="point", reason=Reason.HISTORY)
    async with store.begin() as tx:
        await snapshots.add(tx, point)
        assert await snapshots.oldest(tx, Reason.HISTORY, but_of=()) == point


@pytest.mark.parametrize("release", STORES)
async def test_what_its_journal_began_is_brought_to_an_end(release: str, tmp_path: Path) -> None:
    folder = tmp_path / "control"
    folder.mkdir()
    restore(release, folder / "atoll.db")
    await store_of(folder)
    engine = FakeEngine(tmp_path / "engine.sock")
    spec = Spec(
        image="debian",
        cpus=past.WEB.cpus,
        memory_bytes=past.WEB.memory_bytes,
        disk_bytes=past.WEB.disk_bytes,
    )
    engine.vms[past.WEB.id] = Vm(
        vm=past.WEB.id, owner=past.ANN.id, spec=spec, state=VmState.RUNNING
    )
    async with engine.serving(), control(folder, engine, loops=True) as made:

        async def live() -> bool | None:
            async with made.store.read() as tx:
                found = [await vms.get(tx, vm.id) for vm in (past.HALF, past.COPY)]
            return all(vm is not None and vm.phase is Phase.LIVE for vm in found) or None

        await poll(live, seconds=10, what="the journal", every=0.02)
    asked = {request.vm for request in engine.asked if isinstance(request, Create | Clone)}
    assert asked == {past.HALF.id, past.COPY.id}


async def store_of(folder: Path) -> None:
    """Migrated, as control does first."""
    store = store_in(folder / "atoll.db")
    await store.migrate()
    await store.close()


async def test_a_store_of_a_newer_release_is_refused_and_untouched(tmp_path: Path) -> None:
    database = tmp_path / "atoll.db"
    restore(STORES[0], database)
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("ALTER TABLE vms ADD COLUMN later TEXT")
    before = database.read_bytes()
    store = store_in(database)
    with pytest.raises(Conflict, match="9999") as caught:
        await store.migrate()
    await store.close()
    assert "newer" in caught.value.message
    assert "Install the" in caught.value.hint
    assert database.read_bytes() == before
