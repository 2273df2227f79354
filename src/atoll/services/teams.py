"""Teams: made, renamed, ended, and what each member is. How one gets in: services.team_invitations.

Invariant: what a team may open is read from its members at the moment of asking, so leaving ends it
in the transaction of leaving; `changes` tells those who hold connections open.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from atoll.base import ids
from atoll.base.errors import Conflict, Exhausted
from atoll.domain import team as rules
from atoll.domain.account import Account, Caller
from atoll.domain.team import Act, Role, Team
from atoll.domain.vm import VmRecord
from atoll.services.changes import Changes
from atoll.services.journal import Journal
from atoll.services.team_grants import TeamGrants
from atoll.services.team_place import Place, find_place, places
from atoll.store import teams, vms
from atoll.store.engine import Store, Tx
from atoll.store.teams import Member


class Teams:
    """Reads and changes teams."""

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

    async def new(self, caller: Caller, name: str) -> Team:
        """Make a team and be its owner.

        Raises Invalid, Conflict when the name is taken, or Exhausted.
        """
        now = self._now()
        team = Team(id=ids.new("team"), name=rules.check_team(name), created_at=now)
        async with self._store.begin() as tx:
            await check_room(tx, caller.account)
            await _check_free(tx, name)
            await teams.add(tx, team)
            await teams.put(tx, team.id, caller.account.id, Role.OWNER, now=now)
        return team

    async def of(self, caller: Caller) -> tuple[Place, ...]:
        """The teams the caller is in, by name."""
        async with self._store.read() as tx:
            return await places(tx, caller, now=self._now())

    async def find(self, caller: Caller, name: str | None) -> Place:
        """One of them; raises NotFound, or Invalid when a name is needed to tell which."""
        async with self._store.read() as tx:
            return await find_place(tx, caller, name, now=self._now())

    async def owned(
        self, caller: Caller, name: str | None
    ) -> tuple[Team, dict[Member, tuple[VmRecord, ...]]]:
        """The VMs of each member; a plain member is told of their own alone."""
        async with self._store.read() as tx:
            place = await find_place(tx, caller, name, now=self._now())
            everybody = rules.may(place.role, Act.USAGE)
            seen = [m for m in place.members if everybody or m.account == caller.account.id]
            found = await vms.owned_by(tx, {member.account for member in seen})
        return place.team, {
            member: tuple(vm for vm in found if vm.owner == member.account) for member in seen
        }

    async def leave(self, caller: Caller, name: str | None) -> Team:
        """Leave a team. Raises NotFound, or Conflict for the last owner."""
        async with self._store.begin() as tx:
            place = await find_place(tx, caller, name, now=self._now())
            me = caller.account.id
            await take_out(tx, place, self._grants, by=me, who=me)
        self._changed()
        return place.team

    async def set_role(
        self, caller: Caller, email: str, role: Role, name: str | None
    ) -> tuple[Team, Role]:
        """Give a member another role; returns the team and the role before. Raises as the rules do."""
        async with self._store.begin() as tx:
            place = await find_place(tx, caller, name, now=self._now())
            rules.check_may(place.role, Act.ROLE)
            member = place.find(email)
            rules.with_role(place.roles, by=caller.account.id, who=member.account, role=role)
            await teams.put(tx, place.team.id, member.account, role, now=self._now())
        return place.team, member.role

    async def rename(self, caller: Caller, new: str, name: str | None) -> Team:
        """Call a team something else; returns it as it was. Raises Denied, Invalid or Conflict."""
        rules.check_team(new)
        async with self._store.begin() as tx:
            place = await find_place(tx, caller, name, now=self._now())
            rules.check_may(place.role, Act.RENAME)
            if new != place.team.name:
                await _check_free(tx, new)
                await teams.rename(tx, place.team.id, new)
        return place.team

    async def disable(self, caller: Caller, name: str | None) -> Team:
        """End a team: nobody is in it any more, and what was granted to it ends. Raises Denied."""
        async with self._store.begin() as tx:
            place = await find_place(tx, caller, name, now=self._now())
            rules.check_may(place.role, Act.DISABLE)
            await self._grants.ended(tx, place.team.id)
            await teams.remove(tx, place.team.id)
        self._changed()
        return place.team

    def _changed(self) -> None:
        """Who is in a team has changed."""
        self._changes.bump()
        self._journal.wake()


async def take_out(tx: Tx, place: Place, team_grants: TeamGrants, *, by: str, who: str) -> None:
    """Take a member out, in a transaction of a caller that tells of it after that.

    Raises Denied, or Conflict for the last owner.
    """
    rules.without(place.roles, by=by, who=who)
    await teams.drop(tx, place.team.id, who)
    await team_grants.left(tx, place.team.id, who)


async def check_room(tx: Tx, account: Account) -> None:
    """Raise Exhausted when an account is in as many teams as one may be."""
    if len(await teams.of(tx, account.id)) >= rules.MAX_TEAMS:
        raise Exhausted(
            f"you are in {rules.MAX_TEAMS} teams, which is the limit",
            hint="Try: team leave <team>",
        )


async def _check_free(tx: Tx, name: str) -> None:
    if await teams.named(tx, name) is not None:
        raise Conflict(f"the team name {name!r} is taken", hint="Try another name")
