"""The journal: an operation is written down, done by the engine, then closed with its effects.

Invariant: whoever carries an operation out holds its VM's lock, and an operation ends as DONE or
FAILED exactly once, in one transaction with what it means for the store. One that was cut short
(crash, engine away, caller gone) is found here and asked again with the same id, or undone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from atoll.base import ids, log
from atoll.base.aio import together
from atoll.base.errors import AtollError, Conflict, Unavailable, from_wire
from atoll.base.timeout import timeout
from atoll.domain.operation import Json, Operation, OpKind, OpState
from atoll.domain.vm import VmRecord
from atoll.rpc.messages import Node, NodeInfo, Outcome
from atoll.services.changes import Changes
from atoll.services.effects import Effects
from atoll.services.facts import ASK_S, ON, Facts
from atoll.services.locks import VmLocks
from atoll.store import operations
from atoll.store.engine import Store, Tx

GIVE_UP_AFTER = 5  # attempts that an engine which does answer could not bring to an end
TICK_S = 5.0
AT_ONCE = 4
_log = log.get("journal")


class Journal:
    """Carries operations out and brings unfinished ones to their end."""

    def __init__(
        self,
        *,
        store: Store,
        effects: Effects,
        facts: Facts,
        locks: VmLocks,
        changes: Changes,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._effects = effects
        self._facts = facts
        self._locks = locks
        self._changes = changes
        self._now = now
        self._due = asyncio.Event()

    def wake(self) -> None:
        """Look for unfinished operations now: the engine is back, or background work was added."""
        self._due.set()

    async def run(self) -> None:
        """Resume what is unfinished: at the start, when woken and every few seconds."""
        while True:
            self._due.clear()
            try:
                await self.resume()
            except AtollError as error:
                _log.warning("journal not resumed", reason=str(error))
            try:
                async with timeout(TICK_S):
                    await self._due.wait()
            except TimeoutError:
                continue

    async def intend(
        self,
        tx: Tx,
        kind: OpKind,
        vm: VmRecord,
        *,
        act: str,
        payload: Mapping[str, Json] | None = None,
    ) -> Operation:
        """Write an intent down; carry it out once `tx` has committed."""
        op = Operation(
            id=ids.new("op"),
            act=act,
            kind=kind,
            vm=vm.id,
            account=vm.owner,
            payload=payload or {},
            created_at=self._now(),
        )
        await operations.add(tx, op)
        return op

    async def do(
        self, kind: OpKind, vm: VmRecord, *, act: str, payload: Mapping[str, Json] | None = None
    ) -> Outcome | None:
        """Write an intent down and carry it out; see `carry_out`."""
        async with self._store.begin() as tx:
            op = await self.intend(tx, kind, vm, act=act, payload=payload)
        return await self.carry_out(op)

    async def inform(self, tx: Tx, vm: VmRecord, *, act: str) -> None:
        """Have a VM that runs told its name and whose keys open it; the others are when they start.

        Call `wake` once `tx` has committed.
        """
        facts = self._facts.get(vm.id)
        if facts is not None and facts.state in ON:
            await self.intend(tx, OpKind.IDENTIFY, vm, act=act)

    async def carry_out(self, op: Operation) -> Outcome | None:
        """Bring an operation to its end; the caller holds the VM's lock.

        Raises the engine's refusal once it is undone, or Unavailable while the outcome is unknown.
        """
        if op.state is OpState.UNDOING:
            await self._undo(op)
            raise _failure(op)
        started = time.monotonic()
        try:
            outcome = await self._effects.perform(op)
        except Unavailable:
            raise
        except asyncio.CancelledError:
            self.wake()  # the asker left; the work goes on without it
            raise
        except AtollError as error:
            await self._turn_back(op, error)
            raise
        async with self._store.begin() as tx:
            now = self._now()
            await self._effects.settle(tx, op, outcome, now=now)
            result = _result(outcome)
            await operations.finish(tx, op, OpState.DONE, result=result, now=now)
        if outcome is not None:
            self._facts.observe(outcome.vm)
        if op.kind is OpKind.PURGE:
            self._facts.gone(op.vm)
        self._changes.bump()
        took_ms = round(1000 * (time.monotonic() - started))
        _log.info("operation done", op=op.id, kind=op.kind.value, vm=op.vm, ms=took_ms)
        return outcome

    async def settle(self, vm: VmRecord) -> None:
        """End what is unfinished on a VM before something new; the caller holds its lock.

        Raises Conflict when that cannot be, because the engine does not say.
        """
        async with self._store.read() as tx:
            unfinished = await operations.unfinished(tx, vm=vm.id)
        for op in unfinished:
            try:
                await self.carry_out(op)
            except Unavailable as error:
                if op.kind is not OpKind.IDENTIFY:  # the next start carries name and keys as well
                    raise Conflict(
                        f"{vm.title}: an earlier `{op.kind}` is not finished: {error.message}",
                        hint="Try again in a moment, or: atoll doctor",
                    ) from error
            except AtollError as error:
                _log.info("operation failed", op=op.id, kind=op.kind.value, reason=str(error))

    async def resume(self) -> None:
        """One pass over everything unfinished that nobody is working on."""
        async with self._store.read() as tx:
            unfinished = await operations.unfinished(tx)
        if not unfinished:
            return
        gate = asyncio.Semaphore(AT_ONCE)
        by_vm: dict[str, list[Operation]] = {}
        for op in unfinished:
            by_vm.setdefault(op.vm, []).append(op)
        await together(*(self._resume_vm(vm, ops, gate) for vm, ops in by_vm.items()))

    async def _resume_vm(self, vm: str, ops: list[Operation], gate: asyncio.Semaphore) -> None:
        async with gate:
            if self._locks.doing(vm) is not None:
                return  # its owner is at work and will end it
            async with self._locks.hold(vm, label=vm, doing="resume of the journal"):
                for op in ops:
                    if not await self._resume_one(op):
                        return

    async def _resume_one(self, op: Operation) -> bool:
        """False: later operations on this VM must wait."""
        async with self._store.begin() as tx:
            op = await operations.tried(tx, op)
        if op.state not in (OpState.INTENT, OpState.UNDOING):
            return True
        try:
            await self.carry_out(op)
        except Unavailable as error:
            if op.state is OpState.UNDOING or op.attempts < GIVE_UP_AFTER:
                return False
            await self._effects.engine.call(NodeInfo(), Node, seconds=ASK_S)  # away: keep waiting
            await self._turn_back(op, error)
        except AtollError as error:
            _log.info("operation failed", op=op.id, kind=op.kind.value, reason=str(error))
        return True

    async def _turn_back(self, op: Operation, error: AtollError) -> None:
        """Undo after a refusal; if the engine is away just now, `resume` goes on with it."""
        async with self._store.begin() as tx:
            await operations.turn_back(tx, op, error=error.to_wire())
        try:
            await self._undo(op, error)
        except Unavailable as away:
            _log.warning("undo put off", op=op.id, reason=str(away))
            self.wake()

    async def _undo(self, op: Operation, error: AtollError | None = None) -> None:
        kept = await self._effects.compensate(op)
        reason = error or _failure(op)
        async with self._store.begin() as tx:
            await self._effects.revert(tx, op, kept)
            result: dict[str, Json] = {"error": reason.to_wire()}
            await operations.finish(tx, op, OpState.FAILED, result=result, now=self._now())
        self._changes.bump()
        _log.warning("operation undone", op=op.id, kind=op.kind.value, vm=op.vm, reason=str(reason))


def _failure(op: Operation) -> AtollError:
    wire = (op.result or {}).get("error")
    return from_wire(wire if isinstance(wire, dict) else {})


def _result(outcome: Outcome | None) -> dict[str, Json]:
    if outcome is None:
        return {}
    return {"cold_booted": outcome.cold_booted, "timings_ms": dict(outcome.timings_ms)}
