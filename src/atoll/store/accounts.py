"""Accounts and their SSH keys."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from atoll.domain.account import Account, Scope
from atoll.store.engine import Tx
from atoll.store.schema import accounts, ssh_keys


@dataclass(frozen=True, slots=True, kw_only=True)
class SshKey:
    """A public key that logs its account in; with `vm` (an id) or `tag` into such VMs only."""

    fingerprint: str
    account: str
    name: str
    public_key: str
    vm: str | None = None
    tag: str | None = None
    user: str | None = None
    created_at: float

    @property
    def scope(self) -> Scope:
        """What it opens."""
        return Scope(vm=self.vm, tag=self.tag, user=self.user)


async def add(tx: Tx, account: Account, *, now: float) -> None:
    """Store a new account; the caller has checked that the e-mail address is free."""
    await tx.execute(
        insert(accounts).values(
            id=account.id,
            email=account.email,
            is_admin=account.is_admin,
            created_at=now,
            generation=0,
        )
    )


async def by_id(tx: Tx, account: str) -> Account | None:
    """The account with this id."""
    row = (await tx.execute(select(accounts).where(accounts.c.id == account))).one_or_none()
    return account_in(row) if row else None


async def by_email(tx: Tx, email: str) -> Account | None:
    """The account with this address (kept in lower case)."""
    row = (await tx.execute(select(accounts).where(accounts.c.email == email))).one_or_none()
    return account_in(row) if row else None


async def some(tx: Tx, ids: Collection[str]) -> dict[str, Account]:
    """The accounts with these ids, by id."""
    rows = await tx.execute(select(accounts).where(accounts.c.id.in_(ids)))
    return {row.id: account_in(row) for row in rows}


async def first_admin(tx: Tx) -> Account | None:
    """The oldest account that is an admin."""
    query = select(accounts).where(accounts.c.is_admin).order_by(accounts.c.created_at)
    row = (await tx.execute(query.limit(1))).one_or_none()
    return account_in(row) if row else None


async def by_key(tx: Tx, fingerprint: str) -> tuple[Account, SshKey] | None:
    """Whose key this is."""
    query = select(accounts, ssh_keys).join_from(ssh_keys, accounts)
    row = (await tx.execute(query.where(ssh_keys.c.fingerprint == fingerprint))).one_or_none()
    if row is None:
        return None
    found = row._mapping
    return account_in(row), SshKey(**{column.name: found[column] for column in ssh_keys.c})


async def keys_among(tx: Tx, fingerprints: Collection[str]) -> tuple[SshKey, ...]:
    """Those of these keys that are there."""
    if not fingerprints:
        return ()
    query = select(ssh_keys).where(ssh_keys.c.fingerprint.in_(fingerprints))
    return tuple(SshKey(**row._mapping) for row in await tx.execute(query))


async def add_key(tx: Tx, key: SshKey) -> None:
    """Store a new key; the caller has checked fingerprint and name."""
    values = {column.name: getattr(key, column.name) for column in ssh_keys.c}
    await tx.execute(insert(ssh_keys).values(values))


async def keys_of(tx: Tx, account: str) -> tuple[SshKey, ...]:
    """All keys of an account, oldest first."""
    return await keys_of_all(tx, (account,))


async def keys_of_all(tx: Tx, ids: Collection[str]) -> tuple[SshKey, ...]:
    """All keys of some accounts, by account, then oldest first."""
    query = select(ssh_keys).where(ssh_keys.c.account.in_(ids))
    order = (ssh_keys.c.account, ssh_keys.c.created_at, ssh_keys.c.fingerprint)
    return tuple(SshKey(**row._mapping) for row in await tx.execute(query.order_by(*order)))


async def rename_key(tx: Tx, fingerprint: str, name: str) -> None:
    """Call a key something else; the caller has checked that the name is free."""
    await tx.execute(
        update(ssh_keys).where(ssh_keys.c.fingerprint == fingerprint).values(name=name)
    )


async def remove_key(tx: Tx, fingerprint: str) -> None:
    """Forget a key."""
    await tx.execute(delete(ssh_keys).where(ssh_keys.c.fingerprint == fingerprint))


def account_in(row: Row[Any]) -> Account:
    """The account in a row, by whatever it is joined with."""
    found = row._mapping
    return Account(
        id=found[accounts.c.id], email=found[accounts.c.email], is_admin=found[accounts.c.is_admin]
    )
