"""Refuses a pool that a newer release wrote to, before anything in it or in the kernel is touched.

An engine that went on would take what it does not know for damage: it would end the process of a VM
whose record it cannot read, set aside the template that saved memory stands on, and write records back
without what the newer release had put there. Refused, VMs run on and the pool stays as it is.

A file that cannot be read for any other reason is left to whoever needs it: one VM's trouble then.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ValidationError

from atoll.base.errors import Conflict
from atoll.engine.disk import records as pool_records
from atoll.engine.images import manifest
from atoll.engine.records import Record
from atoll.engine.saved import Meta as SavedMeta
from atoll.engine.saved import SnapshotMeta
from atoll.engine.templates import Meta as TemplateMeta

_KINDS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("vms/*/vm.json", Record),
    ("vms/*/saved/meta.json", SavedMeta),
    ("vms/*/snapshots/*/meta.json", SnapshotMeta),
    ("templates/*/meta.json", TemplateMeta),
    (f"images/*/{manifest.NAME}", manifest.Manifest),
)
_SHOWN = 3


def refuse(pool: Path) -> None:
    """Raises Conflict, naming the file, when a newer release wrote one of these; blocks shortly."""
    if (pool / "format.json").exists():
        pool_records.pool_id(pool)  # raises for another layout
    for pattern, kind in _KINDS:
        for path in sorted(pool.glob(pattern)):
            if path.relative_to(pool).parts[1].startswith("."):
                continue  # half made, set aside or half removed: nobody reads it
            if unknown := list(_unknown(path, kind)):
                raise Conflict(
                    f"a newer Atoll wrote to this pool: {path} has {', '.join(unknown[:_SHOWN])},"
                    " which this version does not know",
                    hint="Install the newer version again; nothing was changed",
                )


def _unknown(path: Path, kind: type[BaseModel]) -> Iterator[str]:
    """Fields and values that no release up to this one has written."""
    try:
        found = kind.model_validate_json(path.read_bytes())
    except OSError:
        return
    except ValidationError as error:
        for one in error.errors():
            where = ".".join(str(part) for part in one["loc"])
            if one["type"] == "extra_forbidden":
                yield f"the field {where[:80]!r}"
            elif one["type"] == "enum":  # a state, for one
                yield f"{where[:80]} {str(one['input'])[:80]!r}"
        return
    if isinstance(found, manifest.Manifest) and found.format > manifest.FORMAT:
        yield f"format {found.format}"
