"""What VMs used over time: growth between readings, folding, points; and who may see them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import fields, replace
from functools import reduce
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import NotFound
from atoll.domain.usage import (
    COUNTERS,
    MAX_GAP_S,
    Growth,
    Point,
    Range,
    Reading,
    Sizes,
    Use,
    fold,
    growth,
    points,
)
from atoll.rpc.messages import GIB
from atoll.store import samples, vms
from fakes.engine import FakeEngine
from framework.cloud import START, Control, control

FIRST = Reading(process="1-1", since_boot_s=100.0, cpu_seconds=5.0, network_rx_bytes=1000)
SIZES = Sizes(memory_used_bytes=10, memory_total_bytes=GIB, disk_used_bytes=7, disk_size_bytes=9,
              cpus=1)  # fmt: skip

times = st.floats(min_value=0, max_value=4e9)
amounts = st.integers(min_value=0, max_value=1 << 50)
growths = st.builds(
    Growth,
    seconds=st.integers(0, 150).map(float),
    cpu_seconds=st.integers(0, 9000).map(float),
    **{name: amounts for name in COUNTERS if name.endswith("_bytes")},
)
sizes = st.builds(
    Sizes,
    cpus=st.integers(1, 64),
    **{field.name: amounts for field in fields(Sizes) if field.name != "cpus"},
)
uses = st.builds(Use, growths, sizes)
readings = st.builds(
    Reading,
    process=st.sampled_from(("1-1", "1-2")),
    since_boot_s=st.floats(min_value=0, max_value=1e6),
    cpu_seconds=st.floats(min_value=0, max_value=1e6),
    **{name: amounts for name in COUNTERS if name.endswith("_bytes")},
)


# --- growth ---


def test_growth_between_two_readings() -> None:
    later = replace(FIRST, since_boot_s=160.0, cpu_seconds=35.0, network_rx_bytes=1600)
    assert growth(FIRST, later) == Growth(seconds=60.0, cpu_seconds=30.0, network_rx_bytes=600)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (None, FIRST),
        # Restarted: more of everything or less of it, that is no growth.
        (FIRST, Reading(process="2-9", since_boot_s=160.0, cpu_seconds=90.0)),
        (FIRST, Reading(process="2-9", since_boot_s=160.0, cpu_seconds=1.0)),
        # The machine was booted, and by chance the process has the same number and age.
        (FIRST, replace(FIRST, since_boot_s=3.0)),
        (FIRST, FIRST),
        # Control was away.
        (FIRST, replace(FIRST, since_boot_s=101.0 + MAX_GAP_S, cpu_seconds=9.0)),
        # One counter began anew: none of them is believed.
        (FIRST, replace(FIRST, since_boot_s=160.0, network_rx_bytes=0, cpu_seconds=9.0)),
    ],
)
def test_growth_that_is_not_known(before: Reading | None, now: Reading) -> None:
    assert growth(before, now) == Growth()


@given(readings, readings)
def test_growth_is_never_negative_nor_of_another_process(before: Reading, now: Reading) -> None:
    grown = growth(before, now)
    assert 0 <= grown.seconds <= MAX_GAP_S
    for name in COUNTERS:
        assert 0 <= getattr(grown, name) <= getattr(now, name)
    if before.process != now.process:
        assert grown == Growth()


# --- folding ---


def test_a_span_has_the_most_of_the_memory_and_the_last_of_the_rest() -> None:
    later = Sizes(memory_used_bytes=3, memory_total_bytes=2 * GIB, disk_used_bytes=5,
                  disk_size_bytes=99, cpus=4)  # fmt: skip
    both = fold(
        Use(Growth(seconds=60.0, io_read_bytes=1), SIZES),
        Use(Growth(seconds=30.0, io_read_bytes=2), later),
    )
    assert both.growth == Growth(seconds=90.0, io_read_bytes=3)
    assert both.sizes == replace(later, memory_used_bytes=10)


@given(st.lists(uses, min_size=2, max_size=8), st.data())
def test_it_is_the_same_however_it_is_cut(parts: list[Use], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(parts) - 1))
    whole = reduce(fold, parts)
    assert fold(reduce(fold, parts[:cut]), reduce(fold, parts[cut:])) == whole
    assert whole.growth.seconds == sum(part.growth.seconds for part in parts)
    assert whole.sizes.memory_used_bytes == max(part.sizes.memory_used_bytes for part in parts)


# --- points ---


@pytest.mark.parametrize(
    ("range_", "span_s", "count"),
    [(Range.DAY, 300, 288), (Range.WEEK, 1800, 336), (Range.MONTH, 7200, 360)],
)
def test_ranges(range_: Range, span_s: int, count: int) -> None:
    assert (range_.span_s, range_.points) == (span_s, count)


@given(st.sampled_from(Range), times)
def test_points_are_evenly_spaced_and_end_now(range_: Range, now: float) -> None:
    found = [point.at for point in points(range_, now, {})]
    assert len(found) == range_.points
    assert found[-1] <= now < found[-1] + range_.span_s
    assert {b - a for a, b in pairwise(found)} == {range_.span_s}
    assert all(at % range_.span_s == 0 for at in found)


def test_a_point_has_averages_of_what_was_seen() -> None:
    last = Range.DAY.start(START)
    grown = Growth(seconds=60.0, cpu_seconds=30.0, network_tx_bytes=600, io_write_bytes=60)
    found = points(Range.DAY, START, {last: Use(grown, SIZES), last - 300: Use(Growth(), SIZES)})
    assert found[-1] == Point(
        at=last, cpu_cores=0.5, network_rx_bytes_per_s=0.0, network_tx_bytes_per_s=10.0,
        io_read_bytes_per_s=0.0, io_write_bytes_per_s=1.0, memory_used_bytes=10,
        memory_total_bytes=GIB, disk_used_bytes=7, disk_size_bytes=9, cpus=1,
    )  # fmt: skip
    assert found[-2] == Point(
        at=last - 300, memory_used_bytes=10, memory_total_bytes=GIB, disk_used_bytes=7,
        disk_size_bytes=9, cpus=1,
    )  # fmt: skip
    assert [point.is_gap for point in found[-3:]] == [True, False, False]
    assert found[-3] == Point(at=last - 600)


# --- for callers ---


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Control]:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving(), control(tmp_path / "control", engine) as made:
        await made.run("new --name web")
        yield made


async def test_points_of_a_vm_are_its_owners(cloud: Control) -> None:
    start = Range.WEEK.start(START)
    async with cloud.store.begin() as tx:
        web = await vms.named(tx, "web")
        assert web is not None
        for at in (start - 7 * 86_400, start - 1800, start + 1800):  # too old, now, not yet
            await samples.put(tx, Range.WEEK, at, {web.id: Use(Growth(), SIZES)})
    found = await cloud.cloud.usage.points(cloud.ann, "web", Range.WEEK)
    assert [point.at for point in found if not point.is_gap] == [start - 1800]
    assert len(found) == Range.WEEK.points
    found = await cloud.cloud.usage.points(cloud.ann, "web", Range.DAY)
    assert all(point.is_gap for point in found)
    with pytest.raises(NotFound):
        await cloud.cloud.usage.points(cloud.bob, "web", Range.DAY)
