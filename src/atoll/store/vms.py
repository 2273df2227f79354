"""VMs and their tags. A row changes only through `update`, which counts its generation up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, func, insert, select, update

from atoll.base.errors import Conflict
from atoll.domain.sharing import DEFAULT_PORT, WHOLE, Who
from atoll.domain.vm import Phase, VmRecord, Wanted
from atoll.store.engine import Tx
from atoll.store.schema import grants, vms
from atoll.store.schema import tags as tags_table

_OPEN = exists().where(
    grants.c.vm == vms.c.id,
    grants.c.kind == Who.PUBLIC,
    grants.c.port == DEFAULT_PORT,
    grants.c.path == WHOLE,
)
_COLUMNS = (*(column.name for column in vms.c), "is_public")


async def add(tx: Tx, vm: VmRecord) -> None:
    """Store a new VM with its tags; the caller has checked that the name is free."""
    values = {column.name: getattr(vm, column.name) for column in vms.c}
    await tx.execute(insert(vms).values(values))
    await _add_tags(tx, vm.id, vm.tags)


async def get(tx: Tx, vm: str) -> VmRecord | None:
    """The VM with this id, in whatever phase."""
    return _only(await _where(tx, vms.c.id == vm))


async def some(tx: Tx, ids: Collection[str]) -> tuple[VmRecord, ...]:
    """The VMs with these ids, in whatever phase."""
    return await _where(tx, vms.c.id.in_(ids)) if ids else ()


async def named(tx: Tx, name: str) -> VmRecord | None:
    """The VM that has this name now, whoever owns it."""
    return _only(await _where(tx, vms.c.name == name))


async def id_of(tx: Tx, owner: str, name: str, *, act: str) -> str | None:
    """Which of the owner's VMs a command means by its name: one that has it, or that `act` removed."""
    removed = (vms.c.former_name == name) & (vms.c.trash_act == act)
    query = select(vms.c.id).where(vms.c.owner == owner, (vms.c.name == name) | removed)
    return (await tx.execute(query.order_by(vms.c.name.is_not(None)).limit(1))).scalar()


async def owned(tx: Tx, owner: str) -> tuple[VmRecord, ...]:
    """An account's VMs by name, without those in the trash."""
    return await owned_by(tx, (owner,))


async def owned_by(tx: Tx, owners: Collection[str]) -> tuple[VmRecord, ...]:
    """The same of several accounts."""
    return await _where(tx, vms.c.owner.in_(owners) & (vms.c.phase != Phase.TRASHED))


async def everywhere(tx: Tx) -> tuple[VmRecord, ...]:
    """Every VM, the trash included."""
    return await _where(tx, vms.c.id.is_not(None))


async def ids(tx: Tx) -> frozenset[str]:
    """Ids of every VM, the trash included."""
    return frozenset((await tx.execute(select(vms.c.id))).scalars())


async def trashed(tx: Tx, owner: str) -> tuple[VmRecord, ...]:
    """An account's trash, latest first."""
    found = await _where(tx, (vms.c.owner == owner) & (vms.c.phase == Phase.TRASHED))
    return tuple(sorted(found, key=lambda vm: vm.trashed_at or 0.0, reverse=True))


async def marks(tx: Tx, owner: str) -> dict[str, tuple[str, int]]:
    """What each of an account's VMs is called, the trash included, and how often it was changed."""
    label = func.coalesce(vms.c.name, vms.c.former_name, vms.c.id)
    query = select(vms.c.id, label, vms.c.generation).where(vms.c.owner == owner)
    return {vm: (name, generation) for vm, name, generation in await tx.execute(query)}


async def owners(tx: Tx) -> dict[str, str]:
    """Whose each VM is, the trash included."""
    rows = await tx.execute(select(vms.c.id, vms.c.owner))
    return {row.id: row.owner for row in rows}


async def trash_over(tx: Tx, *, now: float) -> tuple[VmRecord, ...]:
    """VMs whose time in the trash is over."""
    return await _where(tx, (vms.c.phase == Phase.TRASHED) & (vms.c.trash_until <= now))


async def count(tx: Tx, owner: str) -> int:
    """How many VMs an account has, without the trash."""
    query = select(func.count()).where(vms.c.owner == owner, vms.c.phase != Phase.TRASHED)
    return (await tx.execute(query)).scalar_one()


async def is_free(tx: Tx, name: str) -> bool:
    """True when no VM has this name."""
    return (await tx.execute(select(vms.c.id).where(vms.c.name == name))).first() is None


async def change(tx: Tx, vm: VmRecord, **values: Any) -> None:
    """Set columns of the row that `vm` was read from.

    Raises Conflict when the row changed since (its generation moved on).
    """
    done = await tx.execute(
        update(vms)
        .where(vms.c.id == vm.id, vms.c.generation == vm.generation)
        .values(**values, generation=vm.generation + 1)
    )
    if done.rowcount != 1:
        raise Conflict(f"{vm.title} changed meanwhile", hint="Try again")


async def set_tags(tx: Tx, vm: str, tags: Iterable[str]) -> None:
    """Make `tags` the tags of a VM."""
    await tx.execute(delete(tags_table).where(tags_table.c.vm == vm))
    await _add_tags(tx, vm, tags)


async def remove(tx: Tx, vm: str) -> None:
    """Forget a VM with its tags and the keys and tokens made for it alone."""
    await tx.execute(delete(vms).where(vms.c.id == vm))


async def _add_tags(tx: Tx, vm: str, tags: Iterable[str]) -> None:
    rows = [{"vm": vm, "tag": tag} for tag in sorted(set(tags))]
    if rows:
        await tx.execute(insert(tags_table), rows)


async def _where(tx: Tx, condition: ColumnElement[bool]) -> tuple[VmRecord, ...]:
    query = select(vms, _OPEN).where(condition).order_by(vms.c.name, vms.c.id)
    rows = (await tx.execute(query)).all()
    tagged: dict[str, list[str]] = defaultdict(list)
    tags = select(tags_table).join_from(tags_table, vms).where(condition)
    for vm, tag in await tx.execute(tags.order_by(tags_table.c.tag)):
        tagged[vm].append(tag)
    return tuple(_record(row, tagged) for row in rows)


def _record(row: Sequence[Any], tagged: Mapping[str, Sequence[str]]) -> VmRecord:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["phase"], values["wanted"] = Phase(values["phase"]), Wanted(values["wanted"])
    values["is_public"] = bool(values["is_public"])
    return VmRecord(**values, tags=tuple(tagged.get(values["id"], ())))


def _only(found: tuple[VmRecord, ...]) -> VmRecord | None:
    return found[0] if found else None
