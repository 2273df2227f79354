"""Teams: people who share VMs, and who of them may do what to whom. Pure.

Invariant: a team has an owner at every moment, and nobody gives a role above their own, to
themselves or to anybody else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from atoll.base.errors import Conflict, Denied, Invalid

INVITED_S = (
    24 * 3600.0
)  # as in the reference product: long enough to be read, short if it went astray
MAX_MEMBERS = 500
MAX_INVITED = 100  # per team and at a time: each may be a mail to a stranger
MAX_TEAMS = 50  # of one account
ONLY = "team"  # in `share add web team`: the one team that somebody is in
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")


class Role(StrEnum):
    """What somebody is in a team."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"


class Act(StrEnum):
    """What can be done in a team; the value goes after "an admin may not"."""

    LOOK = "see who is in it"
    LEAVE = "leave it"
    USAGE = "see what others use"
    INVITE = "invite people"
    REMOVE = "remove people"
    ROLE = "change roles"
    RENAME = "rename it"
    DISABLE = "end it"


Members = Mapping[str, Role]  # by account id
ROLE_WORDS = {
    **{role.value: role for role in Role},
    "user": Role.MEMBER,  # the reference product's words, whose scripts say so
    "billing_owner": Role.OWNER,
}
_MAY: Mapping[Role, frozenset[Act]] = {
    Role.OWNER: frozenset(Act),
    Role.ADMIN: frozenset(Act) - {Act.DISABLE},
    Role.MEMBER: frozenset({Act.LOOK, Act.LEAVE}),
}
# Whom each role invites, removes and gives roles to; and which roles it gives.
_HANDLES: Mapping[Role, frozenset[Role]] = {
    Role.OWNER: frozenset(Role),
    Role.ADMIN: frozenset({Role.ADMIN, Role.MEMBER}),
    Role.MEMBER: frozenset(),
}
_ORDER = (Role.MEMBER, Role.ADMIN, Role.OWNER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """A team; `id` never changes, so what is granted to it survives a rename."""

    id: str
    name: str
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """An address that may join a team. `invited_by` is an account id."""

    team: str
    email: str
    role: Role
    invited_by: str
    created_at: float
    expires_at: float

    def holds(self, members: Members, *, now: float) -> bool:
        """Whether it is good now: in its time, and by somebody who could still give it."""
        by = members.get(self.invited_by)
        return now < self.expires_at and by is not None and self.role in _HANDLES[by]


def may(role: Role, act: Act) -> bool:
    """Whether the role allows the act, to some extent."""
    return act in _MAY[role]


def check_may(role: Role, act: Act) -> None:
    """Raise Denied when the role does not allow the act at all."""
    if not may(role, act):
        raise Denied(
            f"{_a(role)} of a team may not {act.value}", hint="Ask those who may: team members"
        )


def check_gives(by: Role, role: Role) -> None:
    """Raise Denied when one role may not invite somebody to be another."""
    check_may(by, Act.INVITE)
    if role not in _HANDLES[by]:
        raise Denied(f"{_a(by)} of a team makes nobody {_a(role)}", hint="Ask: team members")


def with_role(members: Members, *, by: str, who: str, role: Role) -> dict[str, Role]:
    """The members after `by` gave `who` a role.

    Raises Denied, or Conflict when that would leave no owner.
    """
    actor, old = members[by], members[who]
    check_may(actor, Act.ROLE)
    if by == who and _ORDER.index(role) > _ORDER.index(old):
        raise Denied(f"{_a(old)} of a team does not raise themselves to {role}")
    if by != who and not {old, role} <= _HANDLES[actor]:
        raise Denied(
            f"{_a(actor)} of a team does not make {_a(old)} {_a(role)}", hint="Ask: team members"
        )
    return _owned({**members, who: role})


def without(members: Members, *, by: str, who: str) -> dict[str, Role]:
    """The members after `by` removed `who`; the same account: it leaves.

    Raises Denied, or Conflict when that would leave no owner.
    """
    if by != who:
        check_may(members[by], Act.REMOVE)
        if members[who] not in _HANDLES[members[by]]:
            raise Denied(
                f"{_a(members[by])} of a team does not remove {_a(members[who])}",
                hint="Ask: team members",
            )
    return _owned({account: role for account, role in members.items() if account != who})


def check_team(name: str) -> str:
    """`name` if a team may be called so (a-z, 0-9 and `-`, at most 40), else Invalid."""
    if not _NAME.fullmatch(name) or name == ONLY:
        raise Invalid(
            f"{name[:60]!r} cannot name a team", hint="Try a name like design: a-z, 0-9 and -"
        )
    return name


def _owned(members: dict[str, Role]) -> dict[str, Role]:
    if Role.OWNER not in members.values():
        raise Conflict(
            "that is the team's last owner",
            hint="Make another one first: team role <e-mail> owner, or end it: team disable --yes",
        )
    return members


def _a(role: Role) -> str:
    return f"a {role}" if role is Role.MEMBER else f"an {role}"
