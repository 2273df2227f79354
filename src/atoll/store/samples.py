"""What VMs used, by VM and span of time: a ring of rows per VM and range.

Invariant: a span's row is the place (start / length) modulo (spans of the range), so it overwrites the
one that is a whole range older. The table has an upper bound and nothing has to be thinned; a clock that
is set, however far, costs the rows it wrote meanwhile and no others. Whoever reads asks by time, so a
row of the round before is not mistaken for one of this.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.dialects import postgresql, sqlite

from atoll.domain.usage import Growth, Range, Sizes, Use
from atoll.store.engine import Tx
from atoll.store.schema import samples

_AT_ONCE = 1000  # VMs in one question; SQLite takes 32,766 values, PostgreSQL 32,767
_GROWTH = tuple(field.name for field in fields(Growth))
_SIZES = tuple(field.name for field in fields(Sizes))
_KEY = ("vm", "span_s", "slot")


async def at(tx: Tx, range_: Range, start: float, vms: Collection[str]) -> dict[str, Use]:
    """What is kept of some VMs for the span that begins at `start`."""
    ids = sorted(vms)
    found: dict[str, Use] = {}
    for first in range(0, len(ids), _AT_ONCE):
        some = samples.c.vm.in_(ids[first : first + _AT_ONCE])
        span = _is_of(range_) & (samples.c.slot == _slot(range_, start)) & (samples.c.at == start)
        rows = await tx.execute(select(samples).where(some & span))
        found |= {row.vm: _use(row._mapping) for row in rows}
    return found


async def put(tx: Tx, range_: Range, start: float, uses: Mapping[str, Use]) -> None:
    """Keep this of VMs for the span that begins at `start`, in place of what is there."""
    if not uses:
        return
    span = {"span_s": range_.span_s, "slot": _slot(range_, start), "at": start}
    rows = [
        {"vm": vm, **span, **asdict(use.growth), **asdict(use.sizes)} for vm, use in uses.items()
    ]
    # Not part of SQLAlchemy's common language, though both databases mean the same by it.
    is_sqlite = tx.dialect.name == "sqlite"
    insert = sqlite.insert(samples) if is_sqlite else postgresql.insert(samples)
    new = {name: insert.excluded[name] for name in ("at", *_GROWTH, *_SIZES)}
    await tx.execute(insert.on_conflict_do_update(index_elements=_KEY, set_=new), rows)


async def of(tx: Tx, vm: str, range_: Range, *, since: float, until: float) -> dict[float, Use]:
    """What is kept of one VM, by the start of the span: those from `since` to `until`, both included."""
    times = samples.c.at.between(since, until)
    rows = await tx.execute(select(samples).where((samples.c.vm == vm) & _is_of(range_) & times))
    return {row.at: _use(row._mapping) for row in rows}


def _is_of(range_: Range) -> ColumnElement[bool]:
    return samples.c.span_s == range_.span_s


def _slot(range_: Range, start: float) -> int:
    return int(start // range_.span_s) % range_.points


def _use(row: Mapping[Any, Any]) -> Use:
    growth = Growth(**{name: row[name] for name in _GROWTH})
    return Use(growth, Sizes(**{name: row[name] for name in _SIZES}))
