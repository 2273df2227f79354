"""Records of the audit: appended at the end of their chain, and read by whom they concern.

Invariant: a question is answered along an index in the order of the chain, however many records there
are; only those about everybody's read on until they have found enough.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Result, Select, insert, select, true, union_all

from atoll.domain.audit import Act, Head, Record
from atoll.store.engine import Tx
from atoll.store.schema import audit, vms

_AT_ONCE = 100  # parts of one query; SQLite takes at most 500
_COLUMNS = tuple(column.name for column in audit.c)


@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """Records of what an account did, and of what was done with its VMs; None: of all.

    With `vms` (ids) and `names` only those about these; with `is_limited` those about VMs of the account
    by id alone. `with_own` False leaves out what the account did with VMs that are not its own.
    """

    account: str | None
    vms: Collection[str] | None = None
    names: Collection[str] = ()
    is_limited: bool = False
    with_own: bool = True
    who: str | None = None
    act: str | None = None
    since_us: int | None = None


@dataclass(frozen=True, slots=True)
class Meant:
    """A VM that a record is about."""

    id: str
    owner: str


async def head(tx: Tx) -> Head:
    """Where the chain ends."""
    row = (
        await tx.execute(select(audit.c.seq, audit.c.hash).order_by(audit.c.seq.desc()).limit(1))
    ).one_or_none()
    return Head() if row is None else Head(row.seq, row.hash)


async def add(tx: Tx, records: Sequence[Record]) -> None:
    """Append; each must follow the one before it."""
    rows = [{name: getattr(record, name) for name in _COLUMNS} for record in records]
    await tx.execute(insert(audit), rows)


async def chain(tx: Tx, after: int, *, limit: int) -> tuple[Record, ...]:
    """Records of everybody after this one, in order."""
    query = select(audit).where(audit.c.seq > after).order_by(audit.c.seq).limit(limit)
    return _records(await tx.execute(query))


async def latest(tx: Tx, which: Which, *, limit: int) -> tuple[Record, ...]:
    """The newest, newest first."""
    floor = 0 if which.since_us is None else await _before(tx, which.since_us)
    seqs: list[int] = []
    for part in _parts(_conditions(which)):
        if seqs and len(seqs) == limit:
            floor = max(floor, seqs[-1])
        newest = [
            _seqs(condition & (audit.c.seq > floor), limit, is_newest=True) for condition in part
        ]
        found = {seq for (seq,) in await tx.execute(union_all(*newest))}
        seqs = sorted(found | set(seqs), reverse=True)[:limit]
    return (await _rows(tx, seqs))[::-1]


async def after(tx: Tx, which: Which, seq: int, *, limit: int) -> tuple[Record, ...]:
    """Those that were written after this one, oldest first."""
    if which.since_us is not None:
        seq = max(seq, await _before(tx, which.since_us))
    seqs: set[int] = set()
    for part in _parts(_conditions(which)):
        oldest = [
            _seqs(condition & (audit.c.seq > seq), limit, is_newest=False) for condition in part
        ]
        seqs |= {found for (found,) in await tx.execute(union_all(*oldest))}
    return await _rows(tx, sorted(seqs)[:limit])


async def meant(tx: Tx, names: Collection[str], removed: Collection[str]) -> dict[str, Meant]:
    """VMs by the name they have now, or had when one of the acts `removed` took it from them."""
    found: dict[str, Meant] = {}
    columns = select(vms.c.id, vms.c.owner, vms.c.name, vms.c.former_name)
    if removed:
        was = vms.c.former_name.in_(names) & vms.c.trash_act.in_(removed)
        found |= {
            row.former_name: Meant(row.id, row.owner)
            for row in await tx.execute(columns.where(was))
        }
    rows = await tx.execute(columns.where(vms.c.name.in_(names)))
    return {row.name: Meant(row.id, row.owner) for row in rows} | found


async def owners(tx: Tx, ids: Collection[str]) -> dict[str, str]:
    """Whose these VMs are, by id."""
    query = select(vms.c.id, vms.c.owner).where(vms.c.id.in_(ids))
    return {row.id: row.owner for row in await tx.execute(query)}


def _conditions(which: Which) -> list[ColumnElement[bool]]:
    """Parts of the answer, each along one index in the order of `seq`."""
    return [part & _filter(which) for part in _of_whom(which)]


def _of_whom(which: Which) -> Sequence[ColumnElement[bool]]:
    c = audit.c
    about = [c.vm_id == vm for vm in sorted(which.vms or ())]
    named = [c.vm == name for name in sorted(which.names)]
    if which.account is None:
        return [true()] if which.vms is None else [*about, *named]
    own, theirs = c.account == which.account, c.owner == which.account
    if which.is_limited:
        return [theirs & part for part in about]
    is_own = [own] if which.with_own else []
    if which.vms is not None:
        return [theirs & part for part in (*about, *named)] + [
            whose & part for whose in is_own for part in named
        ]
    acts = [c.act == act for act in ([which.act] if which.act else Act)]
    by_owner = [theirs] if which.who else [theirs & act for act in acts]
    return by_owner + [whose & act for whose in is_own for act in acts]


def _filter(which: Which) -> ColumnElement[bool]:
    found: ColumnElement[bool] = true()
    if which.who is not None:
        found &= audit.c.who == which.who
    if which.act is not None:
        found &= audit.c.act == which.act
    if which.since_us is not None:
        found &= audit.c.at_us + 0 >= which.since_us  # no order to read in: that is `seq`
    return found


async def _before(tx: Tx, at_us: int) -> int:
    """The record before all those of this time or later, so that older ones are not looked at."""
    query = select(audit.c.seq).where(audit.c.at_us >= at_us).order_by(audit.c.at_us).limit(1)
    first = (await tx.execute(query)).scalar()
    return (await head(tx)).seq if first is None else first - 1


def _seqs(condition: ColumnElement[bool], limit: int, *, is_newest: bool) -> Select[int]:
    order = audit.c.seq.desc() if is_newest else audit.c.seq
    query = select(audit.c.seq).where(condition).order_by(order).limit(limit)
    return select(query.subquery().c.seq)


def _parts(whole: Sequence[ColumnElement[bool]]) -> Iterator[list[ColumnElement[bool]]]:
    each = iter(whole)
    while part := list(islice(each, _AT_ONCE)):
        yield part


async def _rows(tx: Tx, seqs: Sequence[int]) -> tuple[Record, ...]:
    query = select(audit).where(audit.c.seq.in_(seqs)).order_by(audit.c.seq)
    return _records(await tx.execute(query))


def _records(rows: Result[*tuple[Any, ...]]) -> tuple[Record, ...]:
    return tuple(Record(**row._mapping) for row in rows)
