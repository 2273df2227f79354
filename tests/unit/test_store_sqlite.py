"""The store on SQLite: the contract, and what only SQLite has."""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event, text

import atoll.store.engine
from atoll.base.aio import poll
from atoll.base.errors import Exhausted, Unavailable
from atoll.domain.account import Scope
from atoll.store import accounts, audit, events, schema, sessions, vms
from atoll.store.audit import Which
from atoll.store.engine import Store, upgrade
from contracts.store import ANN, StoreContract
from framework.cloud import store_in


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    made = await store_in(tmp_path)
    yield made
    await made.close()


async def driver_ended() -> None:
    """The driver ends the thread of a failed connection later; it must still find the event loop."""

    async def check() -> bool | None:
        names = [thread.name for thread in threading.enumerate()]
        return not any("_connection_worker" in name for name in names) or None

    await poll(check, seconds=10, what="the driver's threads to end", every=0.01)


class TestSqlite(StoreContract):
    """The contract."""


async def test_migrations_build_exactly_the_schema(store: Store) -> None:
    async with store.read() as tx:
        differences = await tx.run_sync(
            lambda connection: compare_metadata(
                MigrationContext.configure(connection, opts={"compare_type": True}),
                schema.metadata,
            )
        )
    assert differences == []


async def test_keys_and_tokens_of_before_are_for_the_whole_account(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'old.db'}"
    store = Store(url)
    try:
        async with store.begin() as tx:
            await tx.run_sync(upgrade, "0001")
            for line in (
                "INSERT INTO accounts VALUES ('acct-ann', 'ann@example.com', 1, 1.0, 0)",
                "INSERT INTO ssh_keys VALUES ('SHA256:k', 'acct-ann', 'k', 'line', NULL, 1.0)",
                "INSERT INTO api_tokens VALUES ('h', 'acct-ann', 'ci', '[\"ls\"]', NULL, 1.0, 2.0, 3.0)",
            ):
                await tx.execute(text(line))
        await store.migrate()
        async with store.read() as tx:
            (key,) = await accounts.keys_of(tx, ANN.id)
            (token,) = await sessions.tokens_of(tx, ANN.id)
            orphans = (await tx.execute(text("PRAGMA foreign_key_check"))).all()
    finally:
        await store.close()
    assert (key.name, key.scope) == ("k", Scope())
    assert (token.label, token.scope, token.key) == ("ci", Scope(cmds=frozenset({"ls"})), None)
    assert (token.created_at, token.expires_at, token.last_used_at) == (1.0, 2.0, 3.0)
    assert orphans == []


async def test_ports_of_before_were_chosen_unless_they_are_the_one_all_began_with(
    tmp_path: Path,
) -> None:
    store = Store(f"sqlite+aiosqlite:///{tmp_path / 'old.db'}")
    row = (
        "INSERT INTO vms VALUES ('{0}', 'acct-ann', '{0}', NULL, '', 'debian', 1, 1, 1, 'live',"
        " 'running', {1}, 'key', 1.0, NULL, NULL, NULL, 0)"
    )
    try:
        async with store.begin() as tx:
            await tx.run_sync(upgrade, "0015")
            for line in (
                "INSERT INTO accounts VALUES ('acct-ann', 'ann@example.com', 1, 1.0, 0)",
                row.format("first", 8000),
                row.format("other", 3000),
                "INSERT INTO tags VALUES ('other', 'kept')",
            ):
                await tx.execute(text(line))
        await store.migrate()
        async with store.read() as tx:
            first, other = await vms.owned(tx, ANN.id)
    finally:
        await store.close()
    assert (first.port, first.is_port_chosen) == (8000, False)
    assert (other.port, other.is_port_chosen, other.tags) == (3000, True, ("kept",))


def test_migrations_only_go_forward_in_one_line() -> None:
    folder = Path(atoll.store.engine.__file__).parent / "migrations"
    script = ScriptDirectory(str(folder))
    assert len(script.get_heads()) == 1
    for revision in script.walk_revisions():
        assert not hasattr(revision.module, "downgrade")


async def test_commits_are_durable_and_readers_do_not_wait(store: Store) -> None:
    async with store.read() as tx:
        pragmas = [
            (await tx.execute(text(f"PRAGMA {name}"))).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert pragmas == ["wal", 2, 1]
    async with store.begin() as tx:
        await accounts.add(tx, ANN, now=1.0)
        async with asyncio.timeout(5), store.read() as reader:
            assert await accounts.by_email(reader, ANN.email) is None


async def test_closing_waits_for_the_drivers_threads(tmp_path: Path) -> None:
    """What they say last must find the event loop, which a command may close right after."""
    for _ in range(30):
        store = await store_in(tmp_path)
        async with store.read() as tx, store.read() as other:
            await tx.execute(text("SELECT 1"))
            await other.execute(text("SELECT 1"))
        await store.close()
        assert not [t for t in threading.enumerate() if "_connection_worker" in t.name]


async def test_closing_waits_for_what_is_under_way_and_refuses_the_rest(tmp_path: Path) -> None:
    store = await store_in(tmp_path)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> int:
        async with store.read() as tx:
            begun.set()
            await go_on.wait()
            return int((await tx.execute(text("SELECT 7"))).scalar_one())

    reading = asyncio.create_task(slow())
    await begun.wait()
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="closed"):
        async with store.read():
            pass
    assert not closing.done()
    go_on.set()
    assert await reading == 7
    await closing


