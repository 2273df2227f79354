"""Keeps facts fresh, and store and engine in step: events as they come, the list now and then.

A VM that is wanted running and is not, when the engine appears, is started: the machine was down.
One that its own guest powered off is wanted stopped from then on. Both are events of the VM, and so
are a crash and the loss of a VM that the engine should have.

A VM that only the engine has is deleted there when the journal knows it (its end was cut short);
one that the journal never heard of is kept and reported: a store restored from a backup, or another
control's VM, must not cost anybody a disk.
"""

from __future__ import annotations

import asyncio

from atoll.base import ids, log
from atoll.base.aio import TaskGroup
from atoll.base.errors import AtollError, Unavailable
from atoll.domain.operation import OpKind
from atoll.domain.vm import Phase, VmRecord, Wanted
from atoll.rpc.messages import ListVms, Vm, Vms, VmState
from atoll.services.events import Events, Unasked
from atoll.services.facts import ASK_S, ON, Engine, Facts
from atoll.services.journal import Journal
from atoll.services.locks import VmLocks
from atoll.store import operations, vms
from atoll.store.engine import Store

AGAIN_S = (1.0, 15.0)  # soon once, for events missed while subscribing; then for any other miss
RECONNECT_S = 0.5
_log = log.get("reconcile")


class Reconciler:
    """Follows one engine."""

    def __init__(
        self,
        *,
        store: Store,
        engine: Engine,
        facts: Facts,
        locks: VmLocks,
        journal: Journal,
        events: Events,
    ) -> None:
        self._store = store
        self._engine = engine
        self._facts = facts
        self._locks = locks
        self._journal = journal
        self._events = events
        self._crashed: set[str] = set()  # VMs of which that is noted
        self._lost: set[str] = set()
        self._unsure: set[str] = set()  # VMs that stopped while something was done to them

    async def run(self) -> None:
        """Follow the engine for ever; connect again whenever it goes away."""
        while True:
            try:
                async with TaskGroup() as group:
                    group.create_task(self._follow())
                    group.create_task(self._refresh())
            except* AtollError as failed:
                if self._facts.connected:
                    _log.warning("engine lost", reason=str(failed.exceptions[0]))
                self._facts.set_connected(False)
            await asyncio.sleep(RECONNECT_S)

    async def reconcile(self) -> None:
        """Take the engine's list and end what should not be there.

        Raises Unavailable when the engine does not answer.
        """
        listed = (await self._engine.call(ListVms(), Vms, seconds=ASK_S)).vms
        was_connected = self._facts.connected
        ended = [vm.vm for vm in listed if vm.state is VmState.STOPPED and self._ran(vm.vm)]
        self._facts.replace(listed)
        async with self._store.read() as tx:
            records = await vms.everywhere(tx)
            known = {vm.id for vm in records}
            busy = {op.vm for op in await operations.unfinished(tx)}
            alien = [vm for vm in listed if vm.vm not in known and vm.vm not in busy]
            ours = [vm for vm in alien if await operations.knows(tx, vm.vm)]
        self._report([vm for vm in alien if vm not in ours])
        for vm in ours:
            await self._purge(vm)
        self._crashed -= {vm.vm for vm in listed if vm.state in ON}
        live = {vm.id for vm in records if vm.phase is Phase.LIVE}
        await self._look_for(live - busy - {vm.vm for vm in listed})
        if was_connected:
            unsure, self._unsure = self._unsure, set()
            for vm_id in {*ended, *unsure}:  # the event was missed, or came at a bad time
                await self._stopped(vm_id, is_sure=vm_id not in unsure)
        else:
            started = await self._start_wanted()
            _log.info("engine connected", vms=len(listed), started=started)
            self._journal.wake()

    async def _follow(self) -> None:
        async for event in self._engine.events():
            self._facts.apply(event)
            if event.vm is None:
                continue
            if event.state in ON:
                self._crashed.discard(event.vm)
            if self._facts.get(event.vm) is None:
                await self._facts.fresh(event.vm)
            elif event.state is VmState.STOPPED:
                await self._stopped(event.vm)
        raise Unavailable("the engine's events ended")

    async def _refresh(self) -> None:
        await self.reconcile()
        for pause in AGAIN_S:
            await asyncio.sleep(pause)
            await self.reconcile()
        while True:
            await asyncio.sleep(AGAIN_S[-1])
            await self.reconcile()

    async def _start_wanted(self) -> int:
        """Write down a resume for each VM that should run; the journal does them, few at a time."""
        started = 0
        async with self._store.begin() as tx:
            busy = {op.vm for op in await operations.unfinished(tx)}
            for vm in await vms.everywhere(tx):
                facts = self._facts.get(vm.id)
                is_down = facts is not None and facts.state in (VmState.STOPPED, VmState.PAUSED)
                is_wanted = vm.phase is Phase.LIVE and vm.wanted is Wanted.RUNNING
                if is_down and is_wanted and vm.id not in busy:
                    await self._journal.intend(tx, OpKind.RESUME, vm, act=ids.new("act"))
                    problem = facts.problem if facts is not None else ""
                    await self._events.notice(tx, vm, Unasked.STARTED, problem=problem)
                    started += 1
        if started:
            self._events.changes.bump()
        return started

    def _ran(self, vm_id: str) -> bool:
        facts = self._facts.get(vm_id)
        return facts is not None and facts.state in ON

    async def _stopped(self, vm_id: str, *, is_sure: bool = True) -> None:
        """A guest shut itself down: its owner's choice, so it stays off. A crash is not one.

        When something was being done to it nobody can say whose choice it was, but a crash is told.
        """
        if self._locks.doing(vm_id) is not None:
            self._unsure.add(vm_id)  # a command of ours turns it off, or over
            return
        async with self._locks.hold(vm_id, label=vm_id, doing="power off"):
            facts = await self._facts.fresh(vm_id)
            if facts is None or facts.state is not VmState.STOPPED or vm_id in self._crashed:
                return
            async with self._store.begin() as tx:
                vm = await vms.get(tx, vm_id)
                if vm is None or vm.phase is not Phase.LIVE or vm.wanted is not Wanted.RUNNING:
                    return
                if await operations.unfinished(tx, vm=vm_id):
                    return
                if not (facts.problem or is_sure):
                    return
                if facts.problem:
                    problem = facts.problem
                    await self._events.notice(tx, vm, Unasked.CRASHED, problem=problem, once=True)
                else:
                    await vms.change(tx, vm, wanted=Wanted.STOPPED)
                    await self._events.notice(tx, vm, Unasked.POWERED_OFF)
            if facts.problem:
                self._crashed.add(vm_id)
        self._events.changes.bump()

    async def _look_for(self, missing: set[str]) -> None:
        """Note once which VMs of ours the engine does not have."""
        self._lost &= missing
        for vm_id in missing - self._lost:
            if self._locks.doing(vm_id) is not None:
                continue  # the list is older than what is done to it now
            async with self._locks.hold(vm_id, label=vm_id, doing="search"):
                if await self._facts.fresh(vm_id) is not None:
                    continue
                async with self._store.begin() as tx:
                    vm = await vms.get(tx, vm_id)
                    if vm is None or vm.phase is not Phase.LIVE:
                        continue
                    await self._events.notice(tx, vm, Unasked.LOST, once=True)
                self._lost.add(vm_id)
            self._events.changes.bump()

    async def _purge(self, vm: Vm) -> None:
        async with self._locks.hold(vm.vm, label=vm.vm, doing="purge"):
            async with self._store.begin() as tx:
                if await vms.get(tx, vm.vm) is not None:
                    return
                op = await self._journal.intend(tx, OpKind.PURGE, _stray(vm), act=ids.new("act"))
            await self._journal.carry_out(op)

    def _report(self, strays: list[Vm]) -> None:
        for vm in strays:
            if vm.vm not in self._facts.strays:
                _log.warning("vm unknown to the store kept", vm=vm.vm, owner=vm.owner)
        self._facts.strays = {vm.vm: vm for vm in strays}


def _stray(vm: Vm) -> VmRecord:
    """Enough of a record to journal the end of a VM that has no row."""
    return VmRecord(
        id=vm.vm,
        owner=vm.owner,
        name=None,
        image=vm.spec.image,
        cpus=vm.spec.cpus,
        memory_bytes=vm.spec.memory_bytes,
        disk_bytes=vm.spec.disk_bytes,
        phase=Phase.TRASHED,
        wanted=Wanted.STOPPED,
        port=0,
        host_key="",
        created_at=vm.created_at,
    )
