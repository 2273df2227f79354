"""The store's connection: SQLite or PostgreSQL behind the same text.

Invariant: one writer at a time. On SQLite that is its lock, taken at BEGIN; on PostgreSQL an
advisory lock per database. So what a write transaction has read cannot change before it commits,
and "check, then insert" is right without retry loops. A commit that returned is on the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from weakref import WeakSet

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from atoll.base.aio import deadline, shielded
from atoll.base.errors import AtollError, Conflict, Exhausted, Unavailable
from atoll.base.timeout import timeout

Tx = AsyncConnection
BUSY_S = 10.0  # longest wait for the writer's turn; a write takes milliseconds
_WRITE = "atoll_write"
_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",  # in WAL mode NORMAL may lose commits at a power cut
    "foreign_keys=ON",
    "secure_delete=ON",  # setup scripts may hold secrets, and are dropped once they are delivered
    f"busy_timeout={int(BUSY_S * 1000)}",
)
_WRITER_KEY = 0x61746F6C6C  # "atoll": the advisory lock that makes PostgreSQL single-writer


class Store:
    """Transactions on one database; `close` it at the end."""

    def __init__(self, url: str) -> None:
        self._sqlite = make_url(url).get_backend_name() == "sqlite"
        self._threads: WeakSet[threading.Thread] = WeakSet()
        self._engine = _sqlite(url, self._threads) if self._sqlite else _postgres(url)
        self._writer = asyncio.Lock()
        self._is_closed = False
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Tx]:
        """A write transaction: commits when the body ends, rolls back when it raises.

        Raises Exhausted when the disk is full and Unavailable when the database does not answer.
        """
        async with deadline(BUSY_S, "store: waiting to write"):
            await self._writer.acquire()
        try:
            async with self._transaction(write=True) as tx:
                if not self._sqlite:
                    await tx.execute(text("SELECT pg_advisory_xact_lock(:k)"), {"k": _WRITER_KEY})
                yield tx
        finally:
            self._writer.release()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Tx]:
        """A read transaction: one consistent picture; on SQLite it never waits for a writer."""
        async with self._transaction(write=False) as tx:
            yield tx

    async def migrate(self) -> None:
        """Bring the tables to this version; all or nothing. Forward only.

        Raises Conflict, and changes nothing, when a newer version made them.
        """
        async with self.begin() as tx:
            await tx.run_sync(upgrade)

    async def close(self) -> None:
        """Close every connection, once the transactions under way have ended; none begins after that.

        Waits for the driver's threads too: one whose query was cancelled ends later, and what it says
        then must still find this event loop.
        """
        self._is_closed = True
        with contextlib.suppress(TimeoutError):
            async with timeout(BUSY_S):
                await self._idle.wait()
        await self._engine.dispose()
        for thread in tuple(self._threads):
            await asyncio.to_thread(thread.join, BUSY_S)

    @asynccontextmanager
    async def _transaction(self, *, write: bool) -> AsyncIterator[Tx]:
        if self._is_closed:
            raise Unavailable("the store is closed: Atoll is stopping")
        self._under_way += 1
        self._idle.clear()
        try:
            async with self._connected(write=write) as connection:
                yield connection
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    @asynccontextmanager
    async def _connected(self, *, write: bool) -> AsyncIterator[AsyncConnection]:
        try:
            connection = await self._engine.connect()
        except (OSError, DBAPIError) as error:  # asyncpg lets a refused connection through bare
            raise _failure(error) from error
        try:
            options: dict[str, Any] = {_WRITE: write}
            if not (write or self._sqlite):
                options["isolation_level"] = "REPEATABLE READ"
            await connection.execution_options(**options)
            async with connection.begin():
                yield connection
        except DBAPIError as error:
            raise _failure(error) from error
        finally:
            # To its end: one that comes back after `close` has emptied the pool is nobody's.
            await shielded(connection.close(), seconds=BUSY_S)


def _sqlite(url: str, threads: WeakSet[threading.Thread]) -> AsyncEngine:
    engine = create_async_engine(url, connect_args={"isolation_level": None})

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        threads.add(connection.driver_connection._thread)  # the driver has no other way to wait
        cursor = connection.cursor()
        try:
            for pragma in _PRAGMAS:
                cursor.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()  # the pool does not have it yet, so nobody else would
            raise
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Connection) -> None:
        # The driver begins nothing by itself (isolation_level None): a deferred BEGIN that turns
        # into a write would fail with "locked" instead of waiting.
        write = connection.get_execution_options().get(_WRITE)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _postgres(url: str) -> AsyncEngine:
    return create_async_engine(
        url,
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        connect_args={"timeout": BUSY_S, "command_timeout": 3 * BUSY_S},
    )


def _failure(error: OSError | DBAPIError) -> AtollError:
    said = str(error.orig if isinstance(error, DBAPIError) else error)
    if "disk is full" in said or "No space left" in said:
        return Exhausted("the store's disk is full; nothing was changed", hint="Try: atoll doctor")
    return Unavailable(f"the store failed: {said[:300]}", hint="Try: atoll doctor")


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the tables up to a revision."""
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    _refuse_newer(connection, ScriptDirectory.from_config(config))
    command.upgrade(config, revision)


def _refuse_newer(connection: Connection, ours: ScriptDirectory) -> None:
    found = MigrationContext.configure(connection).get_current_revision()
    if found is not None and found not in {known.revision for known in ours.walk_revisions()}:
        raise Conflict(
            f"a newer Atoll made this store: its tables are at revision {found[:40]}, this version"
            f" knows those up to {ours.get_current_head()}",
            hint="Install the newer version again; nothing was changed",
        )
