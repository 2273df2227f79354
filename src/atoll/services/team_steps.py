"""What a transaction would change in the teams of one account: two pictures, and the steps between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from atoll.domain.operation import Json
from atoll.domain.team import Invitation, Role
from atoll.services.step import Step
from atoll.store import teams
from atoll.store.engine import Tx

TEAM_TABLES = frozenset({"teams", "team_members", "team_invitations"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamPicture:
    """One team that an account is in; members by address."""

    name: str
    members: Mapping[str, Role]
    invited: Mapping[str, Invitation]


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamsPicture:
    """The teams of an account by id, those it is invited to by name, and which teams there are."""

    mine: Mapping[str, TeamPicture]
    invited_to: Mapping[str, Invitation]
    ids: frozenset[str]


async def teams_picture(tx: Tx, account: str, email: str) -> TeamsPicture:
    """The account's teams as a transaction sees them."""
    mine = {}
    for team, _ in await teams.of(tx, account):
        members = {member.email: member.role for member in await teams.members(tx, team.id)}
        invited = {one.email: one for one in await teams.invitations(tx, team.id)}
        mine[team.id] = TeamPicture(name=team.name, members=members, invited=invited)
    invited_to = {team.name: one for one, team in await teams.invited(tx, email)}
    return TeamsPicture(mine=mine, invited_to=invited_to, ids=await teams.ids(tx))


def team_steps(before: TeamsPicture, after: TeamsPicture) -> Iterator[Step]:
    """What is done, and to what."""
    for id_, team in after.mine.items():
        old = before.mine.get(id_)
        if old is not None:
            yield from _changed(old, team)
        elif id_ not in before.ids:
            yield Step("create-team", {"team_name": team.name})
        else:
            yield Step(
                "join-team", {"team_name": team.name, "role": before.invited_to[team.name].role}
            )
    for id_, team in before.mine.items():
        if id_ not in after.ids:
            yield Step("remove-team", {"team_name": team.name})
        elif id_ not in after.mine:
            yield Step("leave-team", {"team_name": team.name})
    joined = {team.name for team in after.mine.values()}
    for name in before.invited_to.keys() - after.invited_to.keys() - joined:
        yield Step("decline", {"team_name": name})


def _changed(old: TeamPicture, now: TeamPicture) -> Iterator[Step]:
    team: dict[str, Json] = {"team_name": now.name}
    if old.name != now.name:
        yield Step("rename-team", {"team_name": old.name, "new_name": now.name})
    for email in old.members.keys() - now.members.keys():
        yield Step("remove-member", {**team, "email": email})
    for email, role in now.members.items():
        if (was := old.members.get(email)) not in (None, role):
            yield Step("set-role", {**team, "email": email, "role": role.value, "was": str(was)})
    new = [one for email, one in now.invited.items() if old.invited.get(email) != one]
    for one in new:
        yield Step("invite", {**team, "email": one.email, "role": one.role.value})
    # With a new one go those whose time was over anyway, and with a member what they had made.
    if not new and old.members.keys() <= now.members.keys():
        for email in old.invited.keys() - now.invited.keys():
            yield Step("uninvite", {**team, "email": email})
