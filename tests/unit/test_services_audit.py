"""Writing the audit: many at a time, nothing dropped, one chain whatever fails or ends."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import atoll.services.audit
from atoll.base.aio import TaskGroup, deadline, poll, together
from atoll.base.errors import Unavailable
from atoll.domain.audit import Act, Damaged, Entry, Record, Verifier
from atoll.services.audit import ROOM, STRANGERS, Audit, Waiting
from atoll.services.records import Records
from atoll.store import audit as rows
from atoll.store.audit import Which
from atoll.store.engine import Store, Tx
from framework.cloud import START, Clock, migrated

WRITER = Path(__file__).parents[1] / "framework" / "audit_writer.py"


class Moody(Store):
    """A store that counts its writes, and fails or waits when it is told to."""

    failing = False
    writes = 0
    gate: asyncio.Event | None = None

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Tx]:
        """See Store."""
        self.writes += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.failing:
            raise Unavailable("the store failed: disk I/O error")
        async with super().begin() as tx:
            yield tx


@pytest.fixture(name="store")
async def _store(tmp_path: Path) -> AsyncIterator[Moody]:
    shutil.copy(await migrated(), tmp_path / "atoll.db")
    store = Moody(f"sqlite+aiosqlite:///{tmp_path / 'atoll.db'}")
    yield store
    await store.close()


@pytest.fixture(name="audit")
def _audit(store: Moody) -> Audit:
    return Audit(store=store, now=Clock())


def waiting(what: str) -> Waiting:
    return Waiting(
        Entry(
            at_us=1, account="acct-ann", who="ann@example.com", credential="", door="ssh", source="",
            act="command", what=what,
        )
    )  # fmt: skip


async def record(audit: Audit, what: str, **more: Any) -> None:
    told = {"who": "Ann@example.com", "act": "grant", "door": "ssh", "source": "192.0.2.1"}
    await audit.record(**(told | {"account": "acct-ann", "what": what} | more))


async def chain(store: Store) -> tuple[Record, ...]:
    async with store.read() as tx:
        return await rows.chain(tx, 0, limit=100_000)


async def whats(store: Store) -> list[str]:
    return [each.what for each in await chain(store)]


async def verified(store: Store, audit: Audit, anchor: str = "") -> Verifier:
    verifier = Verifier(anchor=anchor)
    await Records(store=store, audit=audit).verify(verifier)
    return verifier


async def test_a_record_is_there_when_it_has_been_recorded(audit: Audit, store: Moody) -> None:
    await record(audit, "share add web", vm="web", credential="SHA256:x", detail={"name": "x"})
    (found,) = await chain(store)
    assert (found.who, found.act, found.what, found.vm) == (
        "ann@example.com", "grant", "share add web", "web",
    )  # fmt: skip
    assert (found.at_us, found.result, found.detail) == (START * 1e6, "ok", '{"name":"x"}')
    assert (found.owner, found.vm_id) == (None, None)  # there is no such VM


async def test_those_that_come_together_are_written_together(audit: Audit, store: Moody) -> None:
    await together(*(record(audit, str(number)) for number in range(300)))
    assert sorted(await whats(store), key=int) == [str(number) for number in range(300)]
    assert store.writes <= 3
    assert (await verified(store, audit)).count == 300


async def test_what_nobody_waits_for_comes_soon_and_in_its_order(
    audit: Audit, store: Moody
) -> None:
    async with TaskGroup() as group:
        task = group.create_task(audit.run())
        for number in range(5):
            await audit.add([waiting(str(number))], is_urgent=False)
        assert store.writes == 0

        async def written() -> bool | None:
            return len(await chain(store)) == 5 or None

        await poll(written, seconds=10, what="the records", every=0.01)
        assert store.writes == 1
        await audit.add([waiting("5")], is_urgent=False)
        await record(audit, "6")
        assert await whats(store) == list("0123456")
        task.cancel()


async def test_what_is_left_is_written_at_the_end(audit: Audit, store: Moody) -> None:
    async with TaskGroup() as group:
        task = group.create_task(audit.run())
        await audit.add([waiting("a")], is_urgent=False)
        await asyncio.sleep(0)
        task.cancel()
    assert await whats(store) == ["a"]
    audit.note([waiting("b")])
    await audit.close()
    assert await whats(store) == ["a", "b"]


async def test_whoever_finds_no_room_waits(audit: Audit, store: Moody) -> None:
    for number in range(ROOM - 1):
        await audit.add([waiting(str(number))], is_urgent=False)
    assert store.writes == 0
    await audit.add([waiting("last")], is_urgent=False)
    assert len(await chain(store)) == ROOM


async def test_what_cannot_be_written_is_kept_and_written_later(
    audit: Audit, store: Moody, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atoll.services.audit, "_RETRY_S", 0.01)
    store.failing = True
    await record(audit, "done")  # raises nothing: it is done
    assert audit.problem.startswith("1 records of the audit are not written: the store failed")
    async with TaskGroup() as group:
        task = group.create_task(audit.run())
        await record(audit, "too")
        store.failing = False

        async def written() -> bool | None:
            return await whats(store) == ["done", "too"] or None

        await poll(written, seconds=10, what="the records", every=0.01)
        assert audit.problem == ""
        task.cancel()


async def test_when_too_many_cannot_be_written_no_more_is_let_in(
    audit: Audit, store: Moody
) -> None:
    store.failing = True
    await audit.room()
    audit.note([waiting(str(number)) for number in range(ROOM)])
    with pytest.raises(Unavailable, match=r"2000 records .* cannot be written"):
        await audit.room()
    store.failing = False
    await audit.room()
    assert len(await chain(store)) == ROOM


async def test_whoever_is_cancelled_leaves_one_record(audit: Audit, store: Moody) -> None:
    store.gate = asyncio.Event()
    first = asyncio.create_task(record(audit, "first"))
    second = asyncio.create_task(record(audit, "second"))
    await poll(_begun(store), seconds=10, what="the write", every=0.001)
    first.cancel()
    second.cancel()
    store.gate.set()
    for task in (first, second):
        with pytest.raises(asyncio.CancelledError):
            await task
    await audit.flush()
    assert await whats(store) == ["first", "second"]
    assert (await verified(store, audit)).count == 2


def _begun(store: Moody) -> Any:
    async def begun() -> bool | None:
        return store.writes > 0 or None

    return begun


async def test_two_processes_write_one_chain(audit: Audit, store: Moody, tmp_path: Path) -> None:
    other = Store(f"sqlite+aiosqlite:///{tmp_path / 'atoll.db'}")
    beside = Audit(store=other)
    await together(*(record(each, "x") for _ in range(30) for each in (audit, beside)))
    assert (await verified(store, audit)).count == 60
    await other.close()


async def test_strangers_do_not_fill_the_store(audit: Audit, store: Moody) -> None:
    clock = Clock()
    audit = Audit(store=store, now=clock)
    for _ in range(STRANGERS + 7):
        await audit.record(who="unknown", act="sign-in", door="web", source="x", result="denied")
    clock.time += 61
    await audit.record(who="unknown", act="sign-in", door="web", source="x", result="denied")
    found = await chain(store)
    assert len(found) == STRANGERS + 1
    assert json.loads(found[-1].detail) == {"not_recorded": 7}
    await record(audit, "of somebody known")
    assert len(await chain(store)) == STRANGERS + 2


async def test_an_act_that_is_none_is_a_defect(audit: Audit) -> None:
    with pytest.raises(ValueError, match="dance"):
        await record(audit, "x", act="dance")


async def test_what_was_done_to_the_table_by_its_owner_shows(audit: Audit, store: Moody) -> None:
    for number in range(5):
        await record(audit, str(number))
    head = (await chain(store))[-1].hash
    async with store.begin() as tx:
        for trigger in ("audit_no_update", "audit_no_delete", "audit_next"):
            await tx.execute(text(f"DROP TRIGGER {trigger}"))
        await tx.execute(text("UPDATE audit SET who = 'eve' WHERE seq = 3"))
    with pytest.raises(Damaged) as damaged:
        await verified(store, audit)
    assert damaged.value.seq == 3
    async with store.begin() as tx:
        await tx.execute(text("DELETE FROM audit WHERE seq >= 3"))
    found = await verified(store, audit, anchor=head)
    assert (found.count, found.anchor_seq) == (2, None)


async def test_all_of_them_a_page_at_a_time(
    audit: Audit, store: Moody, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atoll.services.records.PAGE", 3)
    audit.note([waiting(str(number)) for number in range(8)])
    records = Records(store=store, audit=audit)
    pages = [page async for page in records.all(Which(account="acct-ann"))]
    assert [[each.what for each in page] for page in pages] == [
        list("012"),
        list("345"),
        list("67"),
    ]
    assert [page async for page in records.all(Which(account="acct-bob"))] == []
    assert (await verified(store, audit)).count == 8


@pytest.mark.parametrize("after", [1, 40, 200])
def test_a_kill_at_any_moment_loses_nothing_that_was_acknowledged(
    tmp_path: Path, after: int
) -> None:
    asyncio.run(_template(tmp_path / "atoll.db"))
    argv = [sys.executable, "-P", str(WRITER), str(tmp_path / "atoll.db")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(after)]
        writer.send_signal(signal.SIGKILL)
        said += writer.stdout.read().splitlines(keepends=True)
        code = writer.wait(30)
    assert code == -signal.SIGKILL
    acknowledged = {line.strip() for line in said if line.endswith("\n")}
    assert asyncio.run(_found(tmp_path / "atoll.db")) >= acknowledged > set()


async def _template(database: Path) -> None:
    shutil.copy(await migrated(), database)


async def _found(database: Path) -> set[str]:
    store = Store(f"sqlite+aiosqlite:///{database}")
    audit = Audit(store=store)
    async with deadline(30, "the chain"):
        await verified(store, audit)
        await record(audit, "after", act=Act.COMMAND.value)
        assert (await verified(store, audit)).count == len(await chain(store))
        found = {*await whats(store)}
    await store.close()
    return found
