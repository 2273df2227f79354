"""Snapshots of VMs. What they are of the engine keeps; here is what they are called."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from atoll.domain.snapshot import Reason, Snapshot
from atoll.domain.vm import Phase
from atoll.store.engine import Tx
from atoll.store.schema import snapshots, vms

_COLUMNS = tuple(column.name for column in snapshots.c)


async def add(tx: Tx, snapshot: Snapshot) -> None:
    """Store a new one; the caller has checked that the name is free."""
    values = {name: getattr(snapshot, name) for name in _COLUMNS}
    await tx.execute(insert(snapshots).values(values))


async def get(tx: Tx, snapshot: str) -> Snapshot | None:
    """The one with this id."""
    row = (await tx.execute(select(snapshots).where(snapshots.c.id == snapshot))).first()
    return None if row is None else _snapshot(row)


async def of_vms(tx: Tx, ids: Collection[str]) -> tuple[Snapshot, ...]:
    """Those of these VMs, oldest first."""
    query = select(snapshots).where(snapshots.c.vm.in_(ids))
    rows = await tx.execute(query.order_by(snapshots.c.created_at, snapshots.c.id))
    return tuple(map(_snapshot, rows))


async def newest(tx: Tx, reason: Reason, *, until: float) -> dict[str, float]:
    """When the newest for this reason was taken, by VM; later ones than `until` do not count."""
    query = select(snapshots.c.vm, func.max(snapshots.c.created_at).label("at"))
    query = query.where(snapshots.c.reason == reason, snapshots.c.created_at <= until)
    rows = await tx.execute(query.group_by(snapshots.c.vm))
    return {row.vm: row.at for row in rows}


async def oldest(tx: Tx, reason: Reason, *, but_of: Collection[str]) -> Snapshot | None:
    """The oldest for this reason of all VMs but these and those in the trash."""
    query = select(snapshots).join(vms).where(snapshots.c.reason == reason)
    query = query.where(vms.c.phase == Phase.LIVE, vms.c.id.not_in(but_of))
    query = query.order_by(snapshots.c.created_at, snapshots.c.id).limit(1)
    row = (await tx.execute(query)).first()
    return None if row is None else _snapshot(row)


async def names(tx: Tx, vm: str) -> frozenset[str]:
    """Of all of a VM; a fifth of the time that reading a thousand takes."""
    found = await tx.execute(select(snapshots.c.name).where(snapshots.c.vm == vm))
    return frozenset(found.scalars())


async def set_reason(tx: Tx, snapshot: str, reason: Reason) -> None:
    """Why it is kept from now on."""
    query = update(snapshots).where(snapshots.c.id == snapshot)
    await tx.execute(query.values(reason=reason))


async def remove(tx: Tx, snapshot: str) -> None:
    """Forget one."""
    await tx.execute(delete(snapshots).where(snapshots.c.id == snapshot))


def _snapshot(row: Sequence[Any]) -> Snapshot:
    values = dict(zip(_COLUMNS, row, strict=True))
    return Snapshot(**values | {"reason": Reason(values["reason"])})
