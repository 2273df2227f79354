"""Removal that can be taken back: `rm` fills the trash, `undo` returns from it, time empties it.

In the trash a VM is off, with its memory saved where that could be, and nameless, so its name can
be used again. It counts for nothing else: not in `ls`, not routed, not published.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from atoll.base import ids, log
from atoll.base.errors import AtollError
from atoll.domain.account import Caller
from atoll.domain.name import random_vm
from atoll.domain.operation import OpKind
from atoll.domain.vm import Phase, VmRecord, Wanted
from atoll.services.access import Access, may_touch
from atoll.services.events import Events, Unasked
from atoll.services.journal import Journal
from atoll.services.locks import VmLocks
from atoll.store import operations, vms
from atoll.store.engine import Store, Tx

SWEEP_S = 60.0
JOURNAL_KEPT_S = 30 * 86400.0
_log = log.get("trash")


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """One VM out of the trash; `problem` says why it does not run although it did before."""

    vm: VmRecord
    former_name: str
    problem: str = ""


class Trash:
    """The way in, the way back and the end."""

    def __init__(
        self,
        *,
        store: Store,
        locks: VmLocks,
        journal: Journal,
        access: Access,
        events: Events,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._locks = locks
        self._journal = journal
        self._access = access
        self._events = events
        self._now = now

    async def remove(self, caller: Caller, name: str, *, act: str) -> None:
        """Put one VM in the trash."""
        async with self._access.exclusively(caller, name, doing="rm") as vm:
            await self._journal.do(OpKind.TRASH, vm, act=act)

    async def last(self, caller: Caller) -> tuple[VmRecord, ...]:
        """All VMs that the caller's last `rm` removed; none when nothing is left to take back."""
        async with self._store.read() as tx:
            trash = [
                vm
                for vm in await vms.trashed(tx, caller.account.id)
                if may_touch(caller, vm) and (vm.trash_until or 0.0) > self._now()
            ]
        return tuple(vm for vm in trash if vm.trash_act == trash[0].trash_act)

    async def restore(self, vm: VmRecord, *, act: str) -> Restored | None:
        """Take one VM out of the trash, running if it ran; None: it is not there any more."""
        async with self._locks.hold(vm.id, label=vm.label, doing="undo"):
            await self._journal.settle(vm)
            async with self._store.begin() as tx:
                trashed = await vms.get(tx, vm.id)
                if trashed is None or trashed.phase is not Phase.TRASHED:
                    return None  # purged, or brought back by someone else, meanwhile
                await vms.change(
                    tx,
                    trashed,
                    phase=Phase.LIVE,
                    name=await _free_name(tx, trashed.label),
                    former_name=None,
                    trashed_at=None,
                    trash_until=None,
                    trash_act=None,
                )
                op = None
                if trashed.wanted is Wanted.RUNNING:
                    op = await self._journal.intend(tx, OpKind.RESUME, trashed, act=act)
            problem = ""
            if op is not None:
                try:
                    await self._journal.carry_out(op)
                except AtollError as error:  # it is back, only not running
                    problem = str(error)
            async with self._store.read() as tx:
                back = await vms.get(tx, vm.id)
        assert back is not None, "the lock is held and it was just restored"
        return Restored(vm=back, former_name=vm.label, problem=problem)

    async def run(self) -> None:
        """Purge what is over, every minute."""
        while True:
            try:
                await self.sweep()
            except AtollError as error:
                _log.warning("trash not swept", reason=str(error))
            await asyncio.sleep(SWEEP_S)

    async def sweep(self) -> None:
        """Purge every VM whose time in the trash is over, and old journal entries."""
        async with self._store.read() as tx:
            over = await vms.trash_over(tx, now=self._now())
        for vm in over:
            try:
                await self._purge(vm)
            except AtollError as error:  # the others are due all the same
                _log.warning("purge put off", vm=vm.id, reason=str(error))
        async with self._store.begin() as tx:
            await operations.forget(tx, before=self._now() - JOURNAL_KEPT_S)

    async def _purge(self, vm: VmRecord) -> None:
        async with self._locks.hold(vm.id, label=vm.label, doing="purge"):
            await self._journal.settle(vm)
            async with self._store.begin() as tx:
                trashed = await vms.get(tx, vm.id)
                if trashed is None or trashed.phase is not Phase.TRASHED:
                    return
                act = trashed.trash_act or ids.new("act")
                op = await self._journal.intend(tx, OpKind.PURGE, trashed, act=act)
            await self._journal.carry_out(op)
            async with self._store.begin() as tx:
                await self._events.notice(tx, trashed, Unasked.PURGED)
        self._events.changes.bump()


async def _free_name(tx: Tx, former: str) -> str:
    """The former name, or with a word after it when somebody has taken it."""
    name = former
    while not await vms.is_free(tx, name):
        name = f"{former[:30].rstrip('-')}-{random_vm()}"
    return name
