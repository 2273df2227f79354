"""Which account somebody at another provider signs in to.

Invariant: (issuer, subject) means one account for good. The e-mail address counts once, at the first
sign-in; when it changes at the provider, or is given to somebody else there, no account moves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from atoll.base.errors import Denied
from atoll.domain.account import Account
from atoll.services.elsewhere import Person
from atoll.store import identities
from atoll.store.engine import Store


class Joining(Protocol):
    """Who may have an account here."""

    async def admit(self, email: str) -> Account:
        """The account of a proven address, made if it may join; Denied otherwise."""
        ...


class Identities:
    """Finds accounts of people, and remembers who they are."""

    def __init__(
        self, *, store: Store, joining: Joining, now: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._joining = joining
        self._now = now

    async def account(self, person: Person) -> Account:
        """The account; raises Denied for whom there is none."""
        issuer, subject = person.issuer, person.subject
        async with self._store.read() as tx:
            known = await identities.account_of(tx, issuer=issuer, subject=subject)
        if known is not None:
            return known
        if person.email is None:
            raise Denied(
                f"{person.provider} does not say that it has checked your e-mail address",
                hint=f"Confirm the address at {person.provider}, then sign in again",
            )
        account = await self._joining.admit(person.email)
        async with self._store.begin() as tx:
            known = await identities.account_of(
                tx, issuer=issuer, subject=subject
            )  # two windows at once
            if known is not None:
                return known
            if await identities.subject_of(tx, issuer=issuer, account=account.id):
                raise Denied(
                    f"the account of {person.email} belongs to somebody else at {person.provider},"
                    " who had this address before",
                    hint="Sign in another way, or ask the owner of this cloud",
                )
            await identities.add(
                tx,
                issuer=issuer,
                subject=subject,
                account=account.id,
                email=person.email,
                now=self._now(),
            )
        return account
