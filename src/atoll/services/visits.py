"""Who opened a VM's web address: written down once a second, read by the VM's owner.

Invariant: a second costs a bounded number of rows, whatever arrives in it. Requests alike are one row
with a count; beyond ROWS_EACH rows of one VM those of one visitor are one row that says `*` where they
differed. What cannot be written is dropped: nothing waits for this log.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import replace

from atoll.base import log
from atoll.base.errors import AtollError
from atoll.domain.visit import MANY, Visit
from atoll.services.changes import Changes, Mark, following
from atoll.store import visits
from atoll.store.engine import Store
from atoll.store.visits import Seen

EVERY_S = 1.0
ROWS_EACH = 20
ROWS = 500  # of a second, all VMs together
TRIM_EVERY = 100  # rows of a VM between two looks at how many it has
BATCH = 100
_log = log.get("visits")

_Alike = tuple[str, str, str, str, int, str, int, str, bool]


class Visits:
    """Collects, writes and reads. `changes` goes up with every second that had visits."""

    def __init__(self, *, store: Store) -> None:
        self.changes = Changes()
        self._store = store
        self._new: dict[_Alike, tuple[str, Visit]] = {}
        self._rows: Counter[str] = Counter()  # of the second that is collected, by VM name
        self._untrimmed: Counter[str] = Counter()  # by VM id

    def note(self, vm_name: str, visit: Visit) -> None:
        """One more; it is written with the others of its second."""
        alike = _alike(vm_name, visit)
        if alike not in self._new and self._rows[vm_name] >= ROWS_EACH:
            visit = replace(visit, method=MANY, path=MANY, source=MANY, port=0, status=0)
            alike = _alike(vm_name, visit)
        first = self._new.get(alike)
        if first is not None:
            self._new[alike] = (vm_name, _together(first[1], visit))
        elif len(self._new) < ROWS:
            self._new[alike] = (vm_name, visit)
            self._rows[vm_name] += 1

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.write()
            except AtollError as error:
                _log.warning("visits not written", reason=error.message)

    async def write(self) -> None:
        """Write down what was collected."""
        collected, self._new = list(self._new.values()), {}
        self._rows.clear()
        if not collected:
            return
        async with self._store.begin() as tx:
            ids = await visits.ids(tx, {name for name, _ in collected})
            known = [(ids[name], visit) for name, visit in collected if name in ids]
            await visits.add(tx, known)
            self._untrimmed.update(vm for vm, _ in known)
            for vm in [vm for vm, rows in self._untrimmed.items() if rows >= TRIM_EVERY]:
                await visits.trim(tx, vm)
                del self._untrimmed[vm]
        self.changes.bump()

    async def latest(
        self, vm: str, *, limit: int, who: str | None = None
    ) -> tuple[tuple[Seen, ...], Mark]:
        """A VM's newest visits, oldest of them first, and the mark that `after` goes on from.

        `who` is an e-mail address, or empty for the anonymous; None: everybody.
        """
        version = self.changes.version
        async with self._store.read() as tx:
            newest = await visits.newest_id(tx, vm)
            found = await visits.latest(tx, vm, limit=limit, who=who)
        return tuple(reversed(found)), Mark(newest, version)

    def after(
        self, vm: str, mark: Mark, *, who: str | None = None
    ) -> AsyncGenerator[tuple[Seen, ...], None]:
        """Visits of a VM beyond the mark, some at a time, for ever."""

        async def page(seen: int) -> tuple[Seen, ...]:
            async with self._store.read() as tx:
                return await visits.after(tx, vm, seen, limit=BATCH, who=who)

        return following(self.changes, mark, page, size=BATCH)

    async def last_opened(self, vm: str) -> dict[str, float]:
        """Account id -> when it last was let in; the anonymous are the account without a name."""
        async with self._store.read() as tx:
            return await visits.last_opened(tx, vm)


def _alike(vm_name: str, visit: Visit) -> _Alike:
    return (
        vm_name, visit.account, visit.by, visit.method, visit.port, visit.path, visit.status,
        visit.source, visit.is_let_in,
    )  # fmt: skip


def _together(first: Visit, more: Visit) -> Visit:
    return replace(
        first,
        at=max(first.at, more.at),
        bytes=first.bytes + more.bytes,
        ms=max(first.ms, more.ms),
        count=first.count + more.count,
    )
