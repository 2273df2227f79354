"""What a VM used over time: counters to growth, growth folded into spans, spans to points. Pure.

Three histories are kept side by side, one per range that people look at. Each has some 300 points, which
is what a chart can show and an answer can hold; a point stands for a span of 5 minutes, half an hour or
two hours. Every reading is added to the span it falls in, in all three, so nothing has to be folded
later, and a restart of control loses nothing but the minute it was away.

A span keeps growth and the seconds in which it grew, not rates: adding is exact in any order, and the
average of a span that was seen in part is that of the part. Of memory it keeps the most, of the rest
the last. Times of spans are the clock's; lengths are the machine's monotonic seconds, so a clock that
is set makes a gap or fills a span twice, and never a rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

# Readings come once a minute. One may be missed; what happened over a longer time is not spread
# over it: control was away, or the machine slept.
MAX_GAP_S = 150.0
COUNTERS = (
    "cpu_seconds",
    "network_rx_bytes",
    "network_tx_bytes",
    "io_read_bytes",
    "io_write_bytes",
)


class Range(StrEnum):
    """How far back."""

    DAY = "24h"
    WEEK = "7d"
    MONTH = "30d"

    @property
    def span_s(self) -> int:
        """Seconds that one point stands for."""
        return _SPAN_S[self]

    @property
    def points(self) -> int:
        """How many there are."""
        return _DAYS[self] * 86_400 // self.span_s

    def start(self, now: float) -> float:
        """When the span began that `now` is in."""
        return float(now // self.span_s * self.span_s)

    def starts(self, now: float) -> tuple[float, ...]:
        """The spans of this range, oldest first; the last is the one that `now` is in."""
        last, span = self.start(now), self.span_s
        return tuple(last - span * back for back in reversed(range(self.points)))


_SPAN_S = {Range.DAY: 300, Range.WEEK: 1800, Range.MONTH: 7200}
_DAYS = {Range.DAY: 1, Range.WEEK: 7, Range.MONTH: 30}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What a VM is and holds at one moment."""

    memory_used_bytes: int  # its own pages, not those shared with a template; QEMU's with them
    memory_total_bytes: int
    disk_used_bytes: int  # of the pool, by its layers
    disk_size_bytes: int
    cpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How much counters grew within `seconds`; 0 seconds: not known."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    network_rx_bytes: int = 0
    network_tx_bytes: int = 0
    io_read_bytes: int = 0
    io_write_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Counters since `process` began, read when a clock that is never set stood at `since_boot_s`."""

    process: str
    since_boot_s: float
    cpu_seconds: float = 0.0
    network_rx_bytes: int = 0
    network_tx_bytes: int = 0
    io_read_bytes: int = 0
    io_write_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Use:
    """Of one span, or a part of it."""

    growth: Growth
    sizes: Sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One span of a range; None where it is not known: the VM did not run, or nobody looked.

    Rates are averages of the time that was seen. Memory is the most that was seen, the disk and what
    the VM has are the last. Bytes are bytes (not bits), of the network as the VM sees them.
    """

    at: float  # when the span began, in seconds since the epoch (UTC)
    cpu_cores: float | None = None  # 1.0: one vCPU busy all the time
    network_rx_bytes_per_s: float | None = None  # received by the VM
    network_tx_bytes_per_s: float | None = None
    io_read_bytes_per_s: float | None = None  # from the pool
    io_write_bytes_per_s: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    disk_used_bytes: int | None = None
    disk_size_bytes: int | None = None
    cpus: int | None = None

    @property
    def is_gap(self) -> bool:
        """Whether nothing is known of it."""
        return self.cpus is None


def growth(before: Reading | None, now: Reading) -> Growth:
    """From one reading to the next; not known across a restart of the VM, a gap or a step back."""
    if before is None or before.process != now.process:
        return Growth()
    seconds = now.since_boot_s - before.since_boot_s
    grown = {name: getattr(now, name) - getattr(before, name) for name in COUNTERS}
    if not 0 < seconds <= MAX_GAP_S or min(grown.values()) < 0:
        return Growth()
    return Growth(seconds=seconds, **grown)


def fold(earlier: Use, later: Use) -> Use:
    """Two parts of a span as one."""
    grown = {
        name: getattr(earlier.growth, name) + getattr(later.growth, name)
        for name in ("seconds", *COUNTERS)
    }
    most = max(earlier.sizes.memory_used_bytes, later.sizes.memory_used_bytes)
    last = later.sizes
    return Use(
        Growth(**grown),
        Sizes(
            memory_used_bytes=most,
            memory_total_bytes=last.memory_total_bytes,
            disk_used_bytes=last.disk_used_bytes,
            disk_size_bytes=last.disk_size_bytes,
            cpus=last.cpus,
        ),
    )


def points(range_: Range, now: float, kept: Mapping[float, Use]) -> tuple[Point, ...]:
    """The range up to `now`, evenly spaced, out of what is kept by the start of its span."""
    return tuple(_point(at, kept.get(at)) for at in range_.starts(now))


def _point(at: float, use: Use | None) -> Point:
    if use is None:
        return Point(at=at)
    grown, sizes = use.growth, use.sizes

    def rate(amount: float) -> float | None:
        return amount / grown.seconds if grown.seconds > 0 else None

    return Point(
        at=at,
        cpu_cores=rate(grown.cpu_seconds),
        network_rx_bytes_per_s=rate(grown.network_rx_bytes),
        network_tx_bytes_per_s=rate(grown.network_tx_bytes),
        io_read_bytes_per_s=rate(grown.io_read_bytes),
        io_write_bytes_per_s=rate(grown.io_write_bytes),
        memory_used_bytes=sizes.memory_used_bytes,
        memory_total_bytes=sizes.memory_total_bytes,
        disk_used_bytes=sizes.disk_used_bytes,
        disk_size_bytes=sizes.disk_size_bytes,
        cpus=sizes.cpus,
    )
