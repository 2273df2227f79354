"""How one gets into a team: invited for a day, by address.

Nobody is put into a team against their will: an account accepts or declines. An address without an
account may wait as well, and the account that it becomes is in, as it was made for that. Whether an
address has an account is not told: an invitation says the same in both cases.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from atoll.base.errors import AtollError, Conflict, Exhausted, Invalid, NotFound
from atoll.domain import team as rules
from atoll.domain.account import Account, Caller
from atoll.domain.email import check_email
from atoll.domain.team import Act, Invitation, Role, Team
from atoll.services.changes import Changes
from atoll.services.journal import Journal
from atoll.services.team_grants import TeamGrants
from atoll.services.team_place import Place, find_place
from atoll.services.teams import check_room
from atoll.store import teams
from atoll.store.engine import Store, Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class Invited:
    """An invitation that holds, as who is invited sees it; `by` is an address."""

    invitation: Invitation
    team: Team
    by: str


class TeamInvitations:
    """Makes invitations, and takes in who accepts."""

    def __init__(
        self,
        *,
        store: Store,
        journal: Journal,
        team_grants: TeamGrants,
        changes: Changes,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._journal = journal
        self._grants = team_grants
        self._changes = changes
        self._now = now

    async def of(self, caller: Caller) -> tuple[Invited, ...]:
        """To which teams the caller is invited now."""
        async with self._store.read() as tx:
            return await self._good(tx, caller.account.email)

    async def invite(
        self, caller: Caller, email: str, role: Role, name: str | None
    ) -> tuple[Team, Invitation]:
        """Let an address join; again: for another day, or to be something else.

        Raises NotFound, Denied, Invalid, Conflict for somebody who is in it, or Exhausted.
        """
        email = check_email(email)
        now = self._now()
        async with self._store.begin() as tx:
            place = await find_place(tx, caller, name, now=now)
            rules.check_gives(place.role, role)
            _check_invitable(place, email, role)
            invitation = Invitation(
                team=place.team.id,
                email=email,
                role=role,
                invited_by=caller.account.id,
                created_at=now,
                expires_at=now + rules.INVITED_S,
            )
            await teams.forget_expired(tx, place.team.id, now=now)
            await teams.invite(tx, invitation)
        return place.team, invitation

    async def withdraw(self, caller: Caller, email: str, name: str | None) -> Team | None:
        """Take an invitation back; None: nobody of this address is waiting.

        Raises NotFound or Denied.
        """
        email = check_email(email)
        async with self._store.begin() as tx:
            place = await find_place(tx, caller, name, now=self._now())
            rules.check_may(place.role, Act.REMOVE)
            waiting = next((one for one in place.invited if one.email == email), None)
            if waiting is None:
                return None
            rules.check_gives(place.role, waiting.role)
            await teams.uninvite(tx, place.team.id, email)
        return place.team

    async def join(self, caller: Caller, name: str | None) -> tuple[Team, Role]:
        """Accept an invitation; the name may be left out when there is one only.

        Raises NotFound, Invalid when it is not clear which, or Exhausted.
        """
        async with self._store.begin() as tx:
            chosen = await self._chosen(tx, caller, name)
            await self._take_in(tx, caller.account, chosen.invitation)
        self._changes.bump()
        self._journal.wake()
        return chosen.team, chosen.invitation.role

    async def decline(self, caller: Caller, name: str | None) -> Team:
        """Refuse an invitation. Raises as `join`."""
        async with self._store.begin() as tx:
            chosen = await self._chosen(tx, caller, name)
            await teams.uninvite(tx, chosen.team.id, chosen.invitation.email)
        return chosen.team

    async def waits_for(self, tx: Tx, email: str) -> bool:
        """Whether an address may become an account because a team invited it."""
        return bool(await self._good(tx, email.lower()))

    async def take_up(self, tx: Tx, account: Account) -> None:
        """Take an account that was just made into the teams that waited for its address.

        The caller bumps `changes` once the transaction has committed.
        """
        for one in await self._good(tx, account.email):
            try:
                await self._take_in(tx, account, one.invitation)
            except Exhausted:  # the team is full: the invitation stays until its time is over
                continue

    async def _take_in(self, tx: Tx, account: Account, invitation: Invitation) -> None:
        await check_room(tx, account)
        if len(await teams.members(tx, invitation.team)) >= rules.MAX_MEMBERS:
            raise Exhausted(
                f"the team has {rules.MAX_MEMBERS} members, which is the limit",
                hint="Ask its admins",
            )
        await teams.uninvite(tx, invitation.team, invitation.email)
        await teams.put(tx, invitation.team, account.id, invitation.role, now=self._now())
        await self._grants.joined(tx, invitation.team)

    async def _good(self, tx: Tx, email: str) -> tuple[Invited, ...]:
        """Invitations of an address that hold now."""
        good = []
        for invitation, team in await teams.invited(tx, email):
            members = {member.account: member for member in await teams.members(tx, team.id)}
            roles = {account: member.role for account, member in members.items()}
            if invitation.holds(roles, now=self._now()):
                by = members[invitation.invited_by].email
                good.append(Invited(invitation=invitation, team=team, by=by))
        return tuple(good)

    async def _chosen(self, tx: Tx, caller: Caller, name: str | None) -> Invited:
        """The invitation that the caller means."""
        good = {one.team.name: one for one in await self._good(tx, caller.account.email)}
        if name is None and len(good) > 1:
            raise Invalid(f"you are invited to {len(good)} teams", hint=_which(good))
        found = next(iter(good.values()), None) if name is None else good.get(name)
        if found is None:
            raise _not_invited(name, good)
        return found


def _check_invitable(place: Place, email: str, role: Role) -> None:
    name = place.team.name
    if place.member(email) is not None:
        hint = f"Try: team role {email} {role}"
        raise Conflict(f"{email} is in team {name} already", hint=hint)
    others = [one for one in place.invited if one.email != email]
    for earlier in set(place.invited) - set(others):
        rules.check_gives(place.role, earlier.role)  # else an admin could undo what an owner did
    if len(others) >= rules.MAX_INVITED:
        raise Exhausted(
            f"{len(others)} people are invited to team {name}, which is the limit",
            hint="Wait until some have joined, or: team remove <e-mail>",
        )


def _which(names: Mapping[str, Invited]) -> str:
    return f"Say which: {', '.join(sorted(names))}"


def _not_invited(name: str | None, good: Mapping[str, Invited]) -> AtollError:
    hint = _which(good) if good else "Ask one of its admins: team add <your e-mail>"
    what = "any team" if name is None else f"a team {name[:60]!r}"
    return NotFound(f"you are not invited to {what}", hint=hint)
