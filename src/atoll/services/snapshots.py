"""Snapshots of VMs: taken, listed, gone back to, removed.

A rollback first keeps what it replaces, as a snapshot like any other: going back to that undoes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from atoll.base import ids
from atoll.base.aio import together
from atoll.base.errors import AtollError, Conflict, Exhausted, Internal, NotFound
from atoll.domain.account import Caller
from atoll.domain.operation import Json, OpKind
from atoll.domain.snapshot import Reason, Snapshot, check_name, free_name, named_at
from atoll.domain.vm import VmRecord
from atoll.rpc.messages import ListSnapshots, Outcome, SnapshotList
from atoll.services.access import Access
from atoll.services.facts import ASK_S, ON, Engine, Facts
from atoll.services.journal import Journal
from atoll.store import snapshots
from atoll.store.engine import Store

PER_VM = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A snapshot of a VM; removing it gives `alone_bytes` back. None: the engine did not say."""

    vm: VmRecord
    snapshot: Snapshot
    alone_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack:
    """A VM that is as `to` again; `kept` is what it was before."""

    vm: VmRecord
    to: Snapshot
    kept: Snapshot
    outcome: Outcome

    @property
    def problem(self) -> str:
        """Why it does not run although it did."""
        return "" if self.outcome.vm.state in ON else self.outcome.vm.problem

    @property
    def is_cold(self) -> bool:
        """Whether it booted although `to` has memory, which could not be used after all."""
        return self.to.has_memory and self.outcome.cold_booted


