"""Verbs for teams one is in: team new, ls, members, rename, disable, leave, join."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atoll.base.errors import Invalid, NotFound
from atoll.commands.context import Context
from atoll.commands.registry import Nothing, Reach, Registry, Source, argument, flag
from atoll.commands.render import instant, table
from atoll.commands.reply import Reply
from atoll.domain.team import Act, may
from atoll.services.team_invitations import Invited
from atoll.services.team_place import Place

VERBS = Registry()
TEAM = "which team; may be left out by whoever is in one only"


@dataclass(frozen=True, slots=True, kw_only=True)
class New:
    name: str = argument("name", "what to call it: a-z, 0-9 and -")


@dataclass(frozen=True, slots=True, kw_only=True)
class OneTeam:
    team: str | None = argument("team", TEAM, default=None, source=Source.TEAM)


@VERBS.command(
    "team new",
    help="Make a team of which you are the owner. VMs are shared with it by `share add`.",
    reach=Reach.ACCOUNT,
    mutates=True,
    examples=("team new design",),
    result={"status": "`created`", "team_id": "its id", "team_name": "its name", "role": "`owner`"},
)
async def new(ctx: Context, args: New) -> Reply:
    team = await ctx.cloud.teams.new(ctx.caller, args.name)
    data = {"status": "created", "team_id": team.id, "team_name": team.name, "role": "owner"}
    return Reply(data=data, text=f"made team {team.name}; invite people: team add <e-mail>")


@VERBS.command(
    "team ls",
    help="List the teams you are in, and those you are invited to.",
    reach=Reach.ACCOUNT,
    aliases=("team list", "team"),
    examples=("team ls",),
    result={
        "teams": "one entry per team: `team_id`, `team_name`, `role` (yours), `members` (how many),"
        " `created_at`",
        "invitations": "one entry per invitation to you: `team_name`, `role`, `invited_by`,"
        " `expires_at`",
    },
)
async def ls(ctx: Context, args: Nothing) -> Reply:
    places = await ctx.cloud.teams.of(ctx.caller)
    invited = await ctx.cloud.team_invitations.of(ctx.caller)
    rows = [(place.team.name, str(place.role), str(len(place.members)), "") for place in places] + [
        (
            one.team.name,
            str(one.invitation.role),
            "",
            f"{one.by} invites you until {instant(one.invitation.expires_at)}:"
            f" team join {one.team.name}",
        )
        for one in invited
    ]
    return Reply(
        data={"teams": list(map(_team, places)), "invitations": list(map(_invited, invited))},
        text=table(("TEAM", "ROLE", "MEMBERS", "NOTE"), rows) if rows else "No teams",
    )


def _team(place: Place) -> dict[str, Any]:
    return {
        "team_id": place.team.id,
        "team_name": place.team.name,
        "role": place.role.value,
        "members": len(place.members),
        "created_at": instant(place.team.created_at),
    }


def _invited(one: Invited) -> dict[str, Any]:
    return {
        "team_name": one.team.name,
        "role": one.invitation.role.value,
        "invited_by": one.by,
        "expires_at": instant(one.invitation.expires_at),
    }


@VERBS.command(
    "team members",
    help="List who is in a team, and for its admins who is invited.",
    reach=Reach.ACCOUNT,
    examples=("team members", "team members design"),
    result={
        "team_id": "its id",
        "team_name": "its name",
        "role": "yours: `owner`, `admin` or `member`",
        "members": "one entry per member: `email`, `role`, `since`",
    },
    sometimes={"invited": "for owners and admins: `email`, `role`, `expires_at`"},
)
async def members(ctx: Context, args: OneTeam) -> Reply:
    place = await ctx.cloud.teams.find(ctx.caller, args.team)
    data: dict[str, Any] = {
        "team_id": place.team.id,
        "team_name": place.team.name,
        "role": place.role.value,
        "members": [
            {"email": member.email, "role": member.role.value, "since": instant(member.since)}
            for member in place.members
        ],
    }
    rows = [(one.email, str(one.role), f"since {instant(one.since)}") for one in place.members]
    if may(place.role, Act.INVITE):
        data["invited"] = [
            {"email": one.email, "role": one.role.value, "expires_at": instant(one.expires_at)}
            for one in place.invited
        ]
    rows += [
        (one.email, str(one.role), f"invited until {instant(one.expires_at)}")
        for one in place.invited
    ]
    return Reply(data=data, text=table(("E-MAIL", "ROLE", place.team.name.upper()), rows))


@VERBS.command(
    "team join",
    help="Accept an invitation to a team.",
    reach=Reach.ACCOUNT,
    mutates=True,
    examples=("team join design", "team join"),
    result={
        "status": "`joined`",
        "team_id": "its id",
        "team_name": "its name",
        "role": "yours now",
    },
)
async def join(ctx: Context, args: OneTeam) -> Reply:
    team, role = await ctx.cloud.team_invitations.join(ctx.caller, args.team)
    data = {"status": "joined", "team_id": team.id, "team_name": team.name, "role": role.value}
    return Reply(data=data, text=f"you are in team {team.name}: {role}")


@VERBS.command(
    "team leave",
    help="Leave a team, or decline an invitation. What the team opened to you ends at once;"
    " your VMs stay yours.",
    reach=Reach.ACCOUNT,
    mutates=True,
    examples=("team leave design", "team leave"),
    result={"status": "`left` or `declined`", "team_name": "its name"},
)
async def leave(ctx: Context, args: OneTeam) -> Reply:
    try:
        team, status = await ctx.cloud.teams.leave(ctx.caller, args.team), "left"
    except NotFound as not_in_it:
        try:
            team = await ctx.cloud.team_invitations.decline(ctx.caller, args.team)
        except NotFound:
            raise not_in_it from None
        status = "declined"
    said = "you left" if status == "left" else "you declined"
    return Reply(data={"status": status, "team_name": team.name}, text=f"{said} team {team.name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rename:
    new: str = argument("new", "what to call it")
    team: str | None = flag("--team", TEAM, value="TEAM", source=Source.TEAM)


@VERBS.command(
    "team rename",
    help="Call a team something else. What is shared with it stays so.",
    reach=Reach.ACCOUNT,
    mutates=True,
    examples=("team rename studio", "team rename studio --team design"),
    result={"status": "`renamed`", "team_id": "its id", "old_name": "before", "new_name": "now"},
)
async def rename(ctx: Context, args: Rename) -> Reply:
    team = await ctx.cloud.teams.rename(ctx.caller, args.new, args.team)
    data = {"status": "renamed", "team_id": team.id, "old_name": team.name, "new_name": args.new}
    return Reply(data=data, text=f"team {team.name} is now {args.new}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Disable:
    team: str | None = argument("team", TEAM, default=None, source=Source.TEAM)
    yes: bool = flag("--yes", "yes, end it for everybody in it", default=False)


@VERBS.command(
    "team disable",
    help="End a team: what was shared with it ends at once, its members' VMs stay theirs.",
    reach=Reach.ACCOUNT,
    mutates=True,
    examples=("team disable design --yes", "team disable design --yes --dry-run"),
    result={"status": "`disabled`", "team_name": "its name"},
)
async def disable(ctx: Context, args: Disable) -> Reply:
    if not args.yes:
        place = await ctx.cloud.teams.find(ctx.caller, args.team)
        raise Invalid(
            f"that ends team {place.team.name} for its {len(place.members)} members",
            hint=f"Try: team disable {place.team.name} --yes",
        )
    team = await ctx.cloud.teams.disable(ctx.caller, args.team)
    return Reply(
        data={"status": "disabled", "team_name": team.name}, text=f"team {team.name} is no more"
    )
