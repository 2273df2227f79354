"""Who may join, who asked for a link by mail, and who is here."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select

from atoll.store.engine import Tx
from atoll.store.schema import accounts, events, invitations, mailed_codes, sessions


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """Somebody who may join until `expires_at`; `invited_by` is an account's id."""

    email: str
    invited_by: str
    message: str
    created_at: float
    expires_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailed:
    """A link on its way to an address, for the one browser that asked."""

    hash: str
    short_hash: str
    browser: str
    email: str
    expires_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """An account, and when it was last heard of."""

    account: str
    email: str
    is_admin: bool
    created_at: float
    last_seen_at: float | None


async def put_invitation(tx: Tx, invitation: Invitation) -> None:
    """Store an invitation in place of an earlier one to the same address."""
    await drop_invitation(tx, invitation.email)
    values = {column.name: getattr(invitation, column.name) for column in invitations.c}
    await tx.execute(insert(invitations).values(values))


async def drop_invitation(tx: Tx, email: str) -> bool:
    """Forget one; False: there was none."""
    gone = await tx.execute(delete(invitations).where(invitations.c.email == email))
    return gone.rowcount == 1


async def invitation(tx: Tx, email: str, *, now: float) -> Invitation | None:
    """The invitation to an address, in its time."""
    query = select(invitations).where(invitations.c.email == email, invitations.c.expires_at > now)
    row = (await tx.execute(query)).one_or_none()
    return Invitation(**row._mapping) if row else None


async def invited(tx: Tx) -> tuple[Invitation, ...]:
    """All invitations, in their time or not, by address."""
    rows = await tx.execute(select(invitations).order_by(invitations.c.email))
    return tuple(Invitation(**row._mapping) for row in rows)


async def put_mailed(tx: Tx, mailed: Mailed, *, now: float) -> None:
    """Store a link in place of the browser's earlier one; those whose time is over go."""
    over = (mailed_codes.c.expires_at <= now) | (mailed_codes.c.browser == mailed.browser)
    await tx.execute(delete(mailed_codes).where(over))
    values = {column.name: getattr(mailed, column.name) for column in mailed_codes.c}
    await tx.execute(insert(mailed_codes).values(values))


async def mailed(tx: Tx, *, hash_: str = "", browser: str = "", now: float) -> Mailed | None:
    """The link with this hash, or of this browser, in its time. One of the two must be given."""
    assert bool(hash_) != bool(browser)
    which = mailed_codes.c.hash == hash_ if hash_ else mailed_codes.c.browser == browser
    query = select(mailed_codes).where(which, mailed_codes.c.expires_at > now)
    row = (await tx.execute(query)).one_or_none()
    return Mailed(**row._mapping) if row else None


async def use_mailed(tx: Tx, hash_: str) -> bool:
    """Take a link away; True for one of those who try at the same moment."""
    gone = await tx.execute(delete(mailed_codes).where(mailed_codes.c.hash == hash_))
    return gone.rowcount == 1


async def everybody(tx: Tx, *, account: str | None = None) -> tuple[Person, ...]:
    """All accounts, oldest first, or this one."""
    browsed = select(func.max(sessions.c.last_seen_at)).where(sessions.c.account == accounts.c.id)
    # The newest by its index: the greatest time would be looked for in every event of the account.
    acted = select(events.c.at).where(events.c.account == accounts.c.id)
    acted = acted.order_by(events.c.id.desc()).limit(1)
    query = select(
        accounts,
        browsed.correlate(accounts).scalar_subquery().label("browsed_at"),
        acted.correlate(accounts).scalar_subquery().label("acted_at"),
    ).order_by(accounts.c.created_at, accounts.c.email)
    if account is not None:
        query = query.where(accounts.c.id == account)
    return tuple(
        Person(
            account=row.id,
            email=row.email,
            is_admin=row.is_admin,
            created_at=row.created_at,
            last_seen_at=max(filter(None, (row.browsed_at, row.acted_at)), default=None),
        )
        for row in await tx.execute(query)
    )
