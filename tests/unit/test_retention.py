"""Policies of a VM's history: as text, when one is due, and which stay while they age."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import Invalid
from atoll.domain.retention import (
    DEFAULT,
    MOST_POINTS,
    OFF,
    Policy,
    Rule,
    next_due,
    parse,
    show,
    too_many,
)
from atoll.domain.snapshot import Reason, Snapshot

MINUTE, HOUR, DAY = 60, 3600, 86_400
NOW = 1_800_000_000.0

RULES = st.builds(
    lambda every, times: Rule(every_s=every * MINUTE, keep_s=every * MINUTE * times),
    st.integers(5, 3000),
    st.integers(1, 20),
)
POLICIES = st.lists(RULES, min_size=1, max_size=6, unique_by=lambda rule: rule.every_s).map(
    lambda rules: tuple(sorted(rules))
)
GAPS = st.lists(st.integers(1, 3 * DAY) | st.integers(1, HOUR), min_size=1, max_size=60)


def point(at: float, reason: Reason = Reason.HISTORY) -> Snapshot:
    name = f"{reason.value}-{at}"
    return Snapshot(
        id=name, vm="vm-1", name=name, reason=reason, is_clean=True, has_memory=False, created_at=at
    )


def taken(gaps: list[int]) -> list[Snapshot]:
    """One after each of these gaps, the first of them after NOW."""
    times = [NOW + sum(gaps[: count + 1]) for count in range(len(gaps))]
    return list(map(point, times))


def left(policy: Policy, held: list[Snapshot], now: float) -> list[Snapshot]:
    gone = too_many(policy, held, now=now)
    return [one for one in held if one not in gone]


# -- text


def test_the_default_as_text() -> None:
    assert show(DEFAULT) == "15m:2h,1h:1d,1d:7d,7d:30d"
    assert parse(show(DEFAULT)) == parse("default") == DEFAULT
    assert (parse("off"), show(OFF)) == (OFF, "off")
    assert parse("1d:1w,60m:24h") == parse("1h:1d,1d:7d")


@given(POLICIES)
def test_text_and_back(policy: Policy) -> None:
    assert parse(show(policy)) == policy


@pytest.mark.parametrize(
    "text",
    [
        "", ",", "15m", "15m:", ":2h", "15:2h", "15m:2h,", "15m:2h 1h:1d", "15m:2h, 1h:1d", "-15m:2h",
        "1.5h:2h", "15s:2h", "15M:2h", "on", "OFF", "default,off", "٣h:9h", "15m:2h:3d", "1h:1d\n",
        "4m:1h", "0m:1h", "0h:0h",  # too often
        "2h:1h", "1h:366d", "1h:53w", "999999d:999999d",  # too short, too long
        "1h:1d,60m:2d",  # twice the same
        "5m:1d",  # too many points
        "5m:5m,6m:6m,7m:7m,8m:8m,9m:9m,10m:10m,11m:11m",
    ],
)  # fmt: skip
def test_what_is_no_policy(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(text)
    assert caught.value.hint


def test_bounds() -> None:
    parse("5m:5m")
    parse("1d:180d")
    parse("365d:365d")
    parse(f"5m:{5 * (MOST_POINTS - 1)}m")
    with pytest.raises(Invalid, match="could keep 201"):
        parse(f"5m:{5 * MOST_POINTS}m")


# -- when


def test_one_is_due_when_the_shortest_time_is_over() -> None:
    assert next_due(DEFAULT, [NOW], now=NOW) == NOW + 15 * MINUTE
    assert next_due(DEFAULT, [NOW, NOW + 60, NOW - 60], now=NOW + 99) == NOW + 60 + 15 * MINUTE
    assert next_due(OFF, [], now=NOW) is None


def test_a_clock_that_was_ahead_stops_no_history() -> None:
    assert next_due(DEFAULT, [NOW - 60, NOW + DAY], now=NOW) == NOW - 60 + 15 * MINUTE
    assert next_due(DEFAULT, [NOW + DAY], now=NOW) == NOW


# -- which


def test_a_month_by_the_default() -> None:
    held: list[Snapshot] = []
    now = NOW
    for count in range(30 * 24 * 4):
        now = NOW + count * 15 * MINUTE
        held = left(DEFAULT, [*held, point(now)], now)
        assert len(held) <= sum(rule.points for rule in DEFAULT)
    ages = [now - one.created_at for one in held]
    assert sum(age <= 2 * HOUR for age in ages) == 9
    assert 30 <= sum(age <= DAY for age in ages) <= 33
    assert 29 * DAY - 7 * DAY <= max(ages) <= 30 * DAY


def test_only_what_history_took_goes() -> None:
    others = [point(NOW, reason) for reason in Reason if reason is not Reason.HISTORY]
    old, newest = point(NOW + 1), point(NOW + 2)
    assert too_many(DEFAULT, [*others, newest, old], now=NOW + 9 * 365 * DAY) == (old,)
    assert too_many(DEFAULT, others, now=NOW + 9 * 365 * DAY) == ()


def test_off_thins_nothing() -> None:
    assert too_many(OFF, [point(NOW), point(NOW + 1)], now=NOW + 9 * 365 * DAY) == ()


@given(POLICIES, GAPS, st.integers(0, 40 * DAY))
def test_nothing_of_the_future_goes_nor_does_it_count_as_the_newest(
    policy: Policy, gaps: list[int], later: int
) -> None:
    held, now = taken(gaps), NOW + later
    past = [one for one in held if one.created_at <= now]
    assert left(policy, held, now) == left(policy, past, now) + held[len(past) :]
    assert bool(left(policy, past, now)) == bool(past)


@given(POLICIES, GAPS, st.lists(st.integers(0, 3), min_size=60, max_size=60))
def test_thinned_all_the_time_or_once_the_same_stay(
    policy: Policy, gaps: list[int], looks: list[int]
) -> None:
    """However often somebody looks between two: the same stay in the end."""
    every = taken(gaps)
    held: list[Snapshot] = []
    for one, gap, times in zip(every, [*gaps[1:], 0], looks, strict=False):
        held.append(one)
        for look in range(times):
            held = left(policy, held, one.created_at + gap * look / 3)
    end = every[-1].created_at
    assert left(policy, held, end) == left(policy, every, end)


@given(POLICIES, st.data())
def test_gaps_are_bounded_where_snapshots_were_taken(policy: Policy, data: st.DataObject) -> None:
    """Taken at least as often as a rule says, no two neighbours within its time are twice that apart."""
    rule = data.draw(st.sampled_from(policy))
    gap = st.integers(max(1, rule.every_s // 4), rule.every_s)
    every = taken(data.draw(st.lists(gap, min_size=2, max_size=80)))
    now = every[-1].created_at
    held = left(policy, every, now)
    begin = max(now - rule.keep_s, every[0].created_at)
    seen = [begin, *(one.created_at for one in held if one.created_at >= begin)]
    assert all(after - before < 2 * rule.every_s for before, after in pairwise(seen))
    assert held[-1] == every[-1]
