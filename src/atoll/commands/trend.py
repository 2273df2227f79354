"""What a VM used in a range of time: JSON as the reference product has it, and bars for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from atoll.base.units import GIB, show_size
from atoll.commands.context import Context
from atoll.commands.render import instant, table
from atoll.commands.reply import Reply
from atoll.commands.view import VmView
from atoll.domain.usage import Point, Range

BARS = "▁▂▃▄▅▆▇█"
POINTS_PER_BAR = 12  # an hour, 6 hours, a day; 24 to 30 bars, which 80 columns have room for
_MBIT = 125_000  # bytes


async def trend(ctx: Context, name: str, range_: Range) -> Reply:
    """The reply of `stat` for one VM; raises NotFound."""
    vm = await ctx.cloud.access.find(ctx.caller, name)
    points = await ctx.cloud.usage.points(ctx.caller, name, range_)
    seen = [_json(name, point) for point in points if not point.is_gap]
    status = VmView.of(ctx.cloud, vm).status
    if problem := ctx.cloud.sampler.problem:
        ctx.progress(f"VMs are not sampled just now: {problem}")
    return Reply(
        data={"name": name, "status": status, "range": range_.value, "points": seen or None},
        text=_text(name, status, range_, points) if seen else _nothing(name, status, range_),
    )


def bars(values: Sequence[float | None]) -> str:
    """A bar for the highest of each POINTS_PER_BAR values; the highest of all is a full one.

    Where nothing is known there is a blank.
    """
    starts = range(0, len(values), POINTS_PER_BAR)
    highest = [_highest(values[start : start + POINTS_PER_BAR]) for start in starts]
    top = _highest(highest) or 1.0
    last = len(BARS) - 1
    return "".join(" " if value is None else BARS[round(value / top * last)] for value in highest)


def _highest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _json(name: str, point: Point) -> dict[str, Any]:
    """A point that is no gap; the keys are those of the reference product."""
    assert point.disk_size_bytes is not None
    assert point.disk_used_bytes is not None
    return {
        "timestamp": instant(point.at),
        "vm_name": name,
        "cpu_cores": None if point.cpu_cores is None else round(point.cpu_cores, 3),
        "cpu_nominal": point.cpus,
        "mem_used_bytes": point.memory_used_bytes,
        "mem_total_bytes": point.memory_total_bytes,
        "disk_size_gb": round(point.disk_size_bytes / GIB, 3),
        "disk_used_gb": round(point.disk_used_bytes / GIB, 3),
        "network_tx_mbps": _mbps(point.network_tx_bytes_per_s),
        "network_rx_mbps": _mbps(point.network_rx_bytes_per_s),
        "io_read_mbps": _mbps(point.io_read_bytes_per_s),
        "io_write_mbps": _mbps(point.io_write_bytes_per_s),
    }


def _mbps(bytes_per_s: float | None) -> float | None:
    return None if bytes_per_s is None else round(bytes_per_s / _MBIT, 3)


def _text(name: str, status: str, range_: Range, points: Sequence[Point]) -> str:
    last = next(point for point in reversed(points) if not point.is_gap)
    memory, disk = show_size(last.memory_total_bytes or 0), show_size(last.disk_size_bytes or 0)
    rows = [
        _row(f"cpu of {last.cpus}", [p.cpu_cores for p in points], "{:.2f}".format),
        _row(f"memory of {memory}", [p.memory_used_bytes for p in points], _size),
        _row(f"disk of {disk}", [p.disk_used_bytes for p in points], _size),
        _row("in Mbit/s", [p.network_rx_bytes_per_s for p in points], _mbit),
        _row("out Mbit/s", [p.network_tx_bytes_per_s for p in points], _mbit),
        _row("read Mbit/s", [p.io_read_bytes_per_s for p in points], _mbit),
        _row("write Mbit/s", [p.io_write_bytes_per_s for p in points], _mbit),
    ]
    bar_h = range_.span_s * POINTS_PER_BAR // 3600
    above = f"{name}  {status}  last {range_.value}, a bar is the most of {bar_h} h"
    return table(("USE", "MIN", "AVG", "MAX", "OVER TIME"), rows, above=(above,))


def _nothing(name: str, status: str, range_: Range) -> str:
    return f"{name}  {status}  nothing seen in the last {range_.value}"


def _row(
    label: str, values: Sequence[float | None], show: Callable[[float], str]
) -> tuple[str, ...]:
    known = [value for value in values if value is not None]
    if not known:
        return (label, "-", "-", "-", "")
    figures = (min(known), sum(known) / len(known), max(known))
    return (label, *map(show, figures), bars(values))


def _size(size_bytes: float) -> str:
    return show_size(round(size_bytes))


def _mbit(bytes_per_s: float) -> str:
    return f"{bytes_per_s / _MBIT:.1f}"
