"""Passkeys: public keys that browsers and phones hold the other half of."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update

from atoll.domain.account import Account
from atoll.store.accounts import account_in
from atoll.store.engine import Tx
from atoll.store.schema import accounts, passkeys


@dataclass(frozen=True, slots=True, kw_only=True)
class Passkey:
    """One; `id` is the credential's in base64url, `public_key` is COSE."""

    id: str
    account: str
    name: str
    public_key: bytes
    sign_count: int
    created_at: float
    last_used_at: float | None = None


async def add(tx: Tx, passkey: Passkey) -> None:
    """Store a new one; the caller has checked id and name."""
    values = {column.name: getattr(passkey, column.name) for column in passkeys.c}
    await tx.execute(insert(passkeys).values(values))


async def find(tx: Tx, id_: str) -> tuple[Account, Passkey] | None:
    """The passkey with this id, and whose it is."""
    query = select(accounts, passkeys).join_from(passkeys, accounts).where(passkeys.c.id == id_)
    row = (await tx.execute(query)).one_or_none()
    if row is None:
        return None
    found = row._mapping
    return account_in(row), Passkey(**{column.name: found[column] for column in passkeys.c})


async def of(tx: Tx, account: str) -> tuple[Passkey, ...]:
    """All of an account, oldest first."""
    query = select(passkeys).where(passkeys.c.account == account)
    rows = await tx.execute(query.order_by(passkeys.c.created_at, passkeys.c.id))
    return tuple(Passkey(**row._mapping) for row in rows)


async def used(tx: Tx, passkey: Passkey, *, sign_count: int, now: float) -> bool:
    """Note a use; False when another use came between and counted first."""
    noted = await tx.execute(
        update(passkeys)
        .where(passkeys.c.id == passkey.id, passkeys.c.sign_count == passkey.sign_count)
        .values(sign_count=sign_count, last_used_at=now)
    )
    return noted.rowcount == 1


async def remove(tx: Tx, id_: str) -> None:
    """Forget one."""
    await tx.execute(delete(passkeys).where(passkeys.c.id == id_))
