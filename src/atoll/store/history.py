"""Lines typed at the prompt, per account."""

from __future__ import annotations

from sqlalchemy import delete, insert, select

from atoll.store.engine import Tx
from atoll.store.schema import history


async def add(tx: Tx, account: str, line: str, *, now: float, keep: int) -> None:
    """Append a line and forget all but the newest `keep`; a repeated line counts once."""
    if await latest(tx, account, limit=1) == (line,):
        return
    await tx.execute(insert(history).values(account=account, line=line, at=now))
    owned = select(history.c.id).where(history.c.account == account)
    oldest = owned.order_by(history.c.id.desc()).offset(keep).limit(1).scalar_subquery()
    await tx.execute(delete(history).where(history.c.account == account, history.c.id <= oldest))


async def latest(tx: Tx, account: str, *, limit: int) -> tuple[str, ...]:
    """The newest lines of an account, oldest first."""
    query = select(history.c.line).where(history.c.account == account)
    rows = await tx.execute(query.order_by(history.c.id.desc()).limit(limit))
    return tuple(reversed(rows.scalars().all()))
