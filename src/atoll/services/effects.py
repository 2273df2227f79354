"""What each kind of operation asks of the engine, and what it then writes to the store.

Invariant: `perform` may be called again with the same operation at any time until it is settled:
the request ids come from the operation, so the engine acts once. `settle` and `revert` run inside
the transaction that also closes the journal entry.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TypeVar, assert_never

from atoll.base.errors import AtollError, Conflict, NotFound, Unavailable
from atoll.domain.operation import Json, Operation, OpKind
from atoll.domain.setup import Setup
from atoll.domain.sharing import Level
from atoll.domain.snapshot import Reason, Snapshot
from atoll.domain.vm import Phase, VmRecord, Wanted
from atoll.rpc.messages import (
    Clone,
    Create,
    Delete,
    DropSnapshot,
    Empty,
    GetVm,
    Identify,
    Identity,
    ListSnapshots,
    Message,
    Outcome,
    Pause,
    Resize,
    Restart,
    Resume,
    RollBack,
    SnapshotList,
    Spec,
    Stop,
    TakeSnapshot,
    Vm,
)
from atoll.services.facts import ON, Engine
from atoll.services.keys import Keys
from atoll.services.publishing import openings_by
from atoll.store import accounts, grants, snapshots, vms
from atoll.store.accounts import SshKey
from atoll.store.engine import Store, Tx

R = TypeVar("R", bound=Message)
RETRIES_S = (0.1, 0.3, 1.0, 2.0)  # an engine restart takes about that long
BOOT_S = 300.0  # a cold boot of a big guest without KVM
SAVE_S = 180.0  # memory to disk
CLONE_S = 330.0
SHORT_S = 60.0
KEYS_PER_VM = 256  # the RPC's limit


SETUP_KEYS = ("setup_script", "env")
ORDER_S = 1e-3  # seconds between two acts that the clock does not tell apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """The engine's half and the store's half of every operation."""

    engine: Engine
    store: Store
    keys: Keys
    domain: str
    trash_s: float

    async def perform(self, op: Operation) -> Outcome | None:
        """Make it so on the engine. Unavailable means the outcome is not known."""
        match op.kind:
            case OpKind.CREATE:
                return await self._create(op)
            case OpKind.CLONE:
                return await self._clone(op)
            case OpKind.PAUSE:
                return await self._ask(Pause(op=op.id, vm=op.vm), Outcome, SAVE_S)
            case OpKind.RESUME:
                _, identity = await self._identity(op.vm, fresh=False)
                return await self._ask(
                    Resume(op=op.id, vm=op.vm, identity=identity), Outcome, BOOT_S
                )
            case OpKind.RESTART:
                _, identity = await self._identity(op.vm, fresh=False)
                return await self._ask(
                    Restart(op=op.id, vm=op.vm, identity=identity), Outcome, BOOT_S
                )
            case OpKind.IDENTIFY:
                _, identity = await self._identity(op.vm, fresh=False, starts=False)
                return await self._ask(
                    Identify(op=op.id, vm=op.vm, identity=identity), Outcome, SHORT_S
                )
            case OpKind.RESIZE:
                return await self._resize(op)
            case OpKind.SNAPSHOT:
                live = bool(op.payload.get("live"))
                take = TakeSnapshot(
                    op=op.id,
                    vm=op.vm,
                    snapshot=str(op.payload["snapshot"]),
                    live=live,
                    unless_unchanged=bool(op.payload.get("unless_unchanged")),
                )
                return await self._ask(take, Outcome, SAVE_S if live else SHORT_S)
            case OpKind.ROLLBACK:
                return await self._roll_back(op)
            case OpKind.DROP_SNAPSHOT:
                return await self._drop_snapshot(op, op.id)
            case OpKind.TRASH:
                return await self._put_away(op)
            case OpKind.PURGE:
                await self._ask(Delete(op=op.id, vm=op.vm), Empty, SHORT_S)
                return None
            case _:
                assert_never(op.kind)

    async def settle(self, tx: Tx, op: Operation, outcome: Outcome | None, *, now: float) -> None:
        """Write what is true now that the engine has done it, and said `outcome`."""
        vm = await vms.get(tx, op.vm)
        if vm is None:
            return  # a stray that was purged has no row
        match op.kind:
            case OpKind.CREATE | OpKind.CLONE:
                await vms.change(tx, vm, phase=Phase.LIVE)
            case OpKind.PAUSE:
                await vms.change(tx, vm, wanted=Wanted.PAUSED)
            case OpKind.RESUME | OpKind.RESTART:
                await vms.change(tx, vm, wanted=Wanted.RUNNING)
            case OpKind.TRASH:
                # `undo` takes back the latest: the order must hold when the clock stands or jumps.
                earlier = await vms.trashed(tx, vm.owner)
                latest = (earlier[0].trashed_at or 0.0) if earlier else 0.0
                await vms.change(
                    tx,
                    vm,
                    phase=Phase.TRASHED,
                    name=None,
                    former_name=vm.name,
                    trashed_at=max(now, latest + ORDER_S),
                    trash_until=now + self.trash_s,
                    trash_act=op.act,
                )
            case OpKind.RESIZE:
                await vms.change(tx, vm, **op.payload)
            case OpKind.SNAPSHOT:
                if outcome is None or not outcome.unchanged:
                    reason = Reason(str(op.payload.get("reason", Reason.TAKEN)))
                    await snapshots.add(tx, _kept(op, "snapshot", reason, outcome))
            case OpKind.ROLLBACK:
                reason = Reason(str(op.payload["reason"]))
                await snapshots.add(tx, _kept(op, "keep", reason, outcome))
                if reason is Reason.UNDO:
                    await snapshots.set_reason(tx, str(op.payload["snapshot"]), reason)
                wanted = Wanted.RUNNING if op.payload["starts"] else Wanted.STOPPED
                await vms.change(tx, vm, wanted=wanted)
            case OpKind.DROP_SNAPSHOT:
                await snapshots.remove(tx, str(op.payload["snapshot"]))
            case OpKind.PURGE:
                await vms.remove(tx, vm.id)
            case OpKind.IDENTIFY:
                pass  # the store had it first
            case _:
                assert_never(op.kind)

    async def compensate(self, op: Operation) -> Snapshot | None:
        """Take back on the engine what a failed operation may have left.

        A rollback that failed late has kept what it was to replace, and nothing else may know of that:
        it is returned, for `revert`.
        """
        if op.kind in (OpKind.CREATE, OpKind.CLONE):
            await self._ask(Delete(op=op.step("undo"), vm=op.vm), Empty, SHORT_S)
        if op.kind is OpKind.SNAPSHOT:
            with contextlib.suppress(NotFound):  # the VM itself: then nothing is left
                await self._drop_snapshot(op, op.step("undo"))
        if op.kind is OpKind.ROLLBACK and op.payload["keep"] in await self._snapshots(op.vm):
            return _kept(op, "keep", Reason.ROLLBACK, None)
        return None

    async def revert(self, tx: Tx, op: Operation, kept: Snapshot | None) -> None:
        """Take back in the store what the intent wrote, and note what is `kept` all the same."""
        if op.kind in (OpKind.CREATE, OpKind.CLONE):
            await vms.remove(tx, op.vm)
        if kept is not None:
            await snapshots.add(tx, kept)

    async def _drop_snapshot(self, op: Operation, request: str) -> Outcome:
        drop = DropSnapshot(op=request, vm=op.vm, snapshot=str(op.payload["snapshot"]))
        return await self._ask(drop, Outcome, SHORT_S)

    async def _snapshots(self, vm: str) -> tuple[str, ...]:
        try:
            answer = await self._ask(ListSnapshots(vm=vm), SnapshotList, SHORT_S)
        except NotFound:
            return ()
        return tuple(one.snapshot for one in answer.snapshots)

    async def _create(self, op: Operation) -> Outcome:
        vm, identity = await self._identity(op.vm, fresh=True)
        first = {key: op.payload[key] for key in SETUP_KEYS if key in op.payload}
        identity = identity.model_copy(update=first)
        request = Create(op=op.id, vm=vm.id, owner=vm.owner, spec=_spec(vm), identity=identity)
        return await self._ask(request, Outcome, BOOT_S)

    async def _clone(self, op: Operation) -> Outcome:
        vm, identity = await self._identity(op.vm, fresh=True)
        source = str(op.payload["source"])
        snapshot = op.payload.get("snapshot")
        request = Clone(
            op=op.id,
            source=source,
            vm=vm.id,
            owner=vm.owner,
            identity=identity,
            spec=_spec(vm),
            snapshot=None if snapshot is None else str(snapshot),
        )
        return await self._ask(request, Outcome, CLONE_S)

    async def _resize(self, op: Operation) -> Outcome:
        async with self.store.read() as tx:
            vm = await vms.get(tx, op.vm)
        if vm is None:
            raise NotFound(f"VM {op.vm} is not in the store")
        spec = Spec.model_validate({"image": vm.image, **op.payload})
        return await self._ask(Resize(op=op.id, vm=op.vm, spec=spec), Outcome, SHORT_S)

    async def _roll_back(self, op: Operation) -> Outcome:
        _, identity = await self._identity(op.vm, fresh=False)
        request = RollBack(
            op=op.id,
            vm=op.vm,
            snapshot=str(op.payload["snapshot"]),
            keep=str(op.payload["keep"]),
            identity=identity if op.payload["starts"] else None,
            cold=bool(op.payload.get("cold")),
        )
        return await self._ask(request, Outcome, BOOT_S)

    async def _put_away(self, op: Operation) -> Outcome | None:
        """Off, with its memory saved if that can be: a full disk must not keep a VM alive."""
        if not await self._runs(op.vm):
            return None
        try:
            return await self._ask(Pause(op=op.step("pause"), vm=op.vm), Outcome, SAVE_S)
        except (Unavailable, Conflict):
            raise  # not known, or busy just now: no reason to lose its memory
        except AtollError:
            try:
                return await self._ask(Stop(op=op.step("stop"), vm=op.vm), Outcome, SAVE_S)
            except Unavailable:
                raise
            except AtollError:
                if await self._runs(op.vm):
                    raise
                return None

    async def _runs(self, vm: str) -> bool:
        try:
            facts = await self._ask(GetVm(vm=vm), Vm, SHORT_S)
        except NotFound:
            return False
        return facts.state in ON

    async def _identity(
        self, vm_id: str, *, fresh: bool, starts: bool = True
    ) -> tuple[VmRecord, Identity]:
        async with self.store.read() as tx:
            vm = await vms.get(tx, vm_id)
            if vm is None:
                raise NotFound(f"VM {vm_id} is not in the store")
            keys = await _entering_keys(tx, vm)
        private, public = self.keys.vm_host_key(vm.id)
        name = vm.label
        lines = [f"{key.public_key} {key.name}" for key in keys]
        return vm, Identity(
            hostname=name,
            fresh=fresh,
            # A copy of a paused VM has its parent's key until it first runs.
            host_key=private if starts else None,
            host_certificate=self.keys.host_certificate(
                public, (vm.id, name, f"{name}.{self.domain}")
            ),
            user_ca=self.keys.user_ca_public,
            authorized_keys=tuple(lines[:KEYS_PER_VM]),
        )

    async def _ask(self, request: Message, answer: type[R], seconds: float) -> R:
        """Ask until the engine has answered, over a restart of it, within `seconds` in all."""
        clock = asyncio.get_running_loop().time
        end = clock() + seconds
        for pause in RETRIES_S:
            try:
                return await self.engine.call(request, answer, seconds=end - clock())
            except Unavailable:
                if clock() + pause >= end:
                    raise
                await asyncio.sleep(pause)
        return await self.engine.call(request, answer, seconds=max(end - clock(), 0.1))


async def _entering_keys(tx: Tx, vm: VmRecord) -> list[SshKey]:
    """Keys that open a VM, its owner's first. The agent has keys for the login user alone; those of
    others come by the gateway, and so does who has a key limited to a tag of an account of their own.
    """
    owned = await accounts.keys_of(tx, vm.owner)
    roots = [grant for grant in await grants.of_vm(tx, vm.id) if grant.level is Level.ROOT]
    entering = {one.account for one in await openings_by(tx, vm, roots)}
    others = await accounts.keys_of_all(tx, entering - {vm.owner})
    return [
        *(key for key in owned if key.scope.covers(vm.id, vm.tags) and key.user is None),
        *(key for key in others if key.scope.is_whole),
    ]


def _kept(op: Operation, field: str, reason: Reason, outcome: Outcome | None) -> Snapshot:
    """What the engine now has under the id in this field of the payload."""
    return Snapshot(
        id=str(op.payload[field]),
        vm=op.vm,
        name=str(op.payload["name"]),
        reason=reason,
        is_clean=outcome is not None and not outcome.crash_consistent,
        has_memory=outcome is not None and outcome.memory_kept,
        created_at=op.created_at,
    )


def setup_payload(setup: Setup) -> dict[str, Json]:
    """What the journal keeps for a CREATE until it is over: fields of the VM's first Identity."""
    fields: dict[str, Json] = dict(zip(SETUP_KEYS, (setup.script, dict(setup.env)), strict=True))
    return {key: value for key, value in fields.items() if value}


def _spec(vm: VmRecord) -> Spec:
    return Spec(
        image=vm.image, cpus=vm.cpus, memory_bytes=vm.memory_bytes, disk_bytes=vm.disk_bytes
    )
