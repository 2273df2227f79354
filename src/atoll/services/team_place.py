"""Finding a team for a caller: what its members see of it, and what nobody else does.

A team that one is not in is "not found", as a VM of somebody else's is. Its name may be left out by
whoever is in one only.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from atoll.base.errors import Invalid, NotFound
from atoll.domain.account import Caller
from atoll.domain.email import check_email
from atoll.domain.team import Act, Invitation, Members, Role, Team, may
from atoll.store import teams
from atoll.store.engine import Tx
from atoll.store.teams import Member


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A team as one of its members sees it; `invited` is for those who invite."""

    team: Team
    role: Role
    members: tuple[Member, ...]
    invited: tuple[Invitation, ...] = ()

    @property
    def roles(self) -> Members:
        """What each account is."""
        return {member.account: member.role for member in self.members}

    def member(self, email: str) -> Member | None:
        """Who has this address, if it is somebody in the team."""
        return next((member for member in self.members if member.email == email), None)

    def find(self, email: str) -> Member:
        """The same; raises NotFound, or Invalid for what is no address."""
        member = self.member(check_email(email))
        if member is None:
            name = self.team.name
            raise NotFound(
                f"{email[:60]!r} is not in team {name}", hint=f"Try: team members {name}"
            )
        return member


async def places(tx: Tx, caller: Caller, *, now: float) -> tuple[Place, ...]:
    """The teams the caller is in, by name."""
    mine = await teams.of(tx, caller.account.id)
    return tuple([await _place(tx, team, role, now=now) for team, role in mine])


async def find_place(tx: Tx, caller: Caller, name: str | None, *, now: float) -> Place:
    """One of them; raises NotFound, or Invalid when a name is needed to tell which."""
    mine = {team.name: (team, role) for team, role in await teams.of(tx, caller.account.id)}
    if name is None and len(mine) > 1:
        raise Invalid(f"you are in {len(mine)} teams", hint=f"Say which: {', '.join(mine)}")
    found = next(iter(mine.values()), None) if name is None else mine.get(name)
    if found is not None:
        return await _place(tx, *found, now=now)
    if name is None:
        raise NotFound("you are in no team", hint="Try: team new <name>")
    near = difflib.get_close_matches(name[:60], mine, n=1)
    hint = f"Did you mean {near[0]}?" if near else "Try: team ls"
    raise NotFound(f"team {name[:60]!r} not found", hint=hint)


async def _place(tx: Tx, team: Team, role: Role, *, now: float) -> Place:
    place = Place(team=team, role=role, members=await teams.members(tx, team.id))
    if not may(role, Act.INVITE):
        return place
    found = await teams.invitations(tx, team.id)
    holding = tuple(one for one in found if one.holds(place.roles, now=now))
    return Place(team=team, role=role, members=place.members, invited=holding)
