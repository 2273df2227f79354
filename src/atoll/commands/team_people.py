"""Verbs about people in a team: team add, remove, role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atoll.base.errors import Invalid
from atoll.commands.context import Context
from atoll.commands.registry import Reach, Registry, Source, argument, flag, one_of
from atoll.commands.render import instant
from atoll.commands.reply import Reply
from atoll.commands.team import TEAM
from atoll.domain.email import check_email
from atoll.domain.team import ROLE_WORDS, Role

VERBS = Registry()
_ROLES = "|".join(Role)


def _role(text: str) -> Role:
    return ROLE_WORDS[one_of("role", tuple(ROLE_WORDS))(text)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Add:
    email: str = argument("e-mail", "whom to invite", convert=check_email)
    placed: str | None = argument(
        "role", "what to be in it; as --role", default=None, value=_ROLES, convert=_role
    )
    role: str | None = flag(
        "--role --as", "what to be in it", value=_ROLES, convert=_role, shown="member"
    )
    team: str | None = flag("--team", TEAM, value="TEAM", source=Source.TEAM)


@VERBS.command(
    "team add",
    help="Invite somebody to a team, for a day. They accept with `team join`; whoever has no account"
    " yet is in it once they have.",
    reach=Reach.ACCOUNT,
    mutates=True,
    examples=("team add bob@example.com", "team add bob@example.com --role admin --team design"),
    result={
        "status": "`invited`",
        "team_name": "the team",
        "email": "who is invited",
        "role": "to be what",
        "expires_at": "when the invitation ends, UTC",
    },
)
async def add(ctx: Context, args: Add) -> Reply:
    if args.placed is not None and args.role is not None:
        raise Invalid("the role is given twice", hint="Try: team add <e-mail> --role admin")
    role = Role(args.role or args.placed or Role.MEMBER)
    team, made = await ctx.cloud.team_invitations.invite(ctx.caller, args.email, role, args.team)
    until = instant(made.expires_at)
    data = {
        "status": "invited",
        "team_name": team.name,
        "email": made.email,
        "role": made.role.value,
        "expires_at": until,
    }
    text = f"{made.email} may join team {team.name} until {until}: team join {team.name}"
    return Reply(data=data, text=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    email: str = argument("e-mail", "whom to remove", convert=check_email)
    heir: str | None = flag(
        "--transfer-vms-to",
        "a member who gets the VMs that they had shared with the team with --root; of the machine's"
        " admin: all of their VMs",
        value="E-MAIL",
        convert=check_email,
    )
    team: str | None = flag("--team", TEAM, value="TEAM", source=Source.TEAM)


@VERBS.command(
    "team remove",
    help="Remove somebody from a team, or take an invitation back. What the team opened to them ends"
    " at once; their VMs stay theirs unless --transfer-vms-to says whose they are then.",
    reach=Reach.ACCOUNT,
    mutates=True,
    examples=(
        "team remove bob@example.com",
        "team remove bob@example.com --transfer-vms-to ann@example.com",
    ),
    result={"status": "`removed` or `withdrawn`", "team_name": "the team", "email": "who it was"},
    sometimes={
        "transferred": "with --transfer-vms-to: names of the VMs",
        "owner": "then also: whose they are now",
    },
)
async def remove(ctx: Context, args: Remove) -> Reply:
    withdrawn = await ctx.cloud.team_invitations.withdraw(ctx.caller, args.email, args.team)
    if withdrawn is not None:
        data = {"status": "withdrawn", "team_name": withdrawn.name, "email": args.email}
        text = f"{args.email} is not invited to team {withdrawn.name} any more"
        return Reply(data=data, text=text)
    team, moved = await ctx.cloud.handover.remove_member(
        ctx.caller, args.email, args.team, heir=args.heir, act=ctx.act
    )
    done: dict[str, Any] = {"status": "removed", "team_name": team.name, "email": args.email}
    text = f"{args.email} is not in team {team.name} any more"
    if args.heir is not None:
        names = sorted(vm.label for vm in moved)
        done |= {"transferred": names, "owner": args.heir}
        text += f"\n{args.heir} has got: {', '.join(names) or 'no VMs'}"
    return Reply(data=done, text=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRole:
    email: str = argument("e-mail", "a member", convert=check_email)
    role: str = argument("role", f"{', '.join(Role)}", value=_ROLES, convert=_role)
    team: str | None = flag("--team", TEAM, value="TEAM", source=Source.TEAM)


@VERBS.command(
    "team role",
    help="Make a member of a team its owner, an admin or a plain member. Admins do all but change"
    " owners and end the team.",
    reach=Reach.ACCOUNT,
    mutates=True,
    examples=("team role bob@example.com admin", "team role bob@example.com owner --team design"),
    result={
        "status": "`updated`",
        "team_name": "the team",
        "email": "who",
        "role": "what they are now",
        "was": "and were before",
    },
)
async def set_role(ctx: Context, args: SetRole) -> Reply:
    role = Role(args.role)
    team, was = await ctx.cloud.teams.set_role(ctx.caller, args.email, role, args.team)
    data = {
        "status": "updated",
        "team_name": team.name,
        "email": args.email,
        "role": role.value,
        "was": was.value,
    }
    return Reply(data=data, text=f"{args.email} in team {team.name}: {role}")
