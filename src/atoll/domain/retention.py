"""How often a VM's disk is kept by itself, and which of these snapshots stay as they age. Pure.

A rule keeps the oldest of each stretch of `every_s` (counted from the epoch, so the same whoever looks)
until the stretch is `keep_s` ago. What any rule keeps stays, and the newest always. The oldest of a day
is the oldest of its hour, too, so what is to be a day's is not thinned before it is.

Invariant: thinned at every moment, or once at the end, the same stay, as long as the clock does not go
back. Of what is in the future, after a clock that was wrong, nothing is thinned.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import TypeAlias

from atoll.base.errors import Invalid
from atoll.domain.snapshot import Reason, Snapshot

LEAST_S = 300  # between two; each costs a layer and holds a guest's file systems still
LONGEST_S = 365 * 86_400
MOST_RULES = 6
MOST_POINTS = 200  # of one VM
_UNITS = {"d": 86_400, "h": 3_600, "m": 60}
_PARSED = {"w": 7 * 86_400, **_UNITS}
_RULE = re.compile(r"([0-9]{1,6})([mhdw]):([0-9]{1,6})([mhdw])")
FORM = "15m:2h,1h:1d (every 15 minutes for 2 hours, hourly for a day), off or default"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Rule:
    """One of each `every_s` is kept for `keep_s`; both in seconds."""

    every_s: int
    keep_s: int

    @property
    def points(self) -> int:
        """How many it can keep: a stretch that began before the time stays until it has ended."""
        return ceil(self.keep_s / self.every_s) + 1


Policy: TypeAlias = tuple[Rule, ...]  # empty: none is taken
DEFAULT: Policy = (
    Rule(every_s=900, keep_s=7_200),
    Rule(every_s=3_600, keep_s=86_400),
    Rule(every_s=86_400, keep_s=7 * 86_400),
    Rule(every_s=7 * 86_400, keep_s=30 * 86_400),
)
OFF: Policy = ()


def parse(text: str) -> Policy:
    """`15m:2h,1h:1d`, `off` or `default`. Raises Invalid for anything else, and beyond the bounds."""
    if text == "off":
        return OFF
    if text == "default":
        return DEFAULT
    policy = tuple(sorted(map(_rule, text.split(","))))
    if len(policy) > MOST_RULES:
        raise Invalid(
            f"{len(policy)} rules are more than {MOST_RULES}", hint=f"Try: {show(DEFAULT)}"
        )
    if len({rule.every_s for rule in policy}) < len(policy):
        raise Invalid(f"two rules of {text[:70]!r} are for the same time", hint=f"Try: {FORM}")
    if (points := sum(rule.points for rule in policy)) > MOST_POINTS:
        raise Invalid(
            f"{text[:70]!r} could keep {points} snapshots, {MOST_POINTS} is the most",
            hint="Keep the frequent ones for a shorter time",
        )
    return policy


def _rule(text: str) -> Rule:
    match = _RULE.fullmatch(text)
    if not match:
        raise Invalid(f"{text[:40]!r} is not a rule of a history", hint=f"Try: {FORM}")
    every, every_unit, keep, keep_unit = match.groups()
    rule = Rule(every_s=int(every) * _PARSED[every_unit], keep_s=int(keep) * _PARSED[keep_unit])
    if rule.every_s < LEAST_S:
        raise Invalid(f"{text!r}: a snapshot every 5 minutes is the most", hint="Try: 5m:1h")
    if not rule.every_s <= rule.keep_s <= LONGEST_S:
        raise Invalid(
            f"{text!r}: each is kept at least until the next and at most a year",
            hint=f"Try: {FORM}",
        )
    return rule


def show(policy: Policy) -> str:
    """As `parse` takes it; the same for the same policy."""
    rules = (f"{_show_time(rule.every_s)}:{_show_time(rule.keep_s)}" for rule in policy)
    return ",".join(rules) or "off"


def _show_time(seconds: int) -> str:
    unit, size = next((unit, size) for unit, size in _UNITS.items() if seconds % size == 0)
    return f"{seconds // size}{unit}"


def next_due(policy: Policy, times: Iterable[float], *, now: float) -> float | None:
    """When the next one is, after `times`: when the VM was made, and snapshots of its history.

    None: never. What is in the future counts for nothing; without any it is due now.
    """
    if not policy:
        return None
    last = max((at for at in times if at <= now), default=None)
    return now if last is None else last + min(rule.every_s for rule in policy)


def too_many(policy: Policy, snapshots: Iterable[Snapshot], *, now: float) -> tuple[Snapshot, ...]:
    """Those that no rule keeps, oldest first. Without a rule all stay: nobody asked for their end.

    Never one that somebody took, or that a rollback kept.
    """
    if not policy:
        return ()
    own = [one for one in snapshots if one.reason is Reason.HISTORY and one.created_at <= now]
    own.sort(key=lambda one: (one.created_at, one.id))
    kept = {one.id for one in own[-1:]}
    for rule in policy:
        seen: set[int] = set()
        for one in own:
            stretch = int(one.created_at // rule.every_s)
            if (stretch + 1) * rule.every_s > now - rule.keep_s and stretch not in seen:
                seen.add(stretch)
                kept.add(one.id)
    return tuple(one for one in own if one.id not in kept)