async def test_a_full_disk_is_said_and_changes_nothing(store: Store) -> None:
    async with store.begin() as tx:
        pages = (await tx.execute(text("PRAGMA page_count"))).scalar_one()
        await tx.execute(text(f"PRAGMA max_page_count = {pages}"))
    with pytest.raises(Exhausted, match="disk is full"):
        async with store.begin() as tx:
            await tx.execute(
                schema.events.insert().values(
                    at=0, account="a", kind="k", door="ssh", detail={"x": "y" * 100_000}
                )
            )
    async with store.read() as tx:
        assert (await tx.execute(text("SELECT count(*) FROM events"))).scalar_one() == 0


async def test_a_database_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    store = Store(f"sqlite+aiosqlite:///{tmp_path / 'no' / 'such' / 'folder.db'}")
    with pytest.raises(Unavailable, match="unable to open"):
        await store.migrate()
    await store.close()
    await driver_ended()


async def test_a_file_of_something_else_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "atoll.db").write_bytes(b"not a database" * 1000)
    store = Store(f"sqlite+aiosqlite:///{tmp_path / 'atoll.db'}")
    with pytest.raises(Unavailable, match="not a database"):
        await store.migrate()
    await store.close()
    await driver_ended()


async def test_no_question_about_events_reads_or_sorts_all_of_them(store: Store) -> None:
    asked: list[tuple[str, Any]] = []
    async with store.read() as tx:
        connection = await tx.get_raw_connection()

        def note(_c: object, _cursor: object, sql: str, values: Any, *_more: object) -> None:
            asked.append((sql, values))

        event.listen(tx.sync_connection, "before_cursor_execute", note)
        await events.latest(tx, ANN.id, limit=9)
        await events.latest_of(tx, ANN.id, vms=["vm-1", "vm-2"], names=["web"], limit=9)
        await events.after(tx, ANN.id, 7, limit=9)
        await events.newest_id(tx, ANN.id)
        event.remove(tx.sync_connection, "before_cursor_execute", note)
        assert connection.driver_connection is not None
        for sql, values in asked:
            cursor = await connection.driver_connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)
            plan = [str(row[3]) for row in await cursor.fetchall()]
            steps = [step for step in plan if "events" in step]
            assert steps
            assert all(
                re.search(r"USING (COVERING |INTEGER PRIMARY )?(INDEX|KEY)", step) for step in steps
            ), plan
            assert not any("B-TREE" in step for step in plan), plan
    assert len(asked) == 5


async def test_no_question_about_the_audit_reads_or_sorts_all_of_it(store: Store) -> None:
    ann = Which(account=ANN.id)
    asked: list[tuple[str, Any]] = []
    async with store.read() as tx:
        connection = await tx.get_raw_connection()

        def note(_c: object, _cursor: object, sql: str, values: Any, *_more: object) -> None:
            asked.append((sql, values))

        event.listen(tx.sync_connection, "before_cursor_execute", note)
        for which in (
            ann,
            replace(ann, act="root"),
            replace(ann, act="root", who="bob@example.com", since_us=5),
            replace(ann, who="bob@example.com", with_own=False),
            replace(ann, vms=["vm-1"], names=["web"], act="grant", who="x", since_us=5),
            replace(ann, vms=["vm-1"], is_limited=True),
            Which(account=None),
        ):
            await audit.latest(tx, which, limit=9)
            await audit.after(tx, which, 7, limit=9)
        await audit.chain(tx, 7, limit=9)
        await audit.head(tx)
        event.remove(tx.sync_connection, "before_cursor_execute", note)
        assert connection.driver_connection is not None
        for sql, values in asked:
            cursor = await connection.driver_connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)
            plan = [str(row[3]) for row in await cursor.fetchall()]
            steps = [step for step in plan if re.search(r"(SCAN|SEARCH) audit", step)]
            assert steps
            in_order = r"SEARCH .*(INDEX|KEY)|SCAN audit($| USING INDEX ix_audit_at_us)"
            assert all(re.search(in_order, step) for step in steps), (sql, plan)
            assert not any("B-TREE" in step for step in plan), (sql, plan)
    assert len(asked) > 20


async def test_whoever_is_cancelled_while_closing_leaves_no_connection(tmp_path: Path) -> None:
    """At any moment of it; one that is left is found by the garbage collector, which complains."""
    left: list[str] = []
    before = sys.unraisablehook
    sys.unraisablehook = lambda found: left.append(repr(found.exc_value))
    try:
        for moment in range(12):
            store, read = await store_in(tmp_path), asyncio.Event()
            user = asyncio.get_running_loop().create_task(_reads(store, read))
            await read.wait()
            for _ in range(moment):
                await asyncio.sleep(0)
            user.cancel()
            await asyncio.wait([user])
            await store.close()
        gc.collect()
    finally:
        sys.unraisablehook = before
    assert not left


async def _reads(store: Store, read: asyncio.Event) -> None:
    async with store.read() as tx:
        await tx.execute(text("SELECT 1"))
        read.set()
