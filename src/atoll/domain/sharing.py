"""Who may open what of a VM: grants as their givers made them, openings as the edge checks them. Pure.

A grant names a person by address, a team, or everybody. An opening names an account; it is what
grants come to once it is known whose the address is and who is in the team. Deny by default: what no
opening covers is closed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

DEFAULT_PORT = 0  # of a grant: the VM's own web port, whatever it is
EVERY_PORT = 0  # of an opening
EVERYBODY = "*"  # as the account of an opening
WHOLE = "/"
PATH_CHARS = 200

# What every server reads as the same path: letters without a second meaning; no segment that is empty,
# `.` or `..`; of percent-encodings none that stands for `/ \ . ; %`, a control character, or a byte that
# begins an overlong UTF-8 sequence. The edge's rules have this very text, so it holds no quote.
PLAIN_PATH = (
    r"(?=/)(?:/(?!/|$|\.{1,2}(?:/|$|%))"
    r"(?:[!$&-.0-9:=@A-Z_a-z~]|%(?!2[5eEfF]|5[cC]|3[bB]|[01]|7[fF]|[cC][01])[0-9A-Fa-f]{2})+)*/?"
)
_PLAIN = re.compile(PLAIN_PATH)


class Level(StrEnum):
    """How far a grant goes: `web` is one web address, `root` is SSH, terminals and every port."""

    WEB = "web"
    ROOT = "root"


class Who(StrEnum):
    """What kind of receiver a grant names."""

    PERSON = "person"
    TEAM = "team"
    PUBLIC = "public"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What of a VM is meant: a port, and what is below a path. The default is the whole web address."""

    port: int = DEFAULT_PORT
    path: str = WHOLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One row of who may open a VM.

    `who` is an e-mail address in lower case, a team's id, or empty for everybody. `port` is
    DEFAULT_PORT or one port inside; `path` is a prefix that ends before a `/`, or WHOLE.
    """

    id: str
    vm: str
    kind: Who
    who: str
    level: Level = Level.WEB
    port: int = DEFAULT_PORT
    path: str = WHOLE
    created_at: float
    created_by: str  # account id
    expires_at: float | None = None
    link: str | None = None  # id of the link by which they came

    def is_over(self, now: float) -> bool:
        """True once its time has ended."""
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A web address that gives a grant to whoever opens it and signs in."""

    id: str
    vm: str
    port: int = DEFAULT_PORT
    path: str = WHOLE
    created_at: float
    created_by: str
    expires_at: float | None = None
    use_count: int = 0
    last_used_at: float | None = None

    def is_over(self, now: float) -> bool:
        """True once its time has ended."""
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """An account may open this port and what is below this path, until then.

    One for EVERY_PORT is for the whole of each.
    """

    account: str  # or EVERYBODY
    port: int  # or EVERY_PORT
    path: str = WHOLE
    until: float | None = None

    def __post_init__(self) -> None:
        assert self.port != EVERY_PORT or self.path == WHOLE, self

    def covers(self, *, port: int, path: str, now: float) -> bool:
        """True for a request to a port inside and a path, spelled as the client did."""
        if self.until is not None and self.until <= now:
            return False
        return self.port in (EVERY_PORT, port) and is_below(path, self.path)

    def is_within(self, other: Opening) -> bool:
        """True when `other` opens all of this to the same account, and for as long."""
        if other.account != self.account or other.port not in (EVERY_PORT, self.port):
            return False
        lasts = other.until is None or (self.until is not None and self.until <= other.until)
        return lasts and is_below(self.path, other.path)


def whom(grants: Iterable[Grant], kind: Who) -> frozenset[str]:
    """The receivers of a kind that grants name."""
    return frozenset(grant.who for grant in grants if grant.kind is kind)


def openings(
    grants: Iterable[Grant],
    *,
    owner: str,
    port: int,
    accounts: Mapping[str, str],
    teams: Mapping[str, Iterable[str]],
) -> frozenset[Opening]:
    """What these grants of one VM come to, its owner's own included.

    `accounts` are ids by address, `teams` ids of members by team; `port` is the VM's own.
    """
    found = {Opening(account=owner, port=EVERY_PORT)}
    for grant in grants:
        # An account is not opened more by a grant to itself: it owns all.
        for account in set(_receivers(grant, accounts, teams)) - {owner}:
            found.add(_opening(grant, account, port))
    return frozenset(found)


def _receivers(
    grant: Grant, accounts: Mapping[str, str], teams: Mapping[str, Iterable[str]]
) -> Iterable[str]:
    match grant.kind:
        case Who.PUBLIC:
            return (EVERYBODY,)
        case Who.TEAM:
            return teams.get(grant.who, ())
        case Who.PERSON:
            return (accounts[grant.who],) if grant.who in accounts else ()


def _opening(grant: Grant, account: str, port: int) -> Opening:
    if grant.level is Level.ROOT:
        return Opening(account=account, port=EVERY_PORT, until=grant.expires_at)
    at = port if grant.port == DEFAULT_PORT else grant.port
    return Opening(account=account, port=at, path=grant.path, until=grant.expires_at)


def may_open(
    given: Iterable[Opening], account: str | None, *, port: int, path: str, now: float
) -> bool:
    """Whether an account (None: nobody signed in) may send this request; the edge decides the same."""
    who = (EVERYBODY, account)
    return any(one.account in who and one.covers(port=port, path=path, now=now) for one in given)


def is_plain(path: str) -> bool:
    """Whether all servers read this path alike. Others are covered by grants of a whole site only."""
    return _PLAIN.fullmatch(path) is not None


def is_below(path: str, prefix: str) -> bool:
    """Whether a path is the prefix itself or below it, for whoever reads it."""
    if prefix == WHOLE:
        return True
    return is_plain(path) and f"{path}/".startswith(f"{prefix}/")
