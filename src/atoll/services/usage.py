"""What a VM used in the last 24 hours, 7 or 30 days, for whoever may see the VM."""

from __future__ import annotations

import time
from collections.abc import Callable

from atoll.domain import usage
from atoll.domain.account import Caller
from atoll.domain.usage import Point, Range
from atoll.services.access import Access
from atoll.store import samples
from atoll.store.engine import Store


class Usage:
    """Reads what services.sampling wrote."""

    def __init__(
        self, *, store: Store, access: Access, now: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._access = access
        self._now = now

    async def points(self, caller: Caller, vm_name: str, range_: Range) -> tuple[Point, ...]:
        """`range_.points` of them, `range_.span_s` seconds apart, oldest first, gaps included.

        The last one is the span that has not ended. Raises NotFound.
        """
        vm = await self._access.find(caller, vm_name)
        now = self._now()
        starts = range_.starts(now)
        async with self._store.read() as tx:
            kept = await samples.of(tx, vm.id, range_, since=starts[0], until=starts[-1])
        return usage.points(range_, now, kept)
