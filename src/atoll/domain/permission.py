"""What a token that its holder signed may do: a strict reading of the signed JSON. Pure.

The bytes are signed as they are, so every text has one meaning or none: a key given twice, a number
that is not plainly an integer or a field we do not know is refused, never guessed at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from atoll.base.errors import Invalid

# What a token may run that names no commands: looking round, and a VM to try.
DEFAULT_CMDS = ("help", "ls", "new", "share show", "ssh-key list", "ssh-key shorten", "whoami")
TIMES = (946_684_800, 4_102_444_800)  # the years 2000 to 2100: milliseconds are no such number
MAX_CMDS = 256
_FIELDS = frozenset({"exp", "nbf", "cmds", "ctx"})
_CMD = re.compile(r"[a-z][a-z0-9-]{0,51}(?: [a-z0-9][a-z0-9-]{0,51}){0,2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """Good from `not_before` until `expires_at`, for `cmds` (verbs as in `Scope`)."""

    expires_at: int | None = None
    not_before: int | None = None
    cmds: tuple[str, ...] = DEFAULT_CMDS
    ctx: str | None = None  # for programs behind a VM's web address: compact ASCII JSON

    def refusal(self, now: float) -> str:
        """Why it is not good at `now`; empty when it is."""
        if self.expires_at is not None and now >= self.expires_at:
            return f"it ended at {self.expires_at}, and now is {int(now)}"
        if self.not_before is not None and now < self.not_before:
            return f"it begins at {self.not_before}, and now is {int(now)}"
        return ""


def parse(signed: bytes) -> Permission:
    """The permission in signed JSON. Raises Invalid naming what is wrong."""
    claims = _object(_text(signed))
    unknown = sorted(set(claims) - _FIELDS)
    if unknown:
        raise _bad(f"field {unknown[0][:40]!r} is unknown")
    cmds = claims.get("cmds", list(DEFAULT_CMDS))
    return Permission(
        expires_at=_time(claims, "exp"),
        not_before=_time(claims, "nbf"),
        cmds=_cmds(cmds),
        ctx=json.dumps(claims["ctx"], separators=(",", ":")) if "ctx" in claims else None,
    )


def _text(signed: bytes) -> str:
    try:
        text = signed.decode()
    except UnicodeDecodeError as error:
        raise _bad(f"not UTF-8 at byte {error.start}") from error
    if set(text) & set("\r\n\0"):
        raise _bad("a line break or NUL is in it; sign what `printf %s` prints")
    if not (text.startswith("{") and text.endswith("}")):
        raise _bad("not one JSON object without space around it")
    return text


def _object(text: str) -> dict[str, Any]:
    try:
        claims = json.loads(
            text,
            object_pairs_hook=_once,
            parse_float=_refuse("a number with a point or exponent is in it"),
            parse_constant=_refuse("NaN or Infinity is in it"),
        )
        json.dumps(claims, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:  # ValueError: not JSON, or a number too long
        raise _bad(f"not JSON: {str(error)[:80]}") from error
    if not isinstance(claims, dict):
        raise _bad("not one JSON object")
    return claims


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _bad("a field is given twice")
    return found


def _refuse(why: str) -> Callable[[str], NoReturn]:
    def refuse(_text: str) -> NoReturn:
        raise _bad(why)

    return refuse


def _time(claims: dict[str, Any], name: str) -> int | None:
    if name not in claims:
        return None
    value, (first, last) = claims[name], TIMES
    if type(value) is not int or not first <= value <= last:  # True is an int to isinstance
        raise _bad(f"{name} is not a whole number of seconds from {first} to {last}")
    return value


def _cmds(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_CMDS:
        raise _bad(f"cmds is not a list of at most {MAX_CMDS} commands")
    for cmd in value:
        if not isinstance(cmd, str) or not _CMD.fullmatch(cmd):
            raise _bad(f"cmds has {str(cmd)[:40]!r}, which is no command")
    return tuple(value)


def _bad(why: str) -> Invalid:
    return Invalid(f"the token's permission: {why}", hint='It looks like {"cmds":["ls","new"]}')
