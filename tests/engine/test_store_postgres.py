"""The store on PostgreSQL: the same contract, on a server of Debian's package started for it."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from atoll.base.aio import TaskGroup, poll
from atoll.base.errors import Unavailable
from atoll.store import accounts
from atoll.store.engine import Store
from contracts.store import ANN, StoreContract

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
SECONDS = 60


def _as_postgres(*argv: str | Path, check: bool = True) -> None:
    """The server refuses to run as root."""
    user = pwd.getpwnam("postgres")
    is_root = os.getuid() == 0
    done = subprocess.run(
        [str(word) for word in argv],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd="/",
        check=False,
        user=user.pw_uid if is_root else None,
        group=user.pw_gid if is_root else None,
    )
    assert done.returncode == 0 or not check, done.stdout + done.stderr


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of an empty server on a unix socket in a folder of its own."""
    assert BINARIES, "Debian's package `postgresql` is not installed"
    folder = Path(tempfile.mkdtemp(prefix="atoll-pg-"))
    if os.getuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    data, binaries = folder / "data", BINARIES[-1]
    try:
        _as_postgres(
            binaries / "initdb",
            "-D",
            data,
            "-U",
            "atoll",
            "--auth=trust",
            "--no-sync",
            "-E",
            "UTF8",
        )
        options = f"-c listen_addresses='' -k {folder} -c fsync=off"
        _as_postgres(
            binaries / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start"
        )
        yield f"postgresql+asyncpg://atoll@/postgres?host={folder}"
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            _as_postgres(binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop", check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def store(server: str) -> AsyncIterator[Store]:
    name = f"t{uuid.uuid4().hex}"
    admin = create_async_engine(server, isolation_level="AUTOCOMMIT")
    async with admin.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    made = Store(make_url(server).set(database=name).render_as_string(hide_password=False))
    await made.migrate()
    yield made
    await made.close()
    async with admin.connect() as connection:
        await connection.execute(text(f"DROP DATABASE {name}"))
    await admin.dispose()


class TestPostgres(StoreContract):
    """The contract."""


async def test_two_controls_on_one_database_are_one_writer(store: Store, server: str) -> None:
    async with store.read() as tx:
        name = (await tx.execute(text("SELECT current_database()"))).scalar_one()
    other = Store(make_url(server).set(database=name).render_as_string(hide_password=False))
    order: list[str] = []

    async def write_second() -> None:
        async with other.begin() as tx:
            assert await accounts.by_email(tx, ANN.email) == ANN
            order.append("second")

    async def is_waiting() -> bool | None:
        async with store.read() as tx:
            query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            return (await tx.execute(text(query))).scalar_one() == 1 or None

    async with TaskGroup() as group:
        async with store.begin() as tx:
            group.create_task(write_second())
            await poll(is_waiting, seconds=10, what="the second writer to queue", every=0.01)
            await accounts.add(tx, ANN, now=1.0)
            order.append("first")
    assert order == ["first", "second"]
    await other.close()


async def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    store = Store(f"postgresql+asyncpg://atoll@/atoll?host={tmp_path}")
    with pytest.raises(Unavailable, match="the store failed"):
        async with store.read() as tx:
            await accounts.first_admin(tx)
    await store.close()
