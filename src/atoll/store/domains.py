"""Names of their own for VMs. Which names may be one is `domain.custom_domain`'s business."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, select, update

from atoll.domain.vm import Phase
from atoll.store.engine import Tx
from atoll.store.schema import domains, vms

_COLUMNS = tuple(column.name for column in domains.c)


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainRow:
    """One domain. It is served while the last check found no `problem`, and a VM's since `proven_at`."""

    domain: str
    vm: str
    problem: str
    expected: str
    created_at: float
    checked_at: float
    failures: int
    next_check_at: float
    proven_at: float | None


async def put(tx: Tx, row: DomainRow) -> None:
    """Store a new one, in place of whatever had the name."""
    await remove(tx, row.domain)
    values = {name: getattr(row, name) for name in _COLUMNS}
    await tx.execute(insert(domains).values(values))


async def get(tx: Tx, domain: str) -> DomainRow | None:
    """The one of this name."""
    row = (await tx.execute(select(domains).where(domains.c.domain == domain))).first()
    return DomainRow(**row._mapping) if row is not None else None


async def of_vms(tx: Tx, ids: Collection[str]) -> tuple[DomainRow, ...]:
    """Those of these VMs, by name."""
    query = select(domains).where(domains.c.vm.in_(ids)).order_by(domains.c.domain)
    return tuple(DomainRow(**row._mapping) for row in await tx.execute(query))


async def due(tx: Tx, *, now: float, limit: int) -> tuple[DomainRow, ...]:
    """Those whose DNS is to be looked at again, longest due first."""
    query = select(domains).where(domains.c.next_check_at <= now)
    found = await tx.execute(query.order_by(domains.c.next_check_at).limit(limit))
    return tuple(DomainRow(**row._mapping) for row in found)


async def served(tx: Tx) -> dict[str, str]:
    """Domain -> name of the VM it leads to, for those that DNS led here at the last look."""
    query = (
        select(domains.c.domain, vms.c.name)
        .join(vms, vms.c.id == domains.c.vm)
        .where(domains.c.proven_at.is_not(None), domains.c.problem == "")
        .where(vms.c.phase == Phase.LIVE, vms.c.name.is_not(None))
    )
    return {row.domain: row.name for row in await tx.execute(query)}


async def everywhere(tx: Tx) -> frozenset[str]:
    """All names, whether DNS leads them here or not."""
    return frozenset((await tx.execute(select(domains.c.domain))).scalars())


async def change(tx: Tx, row: DomainRow, **values: Any) -> bool:
    """Set columns; False when it is gone or another VM's since `row` was read."""
    mine = (domains.c.domain == row.domain) & (domains.c.vm == row.vm)
    return (await tx.execute(update(domains).where(mine).values(**values))).rowcount == 1


async def clear(tx: Tx, vm: str) -> None:
    """Forget all of a VM."""
    await tx.execute(delete(domains).where(domains.c.vm == vm))


async def remove(tx: Tx, domain: str) -> bool:
    """Forget one; False: there was none."""
    return (await tx.execute(delete(domains).where(domains.c.domain == domain))).rowcount == 1
