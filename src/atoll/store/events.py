"""What happened, for the people who ask later: a row per command that changed something, and per VM
that came to something by itself. Rows are kept for ever: the audit of later needs them all.

Invariant: every read is bounded by a limit and follows an index, however many rows there are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Select, insert, select, union_all

from atoll.domain.operation import Json
from atoll.store.engine import Tx
from atoll.store.schema import events

_AT_ONCE = 100  # parts of one query; SQLite takes at most 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """One event; `detail` is JSON without secrets.

    `vm` is what the VM was called then, `vm_id` which one it was, as far as that is known.
    `door` is empty when no command did it. Ids grow, in the order events were written.
    """

    id: int = field(default=0, compare=False)
    at: float
    account: str
    vm: str | None
    vm_id: str | None = None
    kind: str
    door: str
    detail: Mapping[str, Json]


async def add(tx: Tx, event: Happened) -> None:
    """Append an event."""
    values = {
        column.name: getattr(event, column.name) for column in events.c if column.name != "id"
    }
    await tx.execute(insert(events).values(values | {"detail": dict(event.detail)}))


async def latest(tx: Tx, account: str, *, limit: int) -> tuple[Happened, ...]:
    """The newest events of an account, newest first."""
    query = select(events).where(events.c.account == account).order_by(events.c.id.desc())
    return await _rows(tx, query.limit(limit))


async def latest_of(
    tx: Tx, account: str, *, vms: Collection[str], names: Collection[str], limit: int
) -> tuple[Happened, ...]:
    """The same of some VMs: those with these ids, and all that had one of these names then."""
    of_vms = [events.c.vm_id == vm for vm in sorted(vms)]
    named = [events.c.vm == name for name in sorted(names)]
    ids: list[int] = []
    for part in _parts([*of_vms, *named]):
        floor = ids[-1] if ids and len(ids) == limit else 0
        newest = [_newest(account, condition & (events.c.id > floor), limit) for condition in part]
        found = {id_ for (id_,) in await tx.execute(union_all(*newest))}
        ids = sorted(found | set(ids), reverse=True)[:limit]
    return await _rows(tx, select(events).where(events.c.id.in_(ids)).order_by(events.c.id.desc()))


async def after(tx: Tx, account: str, id_: int, *, limit: int) -> tuple[Happened, ...]:
    """An account's events that were written after the one with this id, oldest first."""
    query = select(events).where(events.c.account == account, events.c.id > id_)
    return await _rows(tx, query.order_by(events.c.id).limit(limit))


async def newest_id(tx: Tx, account: str) -> int:
    """The id of an account's last event; 0 before there is one."""
    query = select(events.c.id).where(events.c.account == account).order_by(events.c.id.desc())
    return (await tx.execute(query.limit(1))).scalar() or 0


def _newest(account: str, condition: ColumnElement[bool], limit: int) -> Select[int]:
    query = select(events.c.id).where(events.c.account == account, condition)
    return select(query.order_by(events.c.id.desc()).limit(limit).subquery().c.id)


def _parts(whole: Sequence[ColumnElement[bool]]) -> Iterator[list[ColumnElement[bool]]]:
    each = iter(whole)
    while part := list(islice(each, _AT_ONCE)):
        yield part


async def _rows(tx: Tx, query: Select[*tuple[Any, ...]]) -> tuple[Happened, ...]:
    return tuple(Happened(**row._mapping) for row in await tx.execute(query))
