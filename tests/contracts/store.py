"""What every store must do, whichever database is under it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from sqlalchemy import Connection, delete, inspect, select, text
from sqlalchemy.exc import IntegrityError

from atoll.base.aio import together
from atoll.base.errors import Conflict, Unavailable
from atoll.domain.account import Account, Scope
from atoll.domain.audit import Act, Entry, Head, Record, linked
from atoll.domain.operation import Operation, OpKind, OpState
from atoll.domain.sharing import Grant, Level, Link, Who
from atoll.domain.snapshot import Reason, Snapshot
from atoll.domain.team import Invitation as TeamInvitation
from atoll.domain.team import Role, Team
from atoll.domain.usage import Growth, Range, Sizes, Use
from atoll.domain.vm import Phase, VmRecord, Wanted
from atoll.store import (
    accounts,
    answers,
    audit,
    consents,
    defaults,
    events,
    grants,
    history,
    identities,
    operations,
    passkeys,
    people,
    samples,
    schema,
    sessions,
    snapshots,
    teams,
    vms,
)
from atoll.store.accounts import SshKey
from atoll.store.answers import AnswerRow
from atoll.store.audit import Meant, Which
from atoll.store.engine import Store, Tx
from atoll.store.events import Happened
from atoll.store.grants import Asking, Request
from atoll.store.passkeys import Passkey
from atoll.store.people import Invitation, Mailed
from atoll.store.sessions import TokenRow
from atoll.store.teams import Member
from atoll.store.written import tables_written

ANN = Account(id="acct-ann", email="ann@example.com", is_admin=True)
BOB = Account(id="acct-bob", email="bob@example.com")
DESIGN = Team(id="team-1", name="design", created_at=1.5)
OPS = Team(id="team-2", name="ops", created_at=2.5)


def vm(number: int, **changes: object) -> VmRecord:
    """A live VM of ann's."""
    values: dict[str, object] = {
        "id": f"vm-{number:012d}",
        "owner": ANN.id,
        "name": f"web{number}x",
        "image": "debian",
        "cpus": 1,
        "memory_bytes": 1 << 40,  # more than 32 bits
        "disk_bytes": 25 << 30,
        "phase": Phase.LIVE,
        "port": 8000,
        "host_key": "ssh-ed25519 AAAA",
        "created_at": 1_800_000_000.123456,
    }
    return VmRecord(**(values | changes))  # type: ignore[arg-type]


def op(number: int, target: str, **changes: object) -> Operation:
    """An intent to create."""
    values: dict[str, object] = {
        "id": f"op-{number:012d}",
        "act": "act-1",
        "kind": OpKind.CREATE,
        "vm": target,
        "account": ANN.id,
        "payload": {"source": "vm-0", "list": [1, None, True]},
        "created_at": float(number),
    }
    return Operation(**(values | changes))  # type: ignore[arg-type]


def vm_event(number: int, name: str, vm_id: str | None) -> Happened:
    """Something that happened to a VM of ann's."""
    return Happened(
        at=float(number), account=ANN.id, vm=name, vm_id=vm_id, kind="tag", door="ssh", detail={}
    )


def entry(number: int, **changes: object) -> Entry:
    """Something that ann did."""
    values: dict[str, object] = {
        "at_us": 1_800_000_000_000_000 + number,
        "account": ANN.id,
        "who": ANN.email,
        "credential": "SHA256:x",
        "door": "ssh",
        "source": "192.0.2.1",
        "act": Act.COMMAND.value,
        "what": f"ls {number}",
    }
    return Entry(**(values | changes))  # type: ignore[arg-type]


def on_web(number: int, **changes: object) -> Entry:
    """Something that was done with ann's VM 1."""
    about: dict[str, object] = {"vm": "web1x", "vm_id": vm(1).id, "owner": ANN.id}
    return entry(number, **(about | changes))


async def chained(tx: Tx, *entries: Entry) -> list[Record]:
    """Append them."""
    head, records = await audit.head(tx), []
    for each in entries:
        records.append(linked(each, head))
        head = records[-1].head
    await audit.add(tx, records)
    return records


def use(number: int) -> Use:
    """What a VM may have used, more than 32 bits of it."""
    many = (1 << 40) + number
    return Use(
        Growth(seconds=60.5, cpu_seconds=0.125, network_rx_bytes=many, network_tx_bytes=2,
               io_read_bytes=3, io_write_bytes=many),
        Sizes(memory_used_bytes=many, memory_total_bytes=many, disk_used_bytes=many,
              disk_size_bytes=many, cpus=2),
    )  # fmt: skip


def columns_of(connection: Connection, table: str) -> dict[str, bool]:
    """Names of a table's columns, and whether they may be NULL."""
    found = inspect(connection).get_columns(table)
    return {column["name"]: column["nullable"] for column in found}


@asynccontextmanager
async def filled(store: Store) -> AsyncIterator[Tx]:
    """A write transaction on a store with two accounts; committed at the end."""
    async with store.begin() as tx:
        await accounts.add(tx, ANN, now=1.0)
        await accounts.add(tx, BOB, now=2.0)
    async with store.begin() as tx:
        yield tx


