"""The journal of operations."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import delete, insert, select, update

from atoll.domain.operation import Json, Operation, OpKind, OpState
from atoll.store.engine import Tx
from atoll.store.schema import operations, vms

_OPEN = (OpState.INTENT, OpState.UNDOING)


async def add(tx: Tx, op: Operation) -> None:
    """Write an intent down."""
    values = {column.name: getattr(op, column.name) for column in operations.c}
    await tx.execute(insert(operations).values(values | {"payload": dict(op.payload)}))


async def unfinished(tx: Tx, *, vm: str | None = None) -> tuple[Operation, ...]:
    """Operations whose outcome is not known yet, oldest first."""
    query = select(operations).where(operations.c.state.in_(_OPEN))
    if vm is not None:
        query = query.where(operations.c.vm == vm)
    rows = await tx.execute(query.order_by(operations.c.created_at, operations.c.id))
    return tuple(_operation(row._mapping) for row in rows)


async def knows(tx: Tx, vm: str) -> bool:
    """True when the journal has ever heard of this VM."""
    query = select(operations.c.id).where(operations.c.vm == vm).limit(1)
    return (await tx.execute(query)).first() is not None


async def tried(tx: Tx, op: Operation) -> Operation:
    """Count one more attempt; returns the row as it is now."""
    await tx.execute(
        update(operations)
        .where(operations.c.id == op.id)
        .values(attempts=operations.c.attempts + 1)
    )
    row = (await tx.execute(select(operations).where(operations.c.id == op.id))).one()
    return _operation(row._mapping)


async def turn_back(tx: Tx, op: Operation, *, error: Mapping[str, Json]) -> None:
    """From here on the operation is only undone."""
    await _set(tx, op, state=OpState.UNDOING, result={"error": dict(error)})


async def finish(
    tx: Tx, op: Operation, state: OpState, *, result: Mapping[str, Json], now: float
) -> None:
    """Record the outcome. What it was begun with goes: it may be a script with secrets."""
    await _set(tx, op, state=state, payload={}, result=dict(result), finished_at=now)


async def forget(tx: Tx, *, before: float) -> None:
    """Drop finished operations older than `before` of VMs that no longer exist."""
    await tx.execute(
        delete(operations).where(
            operations.c.state.in_((OpState.DONE, OpState.FAILED)),
            operations.c.finished_at < before,
            operations.c.vm.not_in(select(vms.c.id)),
        )
    )


async def forget_kinds(tx: Tx, kinds: Collection[OpKind], *, before: float) -> None:
    """Drop finished operations of these kinds, older than `before`, of whatever VM."""
    await tx.execute(
        delete(operations).where(
            operations.c.kind.in_(kinds),
            operations.c.state.in_((OpState.DONE, OpState.FAILED)),
            operations.c.finished_at < before,
        )
    )


async def _set(tx: Tx, op: Operation, **values: Any) -> None:
    await tx.execute(update(operations).where(operations.c.id == op.id).values(**values))


def _operation(row: Any) -> Operation:
    values = dict(row)
    return Operation(**values | {"kind": OpKind(values["kind"]), "state": OpState(values["state"])})
