"""Token buckets: a burst, a refill, and a clock that does not go straight on."""

from __future__ import annotations

from atoll.base.limits import Limits
from framework.cloud import Clock


def test_a_clock_that_is_set_back_locks_nobody_out() -> None:
    clock = Clock(100_000.0)
    limits = Limits(burst=2, per_second=0.1, monotonic=clock)
    assert limits.wait_s("ann") == 0
    clock.time -= 86_400
    assert limits.wait_s("ann") == 0
    assert limits.wait_s("ann") == 10
    clock.time += 10
    assert limits.wait_s("ann") == 0
