"""Who opened a VM's web address: a ring of rows per VM, and one row per VM and visitor.

Invariant: a VM has at most KEPT rows of people and KEPT of the anonymous (and what came since `trim`), so
a flood of strangers does not push out who of the invited was there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from atoll.domain.visit import Visit
from atoll.store.engine import Tx
from atoll.store.schema import accounts, visitors, visits, vms

KEPT = 1000
_FIELDS = tuple(field.name for field in fields(Visit))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A row: the visit, and what the visitor is called; empty for the anonymous."""

    id: int
    visit: Visit
    email: str


async def ids(tx: Tx, names: Collection[str]) -> dict[str, str]:
    """VM name -> id, of those that there are."""
    query = select(vms.c.name, vms.c.id).where(vms.c.name.in_(names))
    return {row.name: row.id for row in await tx.execute(query)}


async def add(tx: Tx, seen: Iterable[tuple[str, Visit]]) -> None:
    """Write visits down, each with the id of its VM."""
    rows = [{"vm": vm, **asdict(visit)} for vm, visit in seen]
    if not rows:
        return
    await tx.execute(insert(visits), rows)
    is_sqlite = tx.dialect.name == "sqlite"
    put = sqlite.insert(visitors) if is_sqlite else postgresql.insert(visitors)
    upsert = put.on_conflict_do_update(
        index_elements=["vm", "account"],
        set_={
            "last_at": put.excluded.last_at,
            "requests": visitors.c.requests + put.excluded.requests,
        },
    )
    opened: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        if row["is_let_in"]:
            vm, account, at = row["vm"], row["account"], row["at"]
            new = {"vm": vm, "account": account, "first_at": at, "last_at": at, "requests": 0}
            one = opened.setdefault((vm, account), new)
            one["last_at"] = max(one["last_at"], at)
            one["requests"] += row["count"]
    if opened:
        await tx.execute(upsert, list(opened.values()))


async def trim(tx: Tx, vm: str) -> None:
    """Forget the oldest rows of a VM beyond KEPT, of people and of the anonymous."""
    for whose in (visits.c.account == "", visits.c.account != ""):
        mine = (visits.c.vm == vm) & whose
        last = select(visits.c.id).where(mine).order_by(visits.c.id.desc()).offset(KEPT).limit(1)
        if (found := (await tx.execute(last)).scalar()) is not None:
            await tx.execute(delete(visits).where(mine, visits.c.id <= found))


async def clear(tx: Tx, vm: str) -> None:
    """Forget who came to a VM."""
    for table in (visits, visitors):
        await tx.execute(delete(table).where(table.c.vm == vm))


async def latest(tx: Tx, vm: str, *, limit: int, who: str | None = None) -> tuple[Seen, ...]:
    """A VM's newest visits, newest first; of one address, the anonymous, or all."""
    return await _rows(tx, _of(vm, who).order_by(visits.c.id.desc()).limit(limit))


async def after(
    tx: Tx, vm: str, id_: int, *, limit: int, who: str | None = None
) -> tuple[Seen, ...]:
    """A VM's visits that were written after the one with this id, oldest first."""
    return await _rows(tx, _of(vm, who, visits.c.id > id_).order_by(visits.c.id).limit(limit))


async def newest_id(tx: Tx, vm: str) -> int:
    """The id of a VM's last visit; 0 before there is one."""
    query = select(func.max(visits.c.id)).where(visits.c.vm == vm)
    return (await tx.execute(query)).scalar() or 0


async def last_opened(tx: Tx, vm: str) -> dict[str, float]:
    """Account -> when it last was let in; the anonymous are the account without a name."""
    query = select(visitors.c.account, visitors.c.last_at).where(visitors.c.vm == vm)
    return {row.account: row.last_at for row in await tx.execute(query)}


def _of(vm: str, who: str | None, *more: ColumnElement[bool]) -> Select[Any]:
    joined = visits.outerjoin(accounts, accounts.c.id == visits.c.account)
    query = select(visits, accounts.c.email).select_from(joined)
    if who is not None:
        more = (*more, accounts.c.email == who if who else visits.c.account == "")
    return query.where(visits.c.vm == vm, *more)


async def _rows(tx: Tx, query: Select[Any]) -> tuple[Seen, ...]:
    return tuple(
        Seen(
            id=row.id,
            visit=Visit(**{name: row._mapping[name] for name in _FIELDS}),
            email=row.email or "",
        )
        for row in await tx.execute(query)
    )
