"""The history of VMs: snapshots taken by policy, thinned as they age, as far as the pool has room.

Nobody asked for any of it, so it gives way. A VM that somebody works on has its turn a minute later,
who comes meanwhile waits instead of being refused, and a disk that is as a snapshot has it costs a
question. What was handed to no disk yet when that was asked is in the next one.

Invariant: only snapshots taken by a policy are thinned, few of a VM at a time: a clock that jumps ahead
costs a few of them, not all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from atoll.base import ids, log
from atoll.base.errors import AtollError
from atoll.domain import retention
from atoll.domain.account import Caller
from atoll.domain.operation import Json, OpKind
from atoll.domain.retention import LEAST_S, Policy
from atoll.domain.snapshot import Reason, Snapshot, free_name, named_at
from atoll.domain.vm import Phase, VmRecord
from atoll.rpc.messages import VmState
from atoll.services.access import Access
from atoll.services.events import Events, Unasked
from atoll.services.facts import Facts
from atoll.services.journal import Journal
from atoll.services.locks import VmLocks
from atoll.services.snapshots import PER_VM
from atoll.store import operations, snapshots, vms
from atoll.store.engine import Store

SWEEP_S = 60.0
RETRY_S = (120.0, 300.0, 900.0, 3600.0)  # after failures of a VM, one after another
THINNED_AT_ONCE = 4  # of a VM; it gets one more in that time
RELIEVED_AT_ONCE = 20  # of all VMs, for room
JOURNAL_KEPT_S = 86_400.0  # of these operations alone; they are a hundred a day for each VM
_SETTLED = (VmState.RUNNING, VmState.PAUSED, VmState.STOPPED)
_log = log.get("retention")


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What a VM's policy has kept; `next_at` None: it takes none. `problem`: why it takes none now."""

    policy: Policy
    points: int
    oldest_at: float | None
    next_at: float | None
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wait:
    """Nothing of a VM is done for a while. A new policy ends it, and a clock that is set back."""

    history: str | None  # the policy, as the VM has it
    since: float
    seconds: float
    failures: int = 0
    problem: str = ""

    def holds(self, vm: VmRecord, now: float) -> bool:
        return self.history == vm.history and self.since <= now < self.since + self.seconds