class StoreContract:
    """Subclass it with a `store` fixture: migrated and empty."""

    async def test_migrating_again_changes_nothing(self, store: Store) -> None:
        async with filled(store):
            pass
        await store.migrate()
        async with store.read() as tx:
            assert await accounts.by_email(tx, ANN.email) == ANN

    async def test_migrated_tables_are_those_of_the_schema(self, store: Store) -> None:
        async with store.read() as tx:
            names = await tx.run_sync(lambda c: set(inspect(c).get_table_names()))
            for table in schema.metadata.sorted_tables:
                columns = await tx.run_sync(columns_of, table.name)
                assert columns == {column.name: column.nullable for column in table.c}
        assert names == set(schema.metadata.tables) | {"alembic_version"}

    async def test_an_error_rolls_everything_back(self, store: Store) -> None:
        async def fail() -> None:
            async with store.begin() as tx:
                await accounts.add(tx, ANN, now=1.0)
                raise RuntimeError("stop")

        with pytest.raises(RuntimeError, match="stop"):
            await fail()
        async with store.read() as tx:
            assert await accounts.by_email(tx, ANN.email) is None

    async def test_a_cancelled_writer_rolls_back_and_lets_go(self, store: Store) -> None:
        inside = asyncio.Event()

        async def write() -> None:
            async with store.begin() as tx:
                await accounts.add(tx, ANN, now=1.0)
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(write())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with filled(store) as tx:
            assert await accounts.by_email(tx, ANN.email) == ANN

    async def test_a_reader_sees_one_picture(self, store: Store) -> None:
        async with filled(store) as tx:
            await vms.add(tx, vm(1))
        async with store.read() as tx:
            assert len(await vms.owned(tx, ANN.id)) == 1
            async with store.begin() as writer:
                await vms.add(writer, vm(2))
            assert len(await vms.owned(tx, ANN.id)) == 1
        async with store.read() as tx:
            assert len(await vms.owned(tx, ANN.id)) == 2

    async def test_concurrent_check_then_insert_is_safe(self, store: Store) -> None:
        async with filled(store):
            pass

        async def take(number: int) -> bool:
            async with store.begin() as tx:
                if not await vms.is_free(tx, "web"):
                    return False
                await vms.add(tx, vm(number, name="web"))
                return True

        assert sum(await together(*(take(number) for number in range(20)))) == 1

    async def test_vm_round_trip(self, store: Store) -> None:
        made = vm(1, comment="ünïcode 🐢", tags=("a", "b"), wanted=Wanted.PAUSED)
        async with filled(store) as tx:
            await vms.add(tx, made)
        async with store.read() as tx:
            assert await vms.get(tx, made.id) == made
            assert await vms.named(tx, "web1x") == made
            assert await vms.named(tx, "web") is None
            assert await vms.owned(tx, BOB.id) == ()
            assert await vms.count(tx, ANN.id) == 1

    async def test_a_change_counts_the_generation_and_a_stale_one_is_refused(
        self, store: Store
    ) -> None:
        async with filled(store) as tx:
            await vms.add(tx, vm(1))
        async with store.begin() as tx:
            await vms.change(tx, vm(1), comment="new")
        async with store.read() as tx:
            now = await vms.get(tx, vm(1).id)
        assert now is not None
        assert (now.comment, now.generation) == ("new", 1)
        with pytest.raises(Conflict, match="changed meanwhile"):
            async with store.begin() as tx:
                await vms.change(tx, vm(1), comment="stale")

    async def test_names_are_unique_but_the_trash_has_none(self, store: Store) -> None:
        async with filled(store) as tx:
            for number in (1, 2):
                await vms.add(
                    tx,
                    vm(
                        number,
                        name=None,
                        former_name="web",
                        phase=Phase.TRASHED,
                        trashed_at=float(number),
                        trash_until=10.0 * number,
                    ),
                )
            await vms.add(tx, vm(3, name="web"))
        async with store.read() as tx:
            assert [found.id for found in await vms.trashed(tx, ANN.id)] == [vm(2).id, vm(1).id]
            assert [found.id for found in await vms.trash_over(tx, now=10.0)] == [vm(1).id]
            assert [found.id for found in await vms.owned(tx, ANN.id)] == [vm(3).id]
            assert await vms.owned_by(tx, {ANN.id, BOB.id}) == await vms.owned(tx, ANN.id)
            assert await vms.owned_by(tx, ()) == ()
            assert len(await vms.everywhere(tx)) == 3

    @pytest.mark.parametrize(
        "wrong",
        [
            vm(2, name="web1x"),  # taken
            vm(2, owner="acct-nobody"),
            vm(2, name=None),  # only the trash is nameless
            vm(2, phase=Phase.TRASHED),  # and the trash is
        ],
    )
    async def test_the_tables_refuse_what_must_not_be(self, store: Store, wrong: VmRecord) -> None:
        async with filled(store) as tx:
            await vms.add(tx, vm(1))
        with pytest.raises(Unavailable) as caught:
            async with store.begin() as tx:
                await vms.add(tx, wrong)
        assert isinstance(caught.value.__cause__, IntegrityError)

    async def test_removing_a_vm_takes_its_tags_and_keys_along(self, store: Store) -> None:
        key = SshKey(
            fingerprint="SHA256:x",
            account=ANN.id,
            name="ci",
            public_key="k",
            vm=vm(1).id,
            created_at=1.0,
        )
        async with filled(store) as tx:
            await vms.add(tx, vm(1, tags=("a",)))
            await accounts.add_key(tx, key)
        async with store.begin() as tx:
            assert await accounts.by_key(tx, "SHA256:x") == (ANN, key)
            await vms.remove(tx, vm(1).id)
        async with store.read() as tx:
            assert await accounts.keys_of(tx, ANN.id) == ()
            assert (await tx.execute(text("SELECT count(*) FROM tags"))).scalar_one() == 0

    async def test_tags_are_replaced(self, store: Store) -> None:
        async with filled(store) as tx:
            await vms.add(tx, vm(1, tags=("a", "b")))
            await vms.set_tags(tx, vm(1).id, ["c", "b"])
        async with store.read() as tx:
            found = await vms.get(tx, vm(1).id)
        assert found is not None
        assert found.tags == ("b", "c")

    async def test_journal_round_trip(self, store: Store) -> None:
        async with filled(store) as tx:
            await operations.add(tx, op(2, "vm-b"))
            await operations.add(tx, op(1, "vm-a"))
        async with store.read() as tx:
            assert await operations.unfinished(tx) == (op(1, "vm-a"), op(2, "vm-b"))
            assert await operations.unfinished(tx, vm="vm-b") == (op(2, "vm-b"),)
            assert await operations.knows(tx, "vm-a")
            assert not await operations.knows(tx, "vm-c")
        async with store.begin() as tx:
            assert (await operations.tried(tx, op(1, "vm-a"))).attempts == 1
            await operations.turn_back(tx, op(1, "vm-a"), error={"code": "exhausted"})
        async with store.begin() as tx:
            undoing = (await operations.unfinished(tx, vm="vm-a"))[0]
            assert undoing.state is OpState.UNDOING
            assert undoing.result == {"error": {"code": "exhausted"}}
            for state, done in ((OpState.FAILED, undoing), (OpState.DONE, op(2, "vm-b"))):
                await operations.finish(tx, done, state, result={}, now=5.0)
        async with store.read() as tx:
            assert await operations.unfinished(tx) == ()
            assert await operations.knows(tx, "vm-a")

    async def test_the_journal_forgets_old_operations_of_gone_vms_only(self, store: Store) -> None:
        async with filled(store) as tx:
            await vms.add(tx, vm(1))
            for number, target, at in ((1, vm(1).id, 1.0), (2, "vm-b", 1.0), (3, "vm-c", 9.0)):
                await operations.add(tx, op(number, target))
                await operations.finish(tx, op(number, target), OpState.DONE, result={}, now=at)
            await operations.add(tx, op(4, "vm-d"))
            await operations.forget(tx, before=5.0)
            known = [await operations.knows(tx, f) for f in (vm(1).id, "vm-b", "vm-c", "vm-d")]
        assert known == [True, False, True, True]

    async def test_accounts_and_keys(self, store: Store) -> None:
        keys = [
            SshKey(fingerprint=f"SHA256:{n}", account=ANN.id, name=n, public_key=n, created_at=at)
            for n, at in (("b", 1.0), ("a", 2.0))
        ]
        async with filled(store) as tx:
            for key in keys:
                await accounts.add_key(tx, key)
        async with store.begin() as tx:
            assert await accounts.first_admin(tx) == ANN
            assert await accounts.keys_of(tx, ANN.id) == tuple(keys)
            bobs = SshKey(
                fingerprint="SHA256:0", account=BOB.id, name="b", public_key="0", created_at=0.0
            )
            await accounts.add_key(tx, bobs)
            assert await accounts.keys_of(tx, ANN.id) == tuple(keys)
            assert await accounts.keys_of_all(tx, {BOB.id, ANN.id}) == (*keys, bobs)
            assert await accounts.keys_of_all(tx, ()) == ()
            assert await accounts.by_key(tx, "SHA256:c") is None
            await accounts.remove_key(tx, "SHA256:b")
            assert await accounts.keys_of(tx, ANN.id) == (keys[1],)
            await accounts.rename_key(tx, "SHA256:a", "z")
            (renamed,) = await accounts.keys_of(tx, ANN.id)
            assert (renamed.name, renamed.scope) == ("z", Scope())

    async def test_limits_of_keys_and_tokens_round_trip(self, store: Store) -> None:
        keys = [
            SshKey(fingerprint="SHA256:t", account=ANN.id, name="t", public_key="t", tag="ci",
                   created_at=1.0),
            SshKey(fingerprint="SHA256:v", account=ANN.id, name="v", public_key="v", vm=vm(1).id,
                   user="deploy", created_at=2.0),
        ]  # fmt: skip
        tokens = [
            TokenRow(hash="a", account=ANN.id, label="a", cmds=("ls",), vm=None, tag="ci",
                     key="SHA256:t", created_at=1.0, expires_at=9.0),
            TokenRow(hash="b", account=ANN.id, label="b", cmds=None, vm=vm(1).id, created_at=2.0,
                     expires_at=None),
        ]  # fmt: skip
        async with filled(store) as tx:
            await vms.add(tx, vm(1))
            for key in keys:
                await accounts.add_key(tx, key)
            for token in tokens:
                await sessions.add_token(tx, token)
        async with store.begin() as tx:
            assert await accounts.keys_of(tx, ANN.id) == tuple(keys)
            assert await sessions.tokens_of(tx, ANN.id) == tuple(tokens)
            assert await sessions.token(tx, "a") == (ANN, tokens[0])
            assert tokens[0].scope == Scope(cmds=frozenset({"ls"}), tag="ci")
            await sessions.rename_token(tx, "b", "c")
            assert [t.label for t in await sessions.tokens_of(tx, ANN.id)] == ["a", "c"]

    async def test_a_token_goes_with_the_key_it_stands_for(self, store: Store) -> None:
        key = SshKey(fingerprint="SHA256:k", account=ANN.id, name="k", public_key="k", created_at=1)
        token = TokenRow(hash="a", account=ANN.id, label="a", cmds=(), vm=None, key="SHA256:k",
                         created_at=1.0, expires_at=None)  # fmt: skip
        async with filled(store) as tx:
            await accounts.add_key(tx, key)
            await sessions.add_token(tx, token)
        async with store.begin() as tx:
            await accounts.remove_key(tx, "SHA256:k")
            assert await sessions.tokens_of(tx, ANN.id) == ()

    async def test_answers(self, store: Store) -> None:
        first = AnswerRow(id="a", account=ANN.id, line="l", run="run-1", created_at=1.0,
                          expires_at=9.0)  # fmt: skip
        second = replace(first, id="b", expires_at=5.0)
        async with filled(store) as tx:
            for row in (first, second):
                await answers.add(tx, row)
        async with store.begin() as tx:
            assert await answers.get(tx, "a") == first
            assert await answers.get(tx, "c") is None
            assert [await answers.count(tx, who.id) for who in (ANN, BOB)] == [2, 0]
            await answers.finish(tx, "a", status=200, body=b"\0\xff")
        async with store.begin() as tx:
            assert await answers.get(tx, "a") == replace(first, status=200, body=b"\0\xff")
            assert await answers.get(tx, "b") == second
            await answers.forget_old(tx, now=5.0)
            assert await answers.get(tx, "b") is None
            await answers.remove(tx, "a")
            assert await answers.count(tx, ANN.id) == 0

    async def test_events_newest_first(self, store: Store) -> None:
        happened = [
            Happened(at=float(n), account=ANN.id, vm=None, kind="new", door="ssh", detail={"n": n})
            for n in range(3)
        ]
        async with filled(store) as tx:
            for event in happened:
                await events.add(tx, event)
        async with store.read() as tx:
            assert await events.latest(tx, ANN.id, limit=2) == (happened[2], happened[1])
            assert await events.latest(tx, BOB.id, limit=2) == ()
            newest = await events.newest_id(tx, ANN.id)
            assert (await events.latest(tx, ANN.id, limit=1))[0].id == newest
            assert await events.newest_id(tx, BOB.id) == 0

    async def test_events_of_some_vms(self, store: Store) -> None:
        first, other = vm_event(1, "web", "vm-1"), vm_event(2, "web", "vm-2")
        renamed, old = vm_event(3, "www", "vm-1"), vm_event(4, "web", None)
        hers = replace(vm_event(5, "web", "vm-1"), account=BOB.id)
        whole = replace(vm_event(6, "", None), vm=None)
        async with filled(store) as tx:
            for event in (first, other, renamed, old, hers, whole):
                await events.add(tx, event)
        async with store.read() as tx:

            async def found(
                vms: Collection[str], names: Collection[str], limit: int = 9
            ) -> tuple[Happened, ...]:
                return await events.latest_of(tx, ANN.id, vms=vms, names=names, limit=limit)

            assert await found({"vm-1"}, ()) == (renamed, first)
            assert await found((), {"web"}) == (old, other, first)
            assert await found({"vm-1"}, {"web"}) == (old, renamed, other, first)
            assert await found({"vm-1"}, {"web"}, 2) == (old, renamed)
            assert await found((), ()) == ()
            assert await found({"vm-1"}, {"web"}, 0) == ()
            many = [f"vm-{n}" for n in range(1, 1200)]
            assert await found(many, ["www"], 3) == (renamed, other, first)

    async def test_events_after_one(self, store: Store) -> None:
        happened = [vm_event(n, "web", "vm-1") for n in range(5)]
        async with filled(store) as tx:
            for event in happened:
                await events.add(tx, event)
                await events.add(tx, replace(event, account=BOB.id))
        async with store.read() as tx:
            rows = await events.after(tx, ANN.id, 0, limit=2)
            assert rows == tuple(happened[:2])
            assert await events.after(tx, ANN.id, rows[-1].id, limit=9) == tuple(happened[2:])
            newest = await events.newest_id(tx, ANN.id)
            assert await events.after(tx, ANN.id, newest, limit=9) == ()

    async def test_history_is_the_newest_lines_of_an_account(self, store: Store) -> None:
        async with filled(store) as tx:
            for number, line in enumerate(["ls", "ls", "new", "ls", "stat web 日本"]):
                await history.add(tx, ANN.id, line, now=float(number), keep=3)
            await history.add(tx, BOB.id, "whoami", now=1.0, keep=3)
        async with store.read() as tx:
            assert await history.latest(tx, ANN.id, limit=9) == ("new", "ls", "stat web 日本")
            assert await history.latest(tx, ANN.id, limit=1) == ("stat web 日本",)
            assert await history.latest(tx, BOB.id, limit=9) == ("whoami",)
        async with store.begin() as tx:
            await tx.execute(delete(schema.accounts).where(schema.accounts.c.id == ANN.id))
        async with store.read() as tx:
            assert await history.latest(tx, ANN.id, limit=9) == ()

    async def test_defaults_are_an_accounts_own(self, store: Store) -> None:
        async with filled(store) as tx:
            await defaults.put(tx, ANN.id, "b", "1")
            await defaults.put(tx, ANN.id, "a", "two\nlines ü")
            await defaults.put(tx, ANN.id, "b", "2")
            assert await defaults.of(tx, ANN.id) == {"a": "two\nlines ü", "b": "2"}
            assert await defaults.of(tx, BOB.id) == {}
            assert [await defaults.drop(tx, who, "b") for who in (BOB.id, ANN.id, ANN.id)] == [
                False, True, False,
            ]  # fmt: skip
            assert await defaults.of(tx, ANN.id) == {"a": "two\nlines ü"}
            await defaults.put(tx, BOB.id, "a", "1")
            await tx.execute(delete(schema.accounts).where(schema.accounts.c.id == BOB.id))
            assert await defaults.of(tx, BOB.id) == {}

    async def test_what_vms_used_by_span(self, store: Store) -> None:
        day, week = Range.DAY, Range.WEEK
        start = day.start(1_800_000_000.0)
        one, two = vm(1).id, vm(2).id
        async with filled(store) as tx:
            for number in (1, 2):
                await vms.add(tx, vm(number))
            assert await vms.ids(tx) == {one, two}
            await samples.put(tx, day, start, {})
            await samples.put(tx, day, start, {one: use(1), two: use(2)})
            await samples.put(tx, day, start + day.span_s, {one: use(3)})
            await samples.put(tx, week, start, {one: use(4)})
        async with store.begin() as tx:
            assert await samples.at(tx, day, start, []) == {}
            assert await samples.at(tx, day, start, [one, two, "vm-x"]) == {
                one: use(1),
                two: use(2),
            }
            await samples.put(tx, day, start, {one: use(5)})
        async with store.read() as tx:
            later = start + day.span_s
            assert await samples.of(tx, one, day, since=start, until=later) == {
                start: use(5), later: use(3),
            }  # fmt: skip
            assert await samples.of(tx, one, day, since=start + 1, until=later) == {later: use(3)}
            assert await samples.of(tx, one, week, since=start, until=start) == {start: use(4)}
            assert await samples.of(tx, two, week, since=start, until=start) == {}

    async def test_what_vms_used_is_overwritten_a_range_later(self, store: Store) -> None:
        day = Range.DAY
        starts = day.starts(1_800_000_000.0)
        one, again = vm(1).id, starts[0] + 86_400
        async with filled(store) as tx:
            await vms.add(tx, vm(1))
            for start in starts:
                await samples.put(tx, day, start, {one: use(1)})
            await samples.put(tx, day, again, {one: use(2)})
            assert await samples.at(tx, day, starts[0], [one]) == {}
            assert await samples.at(tx, day, again, [one]) == {one: use(2)}
            kept = await samples.of(tx, one, day, since=0.0, until=9e9)
        assert sorted(kept) == [*starts[1:], again]

    async def test_what_a_vm_used_goes_with_it(self, store: Store) -> None:
        async with filled(store) as tx:
            await vms.add(tx, vm(1))
            await samples.put(tx, Range.DAY, 0.0, {vm(1).id: use(1)})
            trashed = {"phase": Phase.TRASHED, "name": None, "trash_until": 1.0}
            await vms.change(tx, vm(1), **trashed)
        async with store.begin() as tx:
            kept = await samples.at(tx, Range.DAY, 0.0, [vm(1).id])
            await vms.remove(tx, vm(1).id)
            assert kept == {vm(1).id: use(1)}
            assert await samples.at(tx, Range.DAY, 0.0, [vm(1).id]) == {}

    async def test_sign_in_rows_go_with_their_account(self, store: Store) -> None:
        async with filled(store) as tx:
            await tx.execute(
                schema.login_codes.insert().values(hash="h", account=BOB.id, expires_at=1.0)
            )
            await tx.execute(
                schema.api_tokens.insert().values(
                    hash="h", account=BOB.id, label="ci", cmds=None, created_at=1.0
                )
            )
            await tx.execute(delete(schema.accounts).where(schema.accounts.c.id == BOB.id))
            for table in ("login_codes", "api_tokens"):
                query = text(f"SELECT count(*) FROM {table}")
                assert (await tx.execute(query)).scalar_one() == 0

    async def test_an_invitation_is_one_per_address_and_has_its_time(self, store: Store) -> None:
        first = Invitation(
            email="eve@example.com", invited_by=ANN.id, message="", created_at=1.0, expires_at=10.0
        )
        again = replace(first, message="come", expires_at=20.0)
        async with filled(store) as tx:
            await people.put_invitation(tx, first)
            await people.put_invitation(tx, again)
        async with store.begin() as tx:
            assert await people.invited(tx) == (again,)
            assert await people.invitation(tx, first.email, now=19.0) == again
            assert await people.invitation(tx, first.email, now=20.0) is None
            assert await people.drop_invitation(tx, first.email)
            assert not await people.drop_invitation(tx, first.email)

    async def test_a_mailed_link_is_one_per_browser_and_used_once(self, store: Store) -> None:
        first = Mailed(
            hash="h1", short_hash="s", browser="b1", email="eve@example.com", expires_at=10.0
        )
        second, other = replace(first, hash="h2"), replace(first, hash="h3", browser="b2")
        async with filled(store) as tx:
            for mailed in (first, second, other):
                await people.put_mailed(tx, mailed, now=1.0)
        async with store.begin() as tx:
            assert await people.mailed(tx, hash_="h1", now=1.0) is None
            assert await people.mailed(tx, hash_="h2", now=1.0) == second
            assert await people.mailed(tx, browser="b2", now=1.0) == other
            assert await people.mailed(tx, browser="b2", now=10.0) is None

        async def use() -> bool:
            async with store.begin() as tx:
                return await people.use_mailed(tx, "h2")

        assert sorted(await together(*(use() for _ in range(4)))) == [False, False, False, True]
        async with store.begin() as tx:
            await people.put_mailed(tx, replace(first, expires_at=30.0), now=10.0)
            rows = (await tx.execute(text("SELECT hash FROM mailed_codes"))).scalars().all()
            assert rows == ["h1"], "what is over goes"

    async def test_a_passkey_counts_up_and_goes_with_its_account(self, store: Store) -> None:
        key = Passkey(
            id="x", account=BOB.id, name="phone", public_key=bytes(range(256)),
            sign_count=2**32 - 2, created_at=1.0,
        )  # fmt: skip
        async with filled(store) as tx:
            await passkeys.add(tx, key)
        async with store.begin() as tx:
            assert await passkeys.find(tx, "x") == (BOB, key)
            assert await passkeys.of(tx, BOB.id) == (key,)
            assert await passkeys.find(tx, "y") is None
            assert await passkeys.used(tx, key, sign_count=2**32 - 1, now=5.0)
            assert not await passkeys.used(tx, key, sign_count=2**32 - 1, now=6.0)
            used = replace(key, sign_count=2**32 - 1, last_used_at=5.0)
            assert await passkeys.of(tx, BOB.id) == (used,)
        async with store.begin() as tx:
            await tx.execute(delete(schema.accounts).where(schema.accounts.c.id == BOB.id))
            assert await passkeys.find(tx, "x") is None

    async def test_sessions_are_listed_while_they_live_and_end_by_name(self, store: Store) -> None:
        async with filled(store) as tx:
            for hash_, now, end in (("a", 1.0, 9.0), ("b", 2.0, 90.0), ("c", 3.0, 90.0)):
                await sessions.add_session(
                    tx, hash_=hash_, account=ANN.id, now=now, expires_at=end, user_agent="x",
                    source="192.0.2.1", how="mail",
                )  # fmt: skip
        async with store.begin() as tx:
            await sessions.session_seen(tx, "b", now=5.0, source="192.0.2.2")
            live = await sessions.sessions_of(tx, ANN.id, now=10.0)
            assert [(row.hash, row.last_seen_at, row.source) for row in live] == [
                ("b", 5.0, "192.0.2.2"),
                ("c", 3.0, "192.0.2.1"),
            ]
            assert await sessions.sessions_of(tx, BOB.id, now=10.0) == ()
            await sessions.revoke_some(tx, ["b"], now=10.0)
            assert await sessions.revoked_of(tx, ANN.id) == {"b"}
            assert [row.hash for row in await sessions.sessions_of(tx, ANN.id, now=10.0)] == ["c"]
            seen = {each.email: each.last_seen_at for each in await people.everybody(tx)}
            assert seen == {ANN.email: 5.0, BOB.email: None}
            (own,) = await people.everybody(tx, account=BOB.id)
            assert own.email == BOB.email

    async def test_a_writer_and_what_it_has_not_committed_are_told_apart(
        self, store: Store
    ) -> None:
        """What dry runs stand on: rows by their marks, and the old picture beside the new one."""
        async with filled(store) as tx:
            for number in (1, 2, 3):
                await vms.add(tx, vm(number))
            await vms.add(tx, vm(4, owner=BOB.id))
            gone = vm(5, name=None, former_name="old", phase=Phase.TRASHED, tags=("a",))
            await vms.add(tx, gone)
        async with store.begin() as tx:
            written = tables_written(tx)
            await vms.change(tx, vm(1), name="other")
            await vms.set_tags(tx, vm(2).id, ["b"])
            await operations.unfinished(tx)
            assert written == {"vms", "tags"}
            async with store.read() as kept:
                before, after = await vms.marks(kept, ANN.id), await vms.marks(tx, ANN.id)
        assert before == {
            vm(1).id: ("web1x", 0),
            vm(2).id: ("web2x", 0),
            vm(3).id: ("web3x", 0),
            gone.id: ("old", 0),
        }
        assert after == before | {vm(1).id: ("other", 1)}
        async with store.read() as tx:
            assert await vms.some(tx, [gone.id, "vm-none"]) == (gone,)
            assert await vms.some(tx, []) == ()
            assert await sessions.codes_of(tx, ANN.id) == frozenset()
        async with store.begin() as tx:
            await sessions.add_code(tx, hash_="h", account=ANN.id, expires_at=1.0)
            assert await sessions.codes_of(tx, ANN.id) == {"h"}
            assert await sessions.codes_of(tx, BOB.id) == frozenset()

    async def test_grants_round_trip_and_replace_their_like(self, store: Store) -> None:
        own, there = vm(1), vm(2)
        person = grant("g1", own, Who.PERSON, "bob@example.com", expires_at=9.5, link="link-1")
        root = grant("g2", own, Who.PERSON, "bob@example.com", level=Level.ROOT)
        path = grant("g3", own, Who.PERSON, "bob@example.com", port=3000, path="/a")
        team = grant("g4", there, Who.TEAM, "team-1", created_at=3.0)
        async with filled(store) as tx:
            await vms.add(tx, own)
            await vms.add(tx, there)
            for one in (person, path, team):
                await grants.put(tx, one)
        async with store.begin() as tx:
            assert await grants.of_vm(tx, own.id) == (person, path)
            await grants.put(tx, root)
        async with store.read() as tx:
            assert await grants.of_vm(tx, own.id) == (root, path)
            assert await grants.everywhere(tx) == {own.id: (root, path), there.id: (team,)}
            assert await grants.of_vms(tx, [there.id]) == {there.id: (team,)}
            assert await grants.to(tx, "bob@example.com") == (root, path)
            assert await grants.to_team(tx, "team-1") == (team,)

    async def test_an_account_is_given_what_its_address_and_its_teams_are(
        self, store: Store
    ) -> None:
        own, there = vm(1), vm(2)
        person = grant("g1", own, Who.PERSON, BOB.email)
        team = grant("g2", there, Who.TEAM, DESIGN.id, created_at=3.0)
        async with filled(store) as tx:
            await vms.add(tx, own)
            await vms.add(tx, there)
            await teams.add(tx, DESIGN)
            for one in (
                person,
                team,
                grant("g3", own, Who.PERSON, ANN.email),
                grant("g4", own, Who.TEAM, OPS.id),
                grant("g5", own, Who.PUBLIC),
            ):
                await grants.put(tx, one)
            assert await grants.received(tx, BOB) == (person,)
            await teams.put(tx, DESIGN.id, BOB.id, Role.MEMBER, now=1.0)
            assert await grants.received(tx, BOB) == (person, team)

    async def test_a_grant_to_everybody_makes_a_vm_public(self, store: Store) -> None:
        async with filled(store) as tx:
            await vms.add(tx, vm(1))
            await grants.put(tx, grant("g1", vm(1), Who.PUBLIC, path="/hooks"))
            found = await vms.get(tx, vm(1).id)
            assert found is not None
            assert not found.is_public
            await grants.put(tx, grant("g2", vm(1), Who.PUBLIC))
            found = await vms.get(tx, vm(1).id)
            assert found is not None
            assert found.is_public
            assert await vms.owned(tx, ANN.id) == (found,)

    async def test_grants_and_links_end(self, store: Store) -> None:
        short = grant("g1", vm(1), Who.PUBLIC, expires_at=10.0)
        long = grant("g2", vm(1), Who.PERSON, "bob@example.com", expires_at=20.0)
        ever = grant("g3", vm(1), Who.PERSON, "eve@example.com")
        link = Link(id="link-1", vm=vm(1).id, created_at=1, created_by=ANN.id, expires_at=15.0)
        async with filled(store) as tx:
            await vms.add(tx, vm(1))
            assert await grants.next_end(tx) is None
            for one in (short, long, ever):
                await grants.put(tx, one)
            await grants.add_link(tx, link)
            assert await grants.next_end(tx) == 10.0
            assert await grants.over(tx, now=10.0) == (short,)
            await grants.remove(tx, ["g1"])
            assert await grants.next_end(tx) == 15.0
            await grants.end_links(tx, now=15.0)
            assert await grants.next_end(tx) == 20.0
            assert await grants.is_awaited(tx, "bob@example.com", now=19.9)
            assert not await grants.is_awaited(tx, "bob@example.com", now=20.0)

    async def test_links(self, store: Store) -> None:
        link = Link(id="link-1", vm=vm(1).id, port=3000, created_at=1, created_by=ANN.id)
        async with filled(store) as tx:
            await vms.add(tx, vm(1))
            await grants.add_link(tx, link)
            await grants.link_used(tx, link.id, now=5.0)
            used = replace(link, use_count=1, last_used_at=5.0)
            assert await grants.link(tx, link.id) == used
            assert await grants.links_of(tx, vm(1).id) == (used,)
            assert await grants.links_of_vms(tx, [vm(1).id]) == (used,)
            await grants.remove_link(tx, link.id)
            assert await grants.link(tx, link.id) is None

    async def test_they_go_with_the_vm(self, store: Store) -> None:
        async with filled(store) as tx:
            await vms.add(tx, vm(1))
            await grants.put(tx, grant("g1", vm(1), Who.PUBLIC))
            await grants.add_link(
                tx, Link(id="link-1", vm=vm(1).id, created_at=1, created_by=ANN.id)
            )
            await vms.remove(tx, vm(1).id)
            assert await grants.everywhere(tx) == {}
            assert await grants.link(tx, "link-1") is None

    async def test_requests(self, store: Store) -> None:
        first = Request(vm_name="web1x", account=BOB.id, created_at=1.0, message="please")
        again = replace(first, created_at=2.0, message="")
        async with filled(store) as tx:
            await grants.ask(tx, first)
            await grants.ask(tx, again)
            assert await grants.asked_by(tx, BOB.id) == (again,)
            assert await grants.asking(tx, "web1x") == (
                Asking(email=BOB.email, created_at=2.0, message=""),
            )
            await grants.forget_asked(tx, before=2.0)
            assert await grants.asked_by(tx, BOB.id) == (again,)
            await grants.withdraw(tx, vm_name="web1x", account=BOB.id)
            assert await grants.asking(tx, "web1x") == ()

    async def test_people(self, store: Store) -> None:
        async with filled(store) as tx:
            assert await grants.receivers(tx) == {ANN.email: ANN.id, BOB.email: BOB.id}
            assert await grants.receivers(tx, {BOB.email, "x@y.z"}) == {BOB.email: BOB.id}
            assert await grants.receivers(tx, ()) == {}
            assert await accounts.some(tx, {BOB.id}) == {BOB.id: BOB}

    async def test_the_history_of_vms(self, store: Store) -> None:
        trashed = vm(3, name=None, phase=Phase.TRASHED)
        made = [
            Snapshot(
                id=f"snap-{number}", vm=of.id, name=f"{number}", reason=reason, is_clean=True,
                has_memory=False, created_at=float(at),
            )
            for number, (of, reason, at) in enumerate((
                (vm(1), Reason.HISTORY, 5), (vm(1), Reason.HISTORY, 7), (vm(1), Reason.HISTORY, 99),
                (vm(2), Reason.HISTORY, 4), (vm(2), Reason.TAKEN, 3), (trashed, Reason.HISTORY, 1),
            ))
        ]  # fmt: skip
        async with filled(store) as tx:
            for one in (vm(1, history="off"), vm(2), trashed):
                await vms.add(tx, one)
            for snapshot in made:
                await snapshots.add(tx, snapshot)
        async with store.read() as tx:
            found = await vms.some(tx, [vm(1).id, vm(2).id])
            assert [one.history for one in found] == ["off", None]
            newest = await snapshots.newest(tx, Reason.HISTORY, until=7)
            assert newest == {vm(1).id: 7.0, vm(2).id: 4.0, trashed.id: 1.0}
            assert await snapshots.oldest(tx, Reason.HISTORY, but_of=()) == made[3]
            assert await snapshots.oldest(tx, Reason.HISTORY, but_of={vm(2).id}) == made[0]
            but_of = {vm(1).id, vm(2).id}
            assert await snapshots.oldest(tx, Reason.HISTORY, but_of=but_of) is None

    async def test_old_operations_of_a_kind_are_forgotten(self, store: Store) -> None:
        kinds = (OpKind.SNAPSHOT, OpKind.SNAPSHOT, OpKind.SNAPSHOT, OpKind.PAUSE)
        ops = [
            Operation(
                id=f"op-{number}", act="act", kind=kind, vm=vm(1).id, account=ANN.id, created_at=1.0
            )
            for number, kind in enumerate(kinds)
        ]
        async with filled(store) as tx:
            await vms.add(tx, vm(1))
            for op in ops:
                await operations.add(tx, op)
            for op, at in ((ops[0], 2.0), (ops[1], 9.0), (ops[3], 2.0)):
                await operations.finish(tx, op, OpState.DONE, result={}, now=at)
            await operations.forget_kinds(tx, (OpKind.SNAPSHOT,), before=5.0)
        async with store.read() as tx:
            rows = (await tx.execute(select(schema.operations.c.id))).scalars()
            assert set(rows) == {"op-1", "op-2", "op-3"}

    async def test_the_audit_is_a_chain(self, store: Store) -> None:
        async with store.begin() as tx:
            assert await audit.head(tx) == Head()
            one = await chained(tx, entry(1, what="ünïcode 🐢", account=None))
        async with store.begin() as tx:
            two = await chained(tx, on_web(2, detail='{"a":1}'), on_web(3, result="not-found"))
            assert await audit.head(tx) == two[-1].head
        async with store.read() as tx:
            assert await audit.chain(tx, 0, limit=9) == (*one, *two)
            assert await audit.chain(tx, 1, limit=1) == (two[0],)

    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE audit SET who = 'x'",
            "UPDATE audit SET at_us = at_us WHERE seq = 1",
            "DELETE FROM audit WHERE seq = 2",
            "DELETE FROM audit",
        ],
    )
    async def test_the_audit_takes_no_change(self, store: Store, change: str) -> None:
        async with store.begin() as tx:
            records = await chained(tx, entry(1), entry(2))
        with pytest.raises(Unavailable, match="append-only"):
            async with store.begin() as tx:
                await tx.execute(text(change))
        async with store.read() as tx:
            assert await audit.chain(tx, 0, limit=9) == tuple(records)

    async def test_the_audit_takes_the_next_link_only(self, store: Store) -> None:
        async with store.begin() as tx:
            (first,) = await chained(tx, entry(1))
        forks = [
            linked(entry(2), Head()),
            linked(entry(2), Head(5, first.hash)),
            replace(linked(entry(2), first.head), prev="0" * 64),
            replace(first, who="x"),
        ]
        for fork in forks:
            with pytest.raises(Unavailable, match="follows the last"):
                async with store.begin() as tx:
                    await audit.add(tx, [fork])
        async with store.read() as tx:
            assert await audit.chain(tx, 0, limit=9) == (first,)

    async def test_writers_of_two_processes_do_not_fork_the_chain(self, store: Store) -> None:
        async def write(number: int) -> None:
            async with store.begin() as tx:
                await chained(tx, entry(number), entry(number))

        await together(*(write(number) for number in range(20)))
        async with store.read() as tx:
            found = await audit.chain(tx, 0, limit=99)
        assert [record.seq for record in found] == list(range(1, 41))
        assert [r.prev for r in found[1:]] == [r.hash for r in found[:-1]]

    async def test_whom_records_concern(self, store: Store) -> None:
        bobs = {"account": BOB.id, "who": BOB.email}
        async with store.begin() as tx:
            await chained(
                tx,
                entry(1),
                on_web(2, **bobs, act=Act.ROOT.value),
                entry(3, **bobs),
                on_web(4),
                entry(5, vm="web1x"),
                on_web(6, vm="web2x", act=Act.GRANT.value),
                entry(7, account=None, who="unknown", act=Act.SIGN_IN.value),
            )
        async with store.read() as tx:

            async def seqs(which: Which, limit: int = 9) -> list[int]:
                latest = await audit.latest(tx, which, limit=limit)
                if limit == 9:
                    assert latest[::-1] == await audit.after(tx, which, 0, limit=limit)
                return [record.seq for record in latest]

            ann, bob = Which(account=ANN.id), Which(account=BOB.id)
            assert await seqs(ann) == [6, 5, 4, 2, 1]
            assert await seqs(ann, limit=2) == [6, 5]
            assert await seqs(ann, limit=0) == []
            assert await seqs(bob) == [3, 2]
            assert await seqs(Which(account=None)) == [7, 6, 5, 4, 3, 2, 1]
            assert await seqs(replace(ann, act="root")) == [2]
            assert await seqs(replace(ann, who=BOB.email, with_own=False)) == [2]
            assert await seqs(replace(ann, who=ANN.email)) == [6, 5, 4, 1]
            web = replace(ann, vms=[vm(1).id], names=["web1x"])
            assert await seqs(web) == [6, 5, 4, 2]
            assert await seqs(replace(web, act="command")) == [5, 4]
            assert await seqs(replace(web, names=(), is_limited=True)) == [6, 4, 2]
            assert await seqs(replace(ann, vms=(), is_limited=True)) == []
            assert await seqs(replace(bob, vms=[vm(1).id], names=["web1x"])) == [2]
            assert await seqs(replace(ann, since_us=entry(4).at_us)) == [6, 5, 4]
            assert await seqs(replace(ann, since_us=entry(9).at_us)) == []
            assert await audit.after(tx, ann, 2, limit=1) == await audit.chain(tx, 3, limit=1)

    async def test_many_vms_of_the_audit_at_once(self, store: Store) -> None:
        ids = [vm(number).id for number in range(250)]
        async with store.begin() as tx:
            await chained(tx, *(on_web(n, vm_id=id_) for n, id_ in enumerate(ids)))
            which = Which(account=ANN.id, vms=ids, is_limited=True)
            latest = await audit.latest(tx, which, limit=3)
            oldest = await audit.after(tx, which, 0, limit=3)
        assert [record.seq for record in latest] == [250, 249, 248]
        assert [record.seq for record in oldest] == [1, 2, 3]

    async def test_which_vm_a_record_means(self, store: Store) -> None:
        async with filled(store) as tx:
            await vms.add(tx, vm(1, name="web"))
            gone = vm(2, name=None, former_name="web", phase=Phase.TRASHED, trash_act="act-1")
            await vms.add(tx, gone)
            new, removed = Meant(vm(1).id, ANN.id), Meant(gone.id, ANN.id)
            assert await audit.meant(tx, ["web", "none"], []) == {"web": new}
            assert await audit.meant(tx, ["web"], ["act-1"]) == {"web": removed}
            assert await audit.owners(tx, [gone.id, "vm-x"]) == {gone.id: ANN.id}

    async def test_teams_and_their_members(self, store: Store) -> None:
        async with filled(store) as tx:
            for team in (DESIGN, OPS):
                await teams.add(tx, team)
            await teams.put(tx, DESIGN.id, BOB.id, Role.OWNER, now=1.5)
            await teams.put(tx, DESIGN.id, ANN.id, Role.MEMBER, now=2.5)
            await teams.put(tx, OPS.id, ANN.id, Role.OWNER, now=3.5)
        async with store.begin() as tx:
            assert await teams.named(tx, "ops") == OPS
            assert await teams.named(tx, "nope") is None
            assert await teams.ids(tx) == {DESIGN.id, OPS.id}
            assert await teams.names(tx, {OPS.id, "team-x"}) == {OPS.id: "ops"}
            assert await teams.of(tx, ANN.id) == ((DESIGN, Role.MEMBER), (OPS, Role.OWNER))
            assert [member.email for member in await teams.members(tx, DESIGN.id)] == [
                BOB.email,
                ANN.email,
            ]
            everybody = {DESIGN.id: {ANN.id, BOB.id}, OPS.id: {ANN.id}}
            assert await teams.everybody(tx) == everybody
            assert await teams.everybody(tx, {OPS.id, "team-x"}) == {OPS.id: {ANN.id}}
            assert await teams.everybody(tx, ()) == {}
            await teams.put(tx, DESIGN.id, ANN.id, Role.ADMIN, now=9.0)  # since when stays
            assert (await teams.members(tx, DESIGN.id))[1] == Member(
                account=ANN.id, email=ANN.email, role=Role.ADMIN, since=2.5
            )
            await teams.rename(tx, OPS.id, "infra")
            await teams.drop(tx, DESIGN.id, ANN.id)
            assert await teams.of(tx, ANN.id) == ((replace(OPS, name="infra"), Role.OWNER),)
            await teams.remove(tx, DESIGN.id)
            assert await teams.everybody(tx) == {OPS.id: {ANN.id}}

    async def test_team_names_are_unique_and_roles_known(self, store: Store) -> None:
        async with filled(store) as tx:
            await teams.add(tx, DESIGN)
        for write in (
            schema.teams.insert().values(id="team-2", name="design", created_at=1.0),
            schema.team_members.insert().values(
                team=DESIGN.id, account=ANN.id, role="king", since=1.0
            ),
            schema.team_members.insert().values(
                team="team-none", account=ANN.id, role="owner", since=1.0
            ),
        ):
            with pytest.raises(Unavailable) as caught:
                async with store.begin() as tx:
                    await tx.execute(write)
            assert isinstance(caught.value.__cause__, IntegrityError)

    async def test_invitations_to_teams(self, store: Store) -> None:
        first = TeamInvitation(team=DESIGN.id, email="x@y", role=Role.MEMBER, invited_by=ANN.id,
                           created_at=1.0, expires_at=5.0)  # fmt: skip
        again = replace(first, role=Role.ADMIN, created_at=2.0, expires_at=6.0)
        other = replace(first, team=OPS.id, invited_by=BOB.id, created_at=3.0)
        async with filled(store) as tx:
            for team in (DESIGN, OPS):
                await teams.add(tx, team)
                await teams.put(tx, team.id, ANN.id, Role.OWNER, now=1.0)
            for invitation in (first, again, other):
                await teams.invite(tx, invitation)
        async with store.begin() as tx:
            assert await teams.invitations(tx, DESIGN.id) == (again,)
            assert await teams.invited(tx, "x@y") == ((again, DESIGN), (other, OPS))
            await teams.forget_expired(tx, OPS.id, now=4.0)
            assert len(await teams.invited(tx, "x@y")) == 2
            await teams.forget_expired(tx, OPS.id, now=5.0)
            assert await teams.invited(tx, "x@y") == ((again, DESIGN),)
            await teams.drop(tx, DESIGN.id, ANN.id)  # whoever leaves takes along what they invited
            assert await teams.invited(tx, "x@y") == ()
            await teams.invite(tx, other)
            assert await teams.uninvite(tx, OPS.id, "x@y")
            assert not await teams.uninvite(tx, OPS.id, "x@y")

    async def test_consents_are_for_a_vm_and_its_owner(self, store: Store) -> None:
        async with filled(store) as tx:
            await vms.add(tx, vm(1))
            asked = {"account": BOB.id, "vm": vm(1).id, "owner": ANN.id}
            for number, scope in enumerate(("openid", "email openid")):
                await consents.put(tx, **asked, scope=scope, now=float(number))
            assert await consents.scope_of(tx, **asked) == {"openid", "email"}
            assert await consents.scope_of(tx, **asked | {"owner": BOB.id}) == frozenset()
            await vms.remove(tx, vm(1).id)
            assert await consents.scope_of(tx, **asked) == frozenset()

    async def test_an_identity_is_one_account_and_an_account_one_of_each_issuer(
        self, store: Store
    ) -> None:
        async with filled(store) as tx:
            here = {"issuer": "https://id.example", "email": "x@example.com"}
            await identities.add(tx, **here, subject="1", account=ANN.id, now=1.0)
            found = await identities.account_of(tx, issuer=here["issuer"], subject="1")
            assert found == ANN
            assert await identities.account_of(tx, issuer=here["issuer"], subject="2") is None
            assert await identities.account_of(tx, issuer="https://x", subject="1") is None
            assert await identities.subject_of(tx, issuer=here["issuer"], account=ANN.id) == "1"
            assert await identities.subject_of(tx, issuer=here["issuer"], account=BOB.id) is None
        for subject, account in (("1", BOB.id), ("2", ANN.id)):
            with pytest.raises(Unavailable):
                async with store.begin() as tx:
                    await identities.add(tx, **here, subject=subject, account=account, now=1.0)


def grant(id_: str, of: VmRecord, kind: Who, who: str = "", **values: object) -> Grant:
    """One of ann's."""
    told: dict[str, object] = {"created_at": float(id_[1:]), "created_by": ANN.id} | values
    return Grant(id=id_, vm=of.id, kind=kind, who=who, **told)  # type: ignore[arg-type]
