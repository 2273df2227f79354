"""Charts of what a VM used, as SVG that says in words what it shows. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from atoll.base.units import show_size
from atoll.domain.usage import Range

WIDTH, HEIGHT = 600, 120  # of the drawing; the page scales it
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve: a path, broken where nothing was measured, and its numbers in words."""

    label: str
    path: str
    low: str
    mean: str
    high: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Curves on one scale from 0 to `top`."""

    title: str
    top: str
    lines: tuple[Line, ...]

    @property
    def words(self) -> str:
        """What somebody who does not see it is told."""
        return "; ".join(
            f"{self.title} {line.label}: {line.low} to {line.high}, mean {line.mean}"
            for line in self.lines
        )


Show = Callable[[float], str]


def _cores(value: float) -> str:
    return f"{value:.2f} vCPU"


def _gb(value: float) -> str:
    return f"{value:.2f} GB"


def _size(value: float) -> str:
    return show_size(int(value) // _MIB * _MIB)


def _rate(value: float) -> str:
    return f"{value:.2f} Mbit/s"


_CHARTS: tuple[tuple[str, Show, tuple[tuple[str, str], ...]], ...] = (
    ("CPU", _cores, (("used", "cpu_cores"),)),
    ("Memory", _size, (("used", "mem_used_bytes"),)),
    ("Disk", _gb, (("used", "disk_used_gb"),)),
    ("Network", _rate, (("in", "network_rx_mbps"), ("out", "network_tx_mbps"))),
    ("Disk traffic", _rate, (("read", "io_read_mbps"), ("written", "io_write_mbps"))),
)


def charts(seen: Sequence[Mapping[str, Any]], range_: Range, *, now: float) -> tuple[Chart, ...]:
    """One chart per quantity of the points that `stat --range` answered at `now` (epoch seconds).

    What was not seen is a gap; a quantity that was never measured has no chart.
    """
    points = _spread(seen, range_, now)
    made = []
    for title, show, curves in _CHARTS:
        values = {label: _values(points, key) for label, key in curves}
        known = [value for each in values.values() for value in each if value is not None]
        if known:
            top = max(known) or 1.0
            lines = tuple(_line(label, each, top, show) for label, each in values.items())
            made.append(Chart(title=title, top=show(max(known)), lines=lines))
    return tuple(made)


def _spread(
    seen: Sequence[Mapping[str, Any]], range_: Range, now: float
) -> list[Mapping[str, Any] | None]:
    """A place for every span of the range, empty where there is no point."""
    by_start = {datetime.fromisoformat(point["timestamp"]).timestamp(): point for point in seen}
    return [by_start.get(start) for start in range_.starts(now)]


def _values(points: Sequence[Mapping[str, Any] | None], key: str) -> list[float | None]:
    return [
        None if point is None or point.get(key) is None else float(point[key]) for point in points
    ]


def _line(label: str, values: Sequence[float | None], top: float, show: Show) -> Line:
    known = [value for value in values if value is not None] or [0.0]
    return Line(
        label=label,
        path=path(values, top),
        low=show(min(known)),
        mean=show(sum(known) / len(known)),
        high=show(max(known)),
    )


def path(values: Sequence[float | None], top: float) -> str:
    """SVG path data; a single point between gaps is drawn as a dot of a line."""
    step = WIDTH / max(1, len(values) - 1)
    parts: list[str] = []
    is_down = False
    for number, value in enumerate(values):
        if value is None:
            is_down = False
            continue
        x, y = number * step, HEIGHT - value / top * HEIGHT
        parts.append(f"{'L' if is_down else 'M'}{x:.1f} {y:.1f}")
        following = values[number + 1] if number + 1 < len(values) else None
        if not is_down and following is None:
            parts.append("h0.5")
        is_down = True
    return "".join(parts)