class Retention:
    """Takes and thins."""

    def __init__(
        self,
        *,
        store: Store,
        facts: Facts,
        locks: VmLocks,
        journal: Journal,
        access: Access,
        events: Events,
        free_percent: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        """With less than `free_percent` of the pool free, none is taken and the oldest go."""
        self._store = store
        self._facts = facts
        self._locks = locks
        self._journal = journal
        self._access = access
        self._events = events
        self._free_percent = free_percent
        self._now = now
        self._is_short = False
        self._waits: dict[str, _Wait] = {}

    async def of(self, caller: Caller, vm_name: str) -> History:
        """Of one of the caller's VMs. Raises NotFound."""
        vm = await self._access.find(caller, vm_name)
        async with self._store.read() as tx:
            held = await snapshots.of_vms(tx, [vm.id])
        times = [one.created_at for one in held if one.reason is Reason.HISTORY]
        policy, now = _policy(vm), self._now()
        due, problem = retention.next_due(policy, (vm.created_at, *times), now=now), ""
        if due is not None:
            due = max(due, now)
            if (wait := self._waits.get(vm.id)) is not None and wait.holds(vm, now):
                due, problem = max(due, wait.since + wait.seconds), wait.problem
        if due is not None and self._is_short:
            problem = f"less than {self._free_percent}% of the pool is free"
        return History(
            policy=policy,
            points=len(times),
            oldest_at=min(times, default=None),
            next_at=due,
            problem=problem,
        )

    async def run(self) -> None:
        """See what is due, every minute."""
        while True:
            try:
                await self.sweep()
            except AtollError as error:
                _log.warning("history not looked after", reason=str(error))
            await asyncio.sleep(SWEEP_S)

    async def sweep(self) -> None:
        """Make room if there is little; then take and thin what is due, one VM after another."""
        if not self._facts.connected:
            return
        self._is_short = await self._relieve()
        now = self._now()
        async with self._store.read() as tx:
            live = [vm for vm in await vms.everywhere(tx) if vm.phase is Phase.LIVE]
            newest = await snapshots.newest(tx, Reason.HISTORY, until=now)
        self._waits = {vm.id: self._waits[vm.id] for vm in live if vm.id in self._waits}
        for vm in live:
            if not self._facts.connected:
                return  # or every VM would have an intent that its next command waits for
            await self._attempt(vm, newest.get(vm.id, vm.created_at))
        async with self._store.begin() as tx:
            kinds = (OpKind.SNAPSHOT, OpKind.DROP_SNAPSHOT)
            await operations.forget_kinds(tx, kinds, before=self._now() - JOURNAL_KEPT_S)

    def _is_due(self, vm: VmRecord, last: float) -> bool:
        now = self._now()
        wait, facts = self._waits.get(vm.id), self._facts.get(vm.id)
        if wait is not None and wait.holds(vm, now):
            return False
        if facts is None or facts.state not in _SETTLED:
            return False
        due = retention.next_due(_policy(vm), (last,), now=now)
        return due is not None and due <= now

    async def _attempt(self, vm: VmRecord, last: float) -> None:
        """Others are due all the same when this one fails."""
        since, before = self._now(), self._waits.get(vm.id)
        try:
            if self._is_due(vm, last):
                await self._tend(vm.id)
        except AtollError as error:
            failures = before.failures if before is not None else 0
            seconds = RETRY_S[min(failures, len(RETRY_S) - 1)]
            self._waits[vm.id] = _Wait(
                history=vm.history,
                since=since,
                seconds=seconds,
                failures=failures + 1,
                problem=error.message,
            )
            _log.warning("history put off", vm=vm.id, seconds=seconds, reason=str(error))

    async def _tend(self, vm_id: str) -> None:
        async with self._holding(vm_id) as vm:
            if vm is None or not (policy := _policy(vm)):
                return
            held = await self._all(vm)
            is_full = len(held) >= PER_VM
            if not (self._is_short or is_full):
                await self._take(vm, held)
                held = await self._all(vm)
            for one in retention.too_many(policy, held, now=self._now())[:THINNED_AT_ONCE]:
                await self._drop(vm, one)
            # One that was not taken, for nothing had changed, is no reason to ask again at once.
            self._waits[vm.id] = _Wait(
                history=vm.history,
                since=self._now(),
                seconds=LEAST_S if self._is_short else min(rule.every_s for rule in policy),
                problem=f"it has {len(held)} snapshots, which is the limit" if is_full else "",
            )

    async def _take(self, vm: VmRecord, held: Iterable[Snapshot]) -> None:
        payload: dict[str, Json] = {
            "snapshot": ids.new("snap"),
            "name": free_name(named_at(self._now()), {one.name for one in held}),
            "reason": Reason.HISTORY.value,
            "unless_unchanged": True,
        }
        await self._journal.do(OpKind.SNAPSHOT, vm, act=ids.new("act"), payload=payload)

    async def _drop(self, vm: VmRecord, one: Snapshot, *, tell: str = "") -> None:
        """Let go of one; with `tell` its owner is told why, in the transaction of the intent."""
        payload: dict[str, Json] = {"snapshot": one.id, "name": one.name}
        async with self._store.begin() as tx:
            op = await self._journal.intend(
                tx, OpKind.DROP_SNAPSHOT, vm, act=ids.new("act"), payload=payload
            )
            if tell:
                await self._events.notice(tx, vm, Unasked.THINNED, problem=tell)
        if tell:
            self._events.changes.bump()
        await self._journal.carry_out(op)

    async def _relieve(self) -> bool:
        """Let the oldest of all VMs go while the pool is short of room, some at a time.

        True: it still is. Not all give room back at once: what a VM stands on is merged later.
        """
        told: set[str] = set()
        passed: set[str] = set()
        for _ in range(RELIEVED_AT_ONCE):
            if not await self._has_little_room():
                return False
            async with self._store.read() as tx:
                one = await snapshots.oldest(tx, Reason.HISTORY, but_of=passed)
            if one is None:
                break
            try:
                async with self._holding(one.vm) as vm:
                    if vm is None:
                        passed.add(one.vm)
                    else:
                        why = f"less than {self._free_percent}% of the pool is free"
                        tell = "" if vm.id in told else f"{why}: its oldest history goes"
                        told.add(vm.id)
                        await self._drop(vm, one, tell=tell)
            except AtollError as error:
                passed.add(one.vm)
                _log.warning("history not thinned", vm=one.vm, reason=str(error))
        return True

    async def _has_little_room(self) -> bool:
        node = await self._facts.fresh_node()
        return node.pool_free_bytes * 100 < node.pool_bytes * self._free_percent

    @asynccontextmanager
    async def _holding(self, vm_id: str) -> AsyncIterator[VmRecord | None]:
        """Hold a VM that nobody works on. None: somebody does, or it is not there any more."""
        if self._locks.doing(vm_id) is not None:
            yield None
            return
        async with self._locks.hold(vm_id, label=vm_id, doing="snap history", unasked=True):
            async with self._store.read() as tx:
                vm = await vms.get(tx, vm_id)
                unfinished = await operations.unfinished(tx, vm=vm_id)
            is_free = vm is not None and vm.phase is Phase.LIVE and not unfinished
            yield vm if is_free else None

    async def _all(self, vm: VmRecord) -> tuple[Snapshot, ...]:
        async with self._store.read() as tx:
            return await snapshots.of_vms(tx, [vm.id])


def _policy(vm: VmRecord) -> Policy:
    return retention.parse("default" if vm.history is None else vm.history)
