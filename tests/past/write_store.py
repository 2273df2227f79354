"""Write a store as a release leaves it, by that release's own code; tests/past/README.md.

    git worktree add /tmp/old COMMIT
    PYTHONPATH=/tmp/old/src python -P tests/past/write_store.py tests/past/stores/COMMIT.sql

The file is the database as text. Tests import the values from here.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from atoll.domain.account import Account
from atoll.domain.operation import Json, Operation, OpKind, OpState
from atoll.domain.sharing import Grant, Level, Who
from atoll.domain.snapshot import Reason, Snapshot
from atoll.domain.vm import Phase, VmRecord, Wanted
from atoll.store import accounts, events, grants, operations, sessions, snapshots, vms
from atoll.store.accounts import SshKey
from atoll.store.engine import Store
from atoll.store.events import Happened
from atoll.store.sessions import TokenRow

NOW = 1763715600.123456
ANN = Account(id="acct-ann", email="ann@example.com", is_admin=True)
BOB = Account(id="acct-bob", email="bob@example.com")
WEB = VmRecord(
    id="vm-000000000001",
    owner=ANN.id,
    name="web",
    comment="ünïcode 🐢",
    image="debian",
    cpus=2,
    memory_bytes=1 << 40,
    disk_bytes=25 << 30,
    phase=Phase.LIVE,
    port=3000,
    is_public=True,  # by its grant
    host_key="ssh-ed25519 AAAAweb",
    created_at=NOW,
    tags=("prod", "shop"),
)
DEV = replace(WEB, id="vm-000000000002", name="dev", wanted=Wanted.PAUSED, is_public=False, tags=())
GONE = replace(
    DEV,
    id="vm-000000000003",
    name=None,
    former_name="old",
    phase=Phase.TRASHED,
    trashed_at=NOW,
    trash_until=NOW + 86400,
    trash_act="act-2",
)
HALF = replace(DEV, id="vm-000000000004", name="half", phase=Phase.CREATING, wanted=Wanted.RUNNING)
COPY = replace(HALF, id="vm-000000000005", name="copy")
VMS = (WEB, DEV, GONE, HALF, COPY)
GRANTS = (
    Grant(id="grant-000000000001", vm=WEB.id, kind=Who.PUBLIC, who="", created_at=NOW, created_by=ANN.id),
    Grant(
        id="grant-000000000002", vm=WEB.id, kind=Who.PERSON, who="bob@example.com", level=Level.ROOT,
        created_at=NOW, created_by=ANN.id, expires_at=NOW + 1e9,
    ),
)  # fmt: skip
SNAPSHOTS = tuple(
    Snapshot(
        id=f"snap-{number:012d}", vm=WEB.id, name=f"{reason.value}-{number}", reason=reason,
        is_clean=not number, has_memory=False, created_at=NOW + number,
    )
    for number, reason in enumerate((Reason.TAKEN, Reason.ROLLBACK, Reason.UNDO))
)  # fmt: skip
KEYS = (
    SshKey(
        fingerprint="SHA256:ann",
        account=ANN.id,
        name="laptop",
        public_key="ssh-ed25519 AAAAann",
        created_at=NOW,
    ),
    SshKey(
        fingerprint="SHA256:ci",
        account=ANN.id,
        name="ci",
        public_key="ssh-ed25519 AAAAci",
        vm=WEB.id,
        created_at=NOW + 1,
    ),
)
TOKENS = (
    TokenRow(
        hash="1" * 64,
        account=ANN.id,
        label="all",
        cmds=None,
        vm=None,
        created_at=NOW,
        expires_at=None,
    ),
    TokenRow(
        hash="2" * 64,
        account=ANN.id,
        label="ci",
        cmds=("ls", "share show"),
        vm=WEB.id,
        created_at=NOW + 1,
        expires_at=NOW + 9e9,
        last_used_at=NOW + 2,
    ),
)
MAKING = Operation(
    id="op-000000000001",
    act="act-1",
    kind=OpKind.CREATE,
    vm=HALF.id,
    account=ANN.id,
    created_at=NOW,
)
CLONING = replace(
    MAKING,
    id="op-000000000002",
    kind=OpKind.CLONE,
    vm=COPY.id,
    payload={"source": WEB.id},
    created_at=NOW + 1,
)
PAUSED = replace(MAKING, id="op-000000000003", kind=OpKind.PAUSE, vm=DEV.id)
FAILED = replace(MAKING, id="op-000000000004", kind=OpKind.RESTART, vm=WEB.id)
HAPPENED = Happened(
    at=NOW,
    account=ANN.id,
    vm=WEB.id,
    kind="new",
    door="ssh",
    detail={"name": "web", "n": [1, None]},
)
SESSION, CODE = "3" * 64, "4" * 64


async def fill(store: Store) -> None:
    """Two accounts, a VM in each phase, a limited key and token, a journal with every ending."""
    await store.migrate()
    async with store.begin() as tx:
        for account in (ANN, BOB):
            await accounts.add(tx, account, now=NOW)
        for vm in VMS:
            await vms.add(tx, vm)
        for grant in GRANTS:
            await grants.put(tx, grant)
        for snapshot in SNAPSHOTS:
            await snapshots.add(tx, snapshot)
        for key in KEYS:
            await accounts.add_key(tx, key)
        for token in TOKENS:
            await sessions.add_token(tx, token)
        for op in (MAKING, CLONING, PAUSED, FAILED):
            await operations.add(tx, op)
        done: dict[str, Json] = {"cold_booted": False, "timings_ms": {"disk": 1.5}}
        await operations.finish(tx, PAUSED, OpState.DONE, result=done, now=NOW + 1)
        error: dict[str, Json] = {"error": {"code": "unavailable", "message": "it did not boot"}}
        await operations.finish(tx, FAILED, OpState.FAILED, result=error, now=NOW + 1)
        await events.add(tx, HAPPENED)
        await sessions.add_code(tx, hash_=CODE, account=ANN.id, expires_at=NOW + 9e9)
        await sessions.add_session(
            tx, hash_=SESSION, account=BOB.id, now=NOW, expires_at=NOW + 9e9, user_agent="curl/8"
        )


async def write(database: Path) -> None:
    """`database`, filled and closed."""
    store = Store(f"sqlite+aiosqlite:///{database}")
    await fill(store)
    await store.close()


def main(target: Path) -> None:
    """Write the store's text to `target`."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "atoll.db"
        asyncio.run(write(database))
        connection = sqlite3.connect(database)
        target.write_text("\n".join(connection.iterdump()) + "\n")
        connection.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
