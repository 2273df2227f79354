"""What accounts let apps in VMs know about them."""

from __future__ import annotations

from sqlalchemy import delete, insert, select

from atoll.store.engine import Tx
from atoll.store.schema import consents


async def scope_of(tx: Tx, *, account: str, vm: str, owner: str) -> frozenset[str]:
    """What this account has consented to for this VM of this owner; nothing yet: empty."""
    query = select(consents.c.scope).where(
        consents.c.account == account, consents.c.vm == vm, consents.c.owner == owner
    )
    return frozenset(((await tx.execute(query)).scalar_one_or_none() or "").split())


async def put(tx: Tx, *, account: str, vm: str, owner: str, scope: str, now: float) -> None:
    """Write a consent down, in place of an earlier one."""
    await tx.execute(delete(consents).where(consents.c.account == account, consents.c.vm == vm))
    await tx.execute(
        insert(consents).values(account=account, vm=vm, owner=owner, scope=scope, created_at=now)
    )
