"""How often one key may call: a token bucket per key."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

_KEYS = 10_000  # the longest unused are forgotten, which only ever helps them


class Limits:
    """`burst` calls at once, refilled at `per_second`. A clock that is set back takes nothing away."""

    def __init__(
        self, *, per_second: float = 20.0, burst: float = 100.0, monotonic: Callable[[], float]
    ) -> None:
        self._per_second = per_second
        self._burst = burst
        self._monotonic = monotonic
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, key: str) -> int:
        """Take one call of `key`: 0 when it may go on, else whole seconds until it may again."""
        now = self._monotonic()
        left, at = self._buckets.pop(key, (self._burst, now))
        left = min(self._burst, left + max(0.0, now - at) * self._per_second)
        may = left >= 1.0
        self._buckets[key] = (left - 1.0 if may else left, now)
        while len(self._buckets) > _KEYS:
            self._buckets.popitem(last=False)
        return 0 if may else max(1, math.ceil((1.0 - left) / self._per_second))
