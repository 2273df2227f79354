"""Teams, their members and invitations. What may be written is `domain.team`'s to say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, delete, insert, select, update

from atoll.domain.team import Invitation, Role, Team
from atoll.store.engine import Tx
from atoll.store.schema import accounts, team_invitations, team_members, teams


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Somebody in a team."""

    account: str
    email: str
    role: Role
    since: float


async def add(tx: Tx, team: Team) -> None:
    """Store a new team; the caller has checked that the name is free, and adds its owner."""
    values = {column.name: getattr(team, column.name) for column in teams.c}
    await tx.execute(insert(teams).values(values))


async def named(tx: Tx, name: str) -> Team | None:
    """The team that has this name now."""
    row = (await tx.execute(select(teams).where(teams.c.name == name))).one_or_none()
    return Team(**row._mapping) if row else None


async def names(tx: Tx, ids: Collection[str]) -> dict[str, str]:
    """What some teams are called, by id."""
    rows = await tx.execute(select(teams.c.id, teams.c.name).where(teams.c.id.in_(ids)))
    return {row.id: row.name for row in rows}


async def ids(tx: Tx) -> frozenset[str]:
    """Ids of all teams."""
    return frozenset((await tx.execute(select(teams.c.id))).scalars())


async def rename(tx: Tx, team: str, name: str) -> None:
    """Call a team something else; the caller has checked that the name is free."""
    await tx.execute(update(teams).where(teams.c.id == team).values(name=name))


async def remove(tx: Tx, team: str) -> None:
    """Forget a team, who is in it and who is invited."""
    await tx.execute(delete(teams).where(teams.c.id == team))


async def of(tx: Tx, account: str) -> tuple[tuple[Team, Role], ...]:
    """The teams an account is in, by name, and what it is there."""
    query = select(teams, team_members.c.role).join_from(teams, team_members)
    rows = await tx.execute(query.where(team_members.c.account == account).order_by(teams.c.name))
    return tuple(
        (Team(id=row.id, name=row.name, created_at=row.created_at), Role(row.role)) for row in rows
    )


async def members(tx: Tx, team: str) -> tuple[Member, ...]:
    """Who is in a team, in the order they came."""
    query = select(team_members, accounts.c.email).join_from(team_members, accounts)
    query = query.where(team_members.c.team == team)
    rows = await tx.execute(query.order_by(team_members.c.since, accounts.c.email))
    return tuple(
        Member(account=row.account, email=row.email, role=Role(row.role), since=row.since)
        for row in rows
    )


async def everybody(tx: Tx, ids: Collection[str] | None = None) -> dict[str, frozenset[str]]:
    """Account ids by team id, of these teams or of all: what a grant to a team means at this moment."""
    query = select(team_members.c.team, team_members.c.account)
    if ids is not None:
        query = query.where(team_members.c.team.in_(ids))
    found: dict[str, set[str]] = defaultdict(set)
    for row in await tx.execute(query):
        found[row.team].add(row.account)
    return {team: frozenset(inside) for team, inside in found.items()}


async def put(tx: Tx, team: str, account: str, role: Role, *, now: float) -> None:
    """Take an account into a team, or change its role there."""
    mine = (team_members.c.team == team) & (team_members.c.account == account)
    done = await tx.execute(update(team_members).where(mine).values(role=role.value))
    if not done.rowcount:
        values = {"team": team, "account": account, "role": role.value, "since": now}
        await tx.execute(insert(team_members).values(values))


async def drop(tx: Tx, team: str, account: str) -> None:
    """Take an account out of a team; what it invited goes with it."""
    mine = (team_members.c.team == team) & (team_members.c.account == account)
    await tx.execute(delete(team_members).where(mine))
    invited = (team_invitations.c.team == team) & (team_invitations.c.invited_by == account)
    await tx.execute(delete(team_invitations).where(invited))


async def invite(tx: Tx, invitation: Invitation) -> None:
    """Store an invitation, in place of an earlier one of the same address."""
    await uninvite(tx, invitation.team, invitation.email)
    values = {column.name: getattr(invitation, column.name) for column in team_invitations.c}
    await tx.execute(insert(team_invitations).values(values | {"role": invitation.role.value}))


async def uninvite(tx: Tx, team: str, email: str) -> bool:
    """Forget an invitation; False when there was none."""
    gone = (team_invitations.c.team == team) & (team_invitations.c.email == email)
    return (await tx.execute(delete(team_invitations).where(gone))).rowcount > 0


async def forget_expired(tx: Tx, team: str, *, now: float) -> None:
    """Drop a team's invitations whose time is over."""
    over = (team_invitations.c.team == team) & (team_invitations.c.expires_at <= now)
    await tx.execute(delete(team_invitations).where(over))


async def invitations(tx: Tx, team: str) -> tuple[Invitation, ...]:
    """A team's invitations, oldest first, whether they hold or not."""
    return tuple(found for found, _ in await _invited(tx, team_invitations.c.team == team))


async def invited(tx: Tx, email: str) -> tuple[tuple[Invitation, Team], ...]:
    """To which teams an address is invited, whether that holds or not."""
    return await _invited(tx, team_invitations.c.email == email)


async def _invited(tx: Tx, condition: ColumnElement[bool]) -> tuple[tuple[Invitation, Team], ...]:
    query = select(team_invitations, teams).join_from(team_invitations, teams).where(condition)
    rows = await tx.execute(query.order_by(team_invitations.c.created_at, team_invitations.c.email))
    found = []
    for row in rows:
        values: dict[str, Any] = {c.name: row._mapping[c] for c in team_invitations.c}
        team = Team(**{column.name: row._mapping[column] for column in teams.c})
        found.append((Invitation(**values | {"role": Role(values["role"])}), team))
    return tuple(found)
