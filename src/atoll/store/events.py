"""What happened, for the people who ask later: one row per command that changed something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import insert, select

from atoll.domain.operation import Json
from atoll.store.engine import Tx
from atoll.store.schema import events


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """One event; `detail` is JSON without secrets."""

    at: float
    account: str
    vm: str | None
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
    columns = [column for column in events.c if column.name != "id"]
    query = select(*columns).where(events.c.account == account).order_by(events.c.id.desc())
    return tuple(Happened(**row._mapping) for row in await tx.execute(query.limit(limit)))
