"""Who may have an account: those that are invited, waited for, or of a domain that may join.

Invariant: an account is made for a proven address only, in the transaction that looked whether it may.
Admins invite. Whoever else could would decide for the owner of the machine who uses it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from atoll.base import ids, log
from atoll.base.errors import Conflict, Denied, Exhausted, Invalid, NotFound
from atoll.domain.account import Account, Caller
from atoll.domain.email import check_email, domain_of
from atoll.services.changes import Changes
from atoll.store import accounts, people
from atoll.store.engine import Store, Tx
from atoll.store.people import Invitation, Person

INVITED_S = 7 * 86_400.0
MESSAGE_CHARS = 2_000
MAX_INVITATIONS = 1_000

# Whether somebody waits for this address to join, as a grant to it does.
Waits: TypeAlias = Callable[[Tx, str], Awaitable[bool]]
# What is done for an account that has just been made.
Arrival: TypeAlias = Callable[[Tx, Account], Awaitable[object]]

_log = log.get("joining")


class Joining:
    """Invites, and admits."""

    def __init__(
        self,
        *,
        store: Store,
        changes: Changes,
        domains: Sequence[str] = (),
        waited_for: Sequence[Waits] = (),
        arrivals: Sequence[Arrival] = (),
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._changes = changes
        self._domains = frozenset(domains)
        self._waited_for = tuple(waited_for)
        self._arrivals = tuple(arrivals)
        self._now = now

    async def admit(self, email: str) -> Account:
        """The account of an address that was proven just now; made when it may join.

        Raises Denied when it may not, Invalid for what is no address.
        """
        email = check_email(email)
        async with self._store.begin() as tx:
            account = await accounts.by_email(tx, email)
            if account is not None:
                return account
            if not await self._may_join(tx, email):
                raise Denied(
                    f"{email} has no account here", hint="Ask an admin of this cloud to invite you"
                )
            account = Account(id=ids.new("acct"), email=email)
            await accounts.add(tx, account, now=self._now())
            await people.drop_invitation(tx, email)
            for take_up in self._arrivals:
                await take_up(tx, account)
        _log.info("account made", account=account.id)
        self._changes.bump()  # what waited for it is its own from now on
        return account

    async def may_come(self, email: str) -> bool:
        """Whether `admit` would do it."""
        async with self._store.read() as tx:
            has_account = await accounts.by_email(tx, email) is not None
            may_join = await self._may_join(tx, email)
        return has_account or may_join

    async def invite(self, caller: Caller, email: str, message: str = "") -> Invitation:
        """Let an address join within INVITED_S seconds; inviting again begins anew.

        Raises Denied, Invalid, Conflict when it has an account, or Exhausted.
        """
        _check_admin(caller)
        email, now = check_email(email), self._now()
        if len(message) > MESSAGE_CHARS:
            raise Invalid(
                f"the message has {len(message)} characters; {MESSAGE_CHARS} are the most"
            )
        made = Invitation(
            email=email,
            invited_by=caller.account.id,
            message=message,
            created_at=now,
            expires_at=now + INVITED_S,
        )
        async with self._store.begin() as tx:
            if await accounts.by_email(tx, email) is not None:
                raise Conflict(f"{email} has an account already", hint="See: people")
            others = [one for one in await people.invited(tx) if one.email != email]
            if len(others) >= MAX_INVITATIONS:
                raise Exhausted(
                    f"{len(others)} invitations are the most", hint="Try: invite rm <email>"
                )
            for old in others:
                if old.expires_at <= now:
                    await people.drop_invitation(tx, old.email)
            await people.put_invitation(tx, made)
        return made

    async def invitations(self, caller: Caller) -> tuple[tuple[Invitation, str | None], ...]:
        """All that are in their time, by address, each with the address of who invited. Raises Denied."""
        _check_admin(caller)
        now = self._now()
        async with self._store.read() as tx:
            found = [one for one in await people.invited(tx) if one.expires_at > now]
            known = await accounts.some(tx, {one.invited_by for one in found})
        return tuple(
            (one, known[one.invited_by].email if one.invited_by in known else None) for one in found
        )

    async def take_back(self, caller: Caller, email: str) -> None:
        """Forget an invitation. Raises Denied, NotFound."""
        _check_admin(caller)
        email = check_email(email)
        async with self._store.begin() as tx:
            if not await people.drop_invitation(tx, email):
                raise NotFound(f"{email} is not invited", hint="See: invite ls")

    async def people(self, caller: Caller) -> tuple[Person, ...]:
        """Everybody, for an admin; for others themselves."""
        only = None if caller.account.is_admin else caller.account.id
        async with self._store.read() as tx:
            return await people.everybody(tx, account=only)

    async def _may_join(self, tx: Tx, email: str) -> bool:
        is_invited = await people.invitation(tx, email, now=self._now()) is not None
        waits = [await waits(tx, email) for waits in self._waited_for]
        return is_invited or any(waits) or domain_of(email) in self._domains


def _check_admin(caller: Caller) -> None:
    if not caller.account.is_admin:
        raise Denied("only an admin of this cloud invites", hint="See who is: people")
