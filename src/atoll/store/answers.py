"""Answers of the API by the key their caller gave, so that asking twice acts once."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select, update

from atoll.store.engine import Tx
from atoll.store.schema import answers


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow:
    """One request; `status` and `body` are None until it has ended.

    `run` names the life of control that ran it, for whoever looks for its log.
    """

    id: str
    account: str
    line: str
    run: str
    created_at: float
    expires_at: float
    status: int | None = None
    body: bytes | None = None


async def add(tx: Tx, row: AnswerRow) -> None:
    """Write a request down before it is run; the caller has checked that its id is free."""
    values = {column.name: getattr(row, column.name) for column in answers.c}
    await tx.execute(insert(answers).values(values))


async def get(tx: Tx, id_: str) -> AnswerRow | None:
    """The request with this id."""
    row = (await tx.execute(select(answers).where(answers.c.id == id_))).one_or_none()
    return AnswerRow(**row._mapping) if row else None


async def count(tx: Tx, account: str) -> int:
    """How many an account has."""
    query = select(func.count()).where(answers.c.account == account)
    return (await tx.execute(query)).scalar_one()


async def finish(tx: Tx, id_: str, *, status: int, body: bytes) -> None:
    """Keep the answer."""
    await tx.execute(update(answers).where(answers.c.id == id_).values(status=status, body=body))


async def remove(tx: Tx, id_: str) -> None:
    """Forget a request."""
    await tx.execute(delete(answers).where(answers.c.id == id_))


async def forget_old(tx: Tx, *, now: float) -> None:
    """Forget every request whose time is over."""
    await tx.execute(delete(answers).where(answers.c.expires_at <= now))
