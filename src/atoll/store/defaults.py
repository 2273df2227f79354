"""An account's defaults: text by key. Which keys there are is not the store's business."""

from __future__ import annotations

from sqlalchemy import delete, insert, select

from atoll.store.engine import Tx
from atoll.store.schema import defaults


async def of(tx: Tx, account: str) -> dict[str, str]:
    """All of an account, by key."""
    query = select(defaults.c.key, defaults.c.value).where(defaults.c.account == account)
    rows = await tx.execute(query.order_by(defaults.c.key))
    return {row.key: row.value for row in rows}


async def put(tx: Tx, account: str, key: str, value: str) -> None:
    """Set one."""
    await drop(tx, account, key)
    await tx.execute(insert(defaults).values(account=account, key=key, value=value))


async def drop(tx: Tx, account: str, key: str) -> bool:
    """Forget one; False: it was not set."""
    gone = await tx.execute(
        delete(defaults).where(defaults.c.account == account, defaults.c.key == key)
    )
    return gone.rowcount == 1