class Snapshots:
    """Snapshots of the caller's VMs. All raise NotFound for a VM or a snapshot that is not there."""

    def __init__(
        self,
        *,
        store: Store,
        engine: Engine,
        facts: Facts,
        journal: Journal,
        access: Access,
        undo_s: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        """For `undo_s` seconds a rollback is what `undo` may take back; by its name one can for ever."""
        self._store = store
        self._engine = engine
        self._facts = facts
        self._journal = journal
        self._access = access
        self._undo_s = undo_s
        self._now = now

    async def take(
        self, caller: Caller, vm_name: str, name: str | None, *, live: bool = False, act: str
    ) -> Snapshot:
        """Keep a VM's disk as it is, `live` also its memory; the VM goes on. No name: the time is one.

        Raises Invalid (a name that cannot be one), Conflict (taken, the VM is being made, or has no
        memory), Exhausted (too many, or a full pool).
        """
        if name is not None:
            check_name(name)
        async with self._access.exclusively(caller, vm_name, doing="snap") as vm:
            async with self._store.read() as tx:
                names = await snapshots.names(tx, vm.id)
            _check_room(vm, len(names))
            if name in names:
                raise Conflict(
                    f"{vm.title} has a snapshot {name} already",
                    hint=f"Try another name, or first: snap rm {vm.label} {name}",
                )
            name = name or free_name(named_at(self._now()), names)
            payload: dict[str, Json] = {"snapshot": ids.new("snap"), "name": name, "live": live}
            await self._do(OpKind.SNAPSHOT, vm, payload, act)
            return await self._stored(str(payload["snapshot"]))

    async def of(self, caller: Caller, vm_name: str | None) -> tuple[Held, ...]:
        """Those of one VM, or of all that the caller may touch: by VM, then oldest first."""
        if vm_name is None:
            shown = await self._access.visible(caller)
        else:
            shown = (await self._access.find(caller, vm_name),)
        found = await self._all(*shown)
        holders = sorted({one.vm for one in found})
        alone = dict(zip(holders, await together(*map(self._alone, holders)), strict=True))
        return tuple(
            Held(vm=vm, snapshot=one, alone_bytes=alone[vm.id].get(one.id))
            for vm in shown
            for one in found
            if one.vm == vm.id
        )

    async def _alone(self, vm: str) -> dict[str, int]:
        """What each snapshot of a VM holds alone; nothing while the engine does not say."""
        try:
            answer = await self._engine.call(ListSnapshots(vm=vm), SnapshotList, seconds=ASK_S)
        except AtollError:
            return {}
        return {one.snapshot: one.alone_bytes for one in answer.snapshots}

    async def remove(self, caller: Caller, vm_name: str, name: str, *, act: str) -> None:
        """Let go of one; the VM and the other snapshots stay as they are."""
        async with self._access.exclusively(caller, vm_name, doing="snap rm") as vm:
            one = named(vm, await self._all(vm), name)
            await self._do(OpKind.DROP_SNAPSHOT, vm, {"snapshot": one.id, "name": one.name}, act)

    async def roll_back(
        self, caller: Caller, vm_name: str, name: str | None, *, cold: bool = False, act: str
    ) -> RolledBack:
        """Make a VM what it was; without a name, as it was last kept.

        From memory, unless `cold`, it runs on; without one it boots if it ran. Raises Conflict for a
        memory that does not fit it any more.
        """
        async with self._access.exclusively(caller, vm_name, doing="rollback") as vm:
            held = await self._all(vm)
            to = _newest(vm, held) if name is None else named(vm, held, name)
            return await self._go_back(vm, held, to, Reason.ROLLBACK, act, cold=cold)

    async def last_rollback(self, caller: Caller) -> tuple[VmRecord, Snapshot] | None:
        """The caller's VM that was rolled back last, lately and not undone, and what that replaced."""
        shown = {vm.id: vm for vm in await self._access.visible(caller)}
        since = self._now() - self._undo_s
        found = [
            one
            for one in await self._all(*shown.values())
            if one.reason is Reason.ROLLBACK and one.created_at > since
        ]
        return (shown[found[-1].vm], found[-1]) if found else None

    async def undo(self, caller: Caller, vm_name: str, kept: Snapshot, *, act: str) -> RolledBack:
        """Go back to what a rollback replaced. NotFound: that was done, or removed, meanwhile."""
        async with self._access.exclusively(caller, vm_name, doing="undo") as vm:
            held = await self._all(vm)
            if kept not in held:
                raise NotFound("there is nothing to undo", hint=f"Try: snap ls {vm.label}")
            return await self._go_back(vm, held, kept, Reason.UNDO, act)

    async def _go_back(
        self,
        vm: VmRecord,
        held: Sequence[Snapshot],
        to: Snapshot,
        reason: Reason,
        act: str,
        *,
        cold: bool = False,
    ) -> RolledBack:
        _check_room(vm, len(held))
        facts = await self._facts.held(vm)
        payload: dict[str, Json] = {
            "snapshot": to.id,
            "to": to.name,
            "keep": ids.new("snap"),
            "name": free_name(f"before-{named_at(self._now())}", {one.name for one in held}),
            "reason": reason.value,
            "starts": facts.state in ON or (to.has_memory and not cold),
            "cold": cold,
        }
        outcome = await self._do(OpKind.ROLLBACK, vm, payload, act)
        kept = await self._stored(str(payload["keep"]))
        return RolledBack(vm=vm, to=to, kept=kept, outcome=outcome)

    async def _do(self, kind: OpKind, vm: VmRecord, payload: dict[str, Json], act: str) -> Outcome:
        outcome = await self._journal.do(kind, vm, act=act, payload=payload)
        if outcome is None:
            raise Internal(f"the engine said nothing of {kind.value}")
        return outcome

    async def _all(self, *vms: VmRecord) -> tuple[Snapshot, ...]:
        async with self._store.read() as tx:
            return await snapshots.of_vms(tx, [vm.id for vm in vms])

    async def _stored(self, snapshot: str) -> Snapshot:
        async with self._store.read() as tx:
            found = await snapshots.get(tx, snapshot)
        if found is None:
            raise Internal(f"snapshot {snapshot} is gone although it was just taken")
        return found


def _check_room(vm: VmRecord, count: int) -> None:
    vm.check_made()
    if count >= PER_VM:
        raise Exhausted(
            f"{vm.title} has {count} snapshots, which is the limit",
            hint=f"Try: snap ls {vm.label}, then: snap rm {vm.label} <name>",
        )


def named(vm: VmRecord, held: Sequence[Snapshot], name: str) -> Snapshot:
    """The one of this name. Raises NotFound."""
    for one in held:
        if one.name == name:
            return one
    raise NotFound(f"{vm.title} has no snapshot {name[:70]!r}", hint=f"Try: snap ls {vm.label}")


def _newest(vm: VmRecord, held: Sequence[Snapshot]) -> Snapshot:
    """Not one that a rollback left: that would take the last rollback back, which is said by its name."""
    for reason in (Reason.TAKEN, Reason.HISTORY):
        if of_it := [one for one in held if one.reason is reason]:
            return of_it[-1]
    raise NotFound(f"{vm.title} has no snapshot", hint=f"Try: snap {vm.label}")
