"""What every store must do, whichever database is under it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from sqlalchemy import Connection, delete, inspect, text
from sqlalchemy.exc import IntegrityError

from atoll.base.aio import together
from atoll.base.errors import Conflict, Unavailable
from atoll.domain.account import Account, Scope
from atoll.domain.operation import Operation, OpKind, OpState
from atoll.domain.sharing import Grant, Level, Link, Who
from atoll.domain.usage import Growth, Range, Sizes, Use
from atoll.domain.vm import Phase, VmRecord, Wanted
from atoll.store import (
    accounts,
    answers,
    defaults,
    events,
    grants,
    history,
    operations,
    samples,
    schema,
    sessions,
    vms,
)
from atoll.store.accounts import SshKey
from atoll.store.answers import AnswerRow
from atoll.store.engine import Store, Tx
from atoll.store.events import Happened
from atoll.store.grants import Asking, Request
from atoll.store.sessions import TokenRow
from atoll.store.written import tables_written

ANN = Account(id="acct-ann", email="ann@example.com", is_admin=True)
BOB = Account(id="acct-bob", email="bob@example.com")


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
            assert await grants.to(tx, email="bob@example.com") == (root, path)
            assert await grants.to(tx, email="x@y.z", teams=["team-1"]) == (team,)

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
            assert await grants.people(tx, {BOB.id}) == {BOB.id: BOB}


def grant(id_: str, of: VmRecord, kind: Who, who: str = "", **values: object) -> Grant:
    """One of ann's."""
    told: dict[str, object] = {"created_at": float(id_[1:]), "created_by": ANN.id} | values
    return Grant(id=id_, vm=of.id, kind=kind, who=who, **told)  # type: ignore[arg-type]
