"""The audit: who did what, from where, and what came of it, in one chain that only grows.

Records wait in a queue, in the order they came, and are written many at a time: whoever waits for its
own writes all that are there. What changes or opens something waits until its record is on the disk; what
only looks goes on, and is written within BEHIND_S.

Invariants: nothing is dropped. A record that could not be written stays in the queue and is tried again.
The command it tells of is done by then, so its caller gets the answer and no error, after which it would
do it twice. When ROOM records wait so, no more commands are let in. A record may be written twice, when
the answer to a commit was lost; the chain never has two ends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from atoll.base import log
from atoll.base.aio import shielded
from atoll.base.errors import AtollError, Unavailable
from atoll.domain.account import Caller
from atoll.domain.audit import WHAT_CHARACTERS, Act, Entry, detailed, fit, linked
from atoll.domain.operation import Json
from atoll.services.changes import Changes
from atoll.store import audit as rows
from atoll.store.audit import Meant
from atoll.store.engine import Store, Tx

BEHIND_S = 0.2  # how late what only looks is written
ROOM = 2000  # records that wait
BATCH = 500  # records of one transaction
STRANGERS = 30  # records a minute of people nobody knows; the others are counted
_WRITE_S = 30.0  # longer than the store's own limits
_RETRY_S = 1.0
_MINUTE_S = 60.0

_log = log.get("audit")


@dataclass(slots=True)
class Waiting:
    """An entry that is not written yet.

    `act_id` is the command's in the journal, which tells a VM that it removed from a new one of the
    same name. `to_owner` is what the owner of somebody else's VM reads in place of `what`.
    """

    entry: Entry
    act_id: str = ""
    to_owner: str = ""
    is_written: bool = False


class Audit:
    """Writes; see `services.records` for reading."""

    def __init__(self, *, store: Store, now: Callable[[], float] = time.time) -> None:
        self.changes = Changes()  # goes up with every record; of no interest to pages
        self.refused_keys = 0  # offered by clients nobody knows, since control started
        self._store = store
        self._now = now
        self._queue: list[Waiting] = []
        self._turn = asyncio.Lock()  # whose turn it is to write
        self._is_wanted = asyncio.Event()
        self._reason = ""  # why the last attempt failed
        self._strangers = _Strangers()

    async def run(self) -> None:
        """Write what nobody waits for, until cancelled; then what is left."""
        try:
            while True:
                await self._is_wanted.wait()
                await asyncio.sleep(BEHIND_S)
                self._is_wanted.clear()
                if not await self.flush():
                    self._is_wanted.set()
                    await asyncio.sleep(_RETRY_S)
        finally:
            await self.close()

    async def close(self) -> None:
        """Write what is left."""
        await shielded(self.flush(), seconds=2 * _WRITE_S)

    async def record(
        self,
        *,
        who: str,
        act: str,
        door: str,
        source: str,
        account: str | None = None,
        credential: str = "",
        what: str = "",
        vm: str | None = None,
        vm_id: str | None = None,
        result: str = "ok",
        detail: Mapping[str, Json] | None = None,
    ) -> None:
        """Record one thing that was done; it is on the disk when this returns, unless the store fails.

        `vm` is a name, `vm_id` which VM it was if that is known better. Raises nothing. Of people
        without an account STRANGERS are recorded a minute, and how many were not.
        """
        detail = dict(detail or {})
        if account is None:
            missed = self._strangers.missed_before(self._now())
            if missed is None:
                return
            detail |= {"not_recorded": missed} if missed else {}
        entry = Entry(
            at_us=self.now_us(),
            account=account,
            who=fit(who.lower()),
            credential=fit(credential),
            door=fit(door),
            source=fit(source),
            act=Act(act).value,
            what=fit(what, WHAT_CHARACTERS),
            vm=None if vm is None else fit(vm),
            vm_id=vm_id,
            result=fit(result),
            detail=detailed(detail),
        )
        await self.add([Waiting(entry)])

    async def of(
        self,
        caller: Caller,
        act: str,
        *,
        what: str = "",
        vm: str | None = None,
        vm_id: str | None = None,
        result: str = "ok",
        detail: Mapping[str, Json] | None = None,
    ) -> None:
        """`record` what a caller did. Raises nothing."""
        await self.record(
            who=caller.account.email,
            act=act,
            door=caller.door.value,
            source=caller.source,
            account=caller.account.id,
            credential=caller.credential,
            what=what,
            vm=vm,
            vm_id=vm_id,
            result=result,
            detail=detail,
        )

    async def add(self, entries: Sequence[Waiting], *, is_urgent: bool = True) -> None:
        """Have entries written, and wait for it when it `is_urgent`. Raises nothing."""
        self.note(entries)
        if is_urgent or len(self._queue) >= ROOM:
            await self._written(entries[-1])

    def note(self, entries: Sequence[Waiting]) -> None:
        """The same for whoever cannot wait: its task is being cancelled."""
        self._queue.extend(entries)
        self._is_wanted.set()

    async def room(self) -> None:
        """Wait until a record has room. Raises Unavailable when none can be written."""
        if len(self._queue) >= ROOM:
            await self.flush()
        if len(self._queue) >= ROOM:
            raise Unavailable(
                f"{len(self._queue)} records of the audit cannot be written: {self._reason}",
                hint="Try: atoll doctor",
            )

    async def flush(self) -> bool:
        """Write what waits now; whether that worked."""
        return not self._queue or await self._written(self._queue[-1])

    @property
    def problem(self) -> str:
        """What stands in the way of records, for `atoll doctor`."""
        if not self._reason:
            return ""
        return f"{len(self._queue)} records of the audit are not written: {self._reason}"

    def now_us(self) -> int:
        """The time as records have it."""
        return round(self._now() * 1e6)

    async def _written(self, last: Waiting) -> bool:
        """Write all up to `last`, or see that somebody else has."""
        async with self._turn:
            while not last.is_written:
                try:
                    # To its end: a commit that is left half-way may be done, and would be done again.
                    await shielded(self._write(), seconds=_WRITE_S)
                except (AtollError, TimeoutError) as error:
                    self._failed(str(error) or f"the store took over {_WRITE_S:g} s")
                    return False
        return True

    async def _write(self) -> None:
        batch = self._queue[:BATCH]
        async with self._store.begin() as tx:
            head = await rows.head(tx)
            records = []
            for entry in await _with_vms(tx, batch):
                records.append(linked(entry, head))
                head = records[-1].head
            await rows.add(tx, records)
        del self._queue[: len(batch)]
        for each in batch:
            each.is_written = True
        self._reason = ""
        self.changes.bump()

    def _failed(self, reason: str) -> None:
        """Say it with what is at stake: the log is all there is if we end now."""
        lost = [f"{w.entry.who} {w.entry.act} {w.entry.what}" for w in self._queue[-5:]]
        _log.error("audit not written", waiting=len(self._queue), reason=reason, last=lost)
        self._reason = reason
        self._is_wanted.set()


class _Strangers:
    """How many records people without an account may cause: they would fill the store."""

    def __init__(self) -> None:
        self._since = float("-inf")
        self._count = 0
        self._missed = 0

    def missed_before(self, now: float) -> int | None:
        """How many were left out before this one; None: this one is as well."""
        if not 0 <= now - self._since < _MINUTE_S:
            self._since, self._count = now, 0
        if self._count >= STRANGERS:
            self._missed += 1
            return None
        self._count += 1
        missed, self._missed = self._missed, 0
        return missed


async def _with_vms(tx: Tx, batch: Sequence[Waiting]) -> list[Entry]:
    """The entries with the VMs that they name, as far as their owners may know of it."""
    names = {w.entry.vm for w in batch if w.entry.vm is not None and w.entry.vm_id is None}
    ids = {w.entry.vm_id for w in batch if w.entry.vm_id is not None}
    acts = {w.act_id for w in batch if w.act_id}
    named = await rows.meant(tx, names, acts) if names else {}
    owners = await rows.owners(tx, ids) if ids else {}
    return [_with_vm(each, named, owners) for each in batch]


def _with_vm(waiting: Waiting, named: Mapping[str, Meant], owners: Mapping[str, str]) -> Entry:
    """Somebody else's VM is named only where something was done with it: else anybody could write
    into its owner's audit, and learn which names there are."""
    entry = waiting.entry
    vm = named.get(entry.vm or "")
    if entry.vm_id is not None:
        vm = Meant(entry.vm_id, owners[entry.vm_id]) if entry.vm_id in owners else None
    if vm is None:
        return entry
    if vm.owner != entry.account and entry.result != "ok":
        return replace(entry, vm_id=None)
    if vm.owner != entry.account and waiting.to_owner:
        entry = replace(entry, what=waiting.to_owner)
    return replace(entry, vm_id=vm.id, owner=vm.owner)
