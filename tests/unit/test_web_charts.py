"""Charts: gaps stay gaps, and everything is said in words too."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from atoll.domain.usage import Range
from atoll.doors.web.charts import HEIGHT, WIDTH, charts, path

NOW = 1_800_000_000.0


def point(back: int, **values: float | None) -> dict[str, object]:
    """What was seen `back` spans ago."""
    at = Range.DAY.starts(NOW)[-1 - back]
    return {"timestamp": datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), **values}


def test_nothing_seen_is_no_chart() -> None:
    assert charts((), Range.DAY, now=NOW) == ()
    assert charts([point(0, cpu_cores=None)], Range.DAY, now=NOW) == ()


def test_a_point_stands_where_its_time_is() -> None:
    (cpu,) = charts([point(287, cpu_cores=0.5), point(0, cpu_cores=1.0)], Range.DAY, now=NOW)
    assert cpu.lines[0].path == f"M0.0 {HEIGHT / 2:.1f}h0.5M{WIDTH}.0 0.0h0.5"
    assert cpu.words == "CPU used: 0.50 vCPU to 1.00 vCPU, mean 0.75 vCPU"


def test_a_point_outside_the_range_is_left_out() -> None:
    old = point(0, cpu_cores=9.0) | {"timestamp": "2020-01-01T00:00:00Z"}
    (cpu,) = charts([old, point(1, cpu_cores=1.0)], Range.DAY, now=NOW)
    assert cpu.top == "1.00 vCPU"


def test_two_curves_share_a_scale() -> None:
    (network,) = charts([point(0, network_rx_mbps=2.0, network_tx_mbps=1.0)], Range.DAY, now=NOW)
    assert [line.label for line in network.lines] == ["in", "out"]
    assert f" {HEIGHT / 2:.1f}" in network.lines[1].path


@given(st.lists(st.none() | st.floats(0, 1e12), max_size=40))
def test_a_path_has_every_point_and_no_more(values: list[float | None]) -> None:
    known = [value for value in values if value is not None]
    drawn = path(values, max(known, default=0) or 1.0)
    assert len(re.findall("[ML]", drawn)) == len(known)
    assert drawn.count("M") == sum(
        value is not None and (number == 0 or values[number - 1] is None)
        for number, value in enumerate(values)
    )
    for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", drawn):
        assert 0 <= float(x) <= WIDTH
        assert 0 <= float(y) <= HEIGHT
