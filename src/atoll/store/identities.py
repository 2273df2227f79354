"""Who people are at other providers: (issuer, subject) is one account, for good."""

from __future__ import annotations

from sqlalchemy import insert, select

from atoll.domain.account import Account
from atoll.store.accounts import account_in
from atoll.store.engine import Tx
from atoll.store.schema import accounts, identities


async def account_of(tx: Tx, *, issuer: str, subject: str) -> Account | None:
    """The account that this subject of this issuer signs in to."""
    named = (identities.c.issuer == issuer) & (identities.c.subject == subject)
    query = select(accounts).join_from(identities, accounts).where(named)
    row = (await tx.execute(query)).one_or_none()
    return account_in(row) if row else None


async def subject_of(tx: Tx, *, issuer: str, account: str) -> str | None:
    """Who this account is at this issuer."""
    query = select(identities.c.subject).where(
        identities.c.issuer == issuer, identities.c.account == account
    )
    return (await tx.execute(query)).scalar_one_or_none()


async def add(tx: Tx, *, issuer: str, subject: str, account: str, email: str, now: float) -> None:
    """Store one; the caller has checked that neither subject nor account has one there."""
    await tx.execute(
        insert(identities).values(
            issuer=issuer, subject=subject, account=account, email=email, created_at=now
        )
    )
