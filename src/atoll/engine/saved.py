"""Saved memory of a VM: `<vm folder>/saved/` while it is paused, `<vm folder>/snapshots/<id>/` of a
live snapshot; in each `pages`, `state` and `meta.json`.

Invariant: `meta.json` is written last, so a folder without it is not a saved machine. It names the
shape the state was made for; it is never loaded into another.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from atoll.base import atomic
from atoll.base.errors import AtollError, Conflict, Internal
from atoll.base.units import show_size
from atoll.engine.qemu.argv import Shape, shape_key
from atoll.engine.qemu.machine import Saved
from atoll.engine.qemu.memory import Pages, unreadable

SNAPSHOTS = "snapshots"
COLD = "Cold boot from its disk instead? Add: --cold"


class Meta(BaseModel):
    """What the saved state fits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    state_sha256: str
    disk_bytes: int = 0  # as in Saved


class SnapshotMeta(Meta):
    """Of a live snapshot: what its machine was, which the VM may not be any more."""

    base: str | None  # template that the pages stand on, as in a VM's record
    shape: Shape


M = TypeVar("M", bound=Meta)


class SavedMemory:
    """The saved memory of a paused VM."""

    def __init__(self, vm_folder: Path) -> None:
        self._folder = vm_folder / "saved"

    @property
    def complete(self) -> bool:
        """Whether there is a saved machine."""
        return (self._folder / "meta.json").exists()

    def write(self, saved: Saved, key: str) -> Meta:
        """Store `saved` durably, an earlier one is replaced; it counts only after `commit`.

        In two parts because this one blocks for seconds, in a thread, which goes on when its caller
        is cancelled: it must not declare a machine saved that was told to run on.
        """
        self._begin()
        saved.pages.save(self._folder / "pages")
        atomic.write(self._folder / "state", saved.state)
        digest = hashlib.sha256(saved.state).hexdigest()
        return Meta(key=key, state_sha256=digest, disk_bytes=saved.disk_bytes)

    def commit(self, meta: Meta) -> None:
        """What `write` stored is a saved machine from here on."""
        # Without what says nothing, an earlier release can read it.
        text = meta.model_dump_json(exclude_defaults=True)
        atomic.write(self._folder / "meta.json", text.encode())
        atomic.sync_folder(self._folder.parent)

    def read(self, key: str) -> Saved:
        """Load it. Raises Internal when it is damaged or was made for another shape, Unavailable when
        this host cannot read it now.
        """
        meta = self.meta_for(key)
        try:
            state = (self._folder / "state").read_bytes()
        except OSError as error:
            raise unreadable("saved memory", error) from error
        if hashlib.sha256(state).hexdigest() != meta.state_sha256:
            raise Internal("saved device state is damaged: its checksum differs")
        pages = Pages.load(self._folder / "pages")
        return Saved(pages=pages, state=state, disk_bytes=meta.disk_bytes)

    def meta(self) -> Meta:
        """Raises as `read` does."""
        return self._read_meta(Meta)

    def meta_for(self, key: str) -> Meta:
        """Raises as `read` does."""
        meta = self.meta()
        if meta.key != key:
            raise Internal("saved memory is of another QEMU, kernel or machine shape")
        return meta

    def copy_to(self, other: SavedMemory) -> None:
        """Give another VM the same saved machine."""
        other.link(self, self.meta())

    def link(self, other: SavedMemory, meta: Meta) -> None:
        """Have what another has, with this `meta`; its files never change, so they are shared."""
        self._begin()
        for name in ("pages", "state"):
            os.link(other._folder / name, self._folder / name)
        atomic.sync_folder(self._folder)
        self.commit(meta)

    def forget(self) -> None:
        """Remove it: from the first instruction of the resumed VM on it no longer fits the disk."""
        if self._folder.exists():
            atomic.remove(self._folder / "meta.json")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _begin(self) -> None:
        self.forget()
        self._folder.parent.mkdir(mode=0o700, exist_ok=True)
        self._folder.mkdir(mode=0o700)

    def _read_meta(self, kind: type[M]) -> M:
        try:
            return kind.model_validate_json((self._folder / "meta.json").read_bytes())
        except OSError as error:
            raise unreadable("saved memory", error) from error
        except ValidationError as error:
            raise Internal(f"saved memory cannot be read: {error}") from error


class SnapshotMemory(SavedMemory):
    """The memory of a live snapshot. It stays when a machine was made from it."""

    def __init__(self, vm_folder: Path, snapshot: str) -> None:
        super().__init__(vm_folder)
        self._folder = vm_folder / SNAPSHOTS / snapshot

    def meta(self) -> SnapshotMeta:
        """Raises as `read` does."""
        return self._read_meta(SnapshotMeta)

    def keep(self, saved: Saved, *, shape: Shape, base: str | None) -> SnapshotMeta:
        """`write`, of a machine of this shape that stands on this template."""
        return _of_snapshot(self.write(saved, shape_key(shape)), shape, base)

    def keep_paused(
        self, paused: SavedMemory, *, shape: Shape, base: str | None, disk_bytes: int
    ) -> None:
        """Have what a paused VM has. Raises Internal when that is of another shape."""
        meta = paused.meta_for(shape_key(shape)).model_copy(update={"disk_bytes": disk_bytes})
        self.link(paused, _of_snapshot(meta, shape, base))

    def pause_into(self, paused: SavedMemory) -> None:
        """Give it to the VM, whose disk is the snapshot's: it is paused then."""
        own = self.meta()
        meta = Meta(key=own.key, state_sha256=own.state_sha256, disk_bytes=own.disk_bytes)
        paused.link(self, meta)

    def check(self, shape: Shape) -> None:
        """Raises Conflict, naming what differs, when it does not fit a machine of this shape."""
        meta = self.meta()
        if meta.key != shape_key(shape):
            raise Conflict(
                f"the memory of this snapshot is of another machine: {_difference(meta.shape, shape)}",
                hint=COLD,
            )

    @property
    def base(self) -> str | None:
        """Template that it stands on; None also for memory that cannot be used."""
        with contextlib.suppress(AtollError):
            return self.meta().base
        return None

    @property
    def disk_usage(self) -> int:
        """Bytes that it alone takes; 0 when there is none."""
        try:
            found = [(self._folder / name).stat() for name in ("pages", "state")]
        except FileNotFoundError:
            return 0
        return sum(file.st_blocks * 512 for file in found if file.st_nlink == 1)


def live_snapshots(vm_folder: Path) -> Iterator[str]:
    """Names of those that have memory, whole or not."""
    folder = vm_folder / SNAPSHOTS
    yield from sorted(os.listdir(folder)) if folder.exists() else ()


def _of_snapshot(meta: Meta, shape: Shape, base: str | None) -> SnapshotMeta:
    return SnapshotMeta(**meta.model_dump(), shape=shape, base=base)


_SHOWN = {
    "qemu_version": "QEMU",
    "arch": "processor",
    "accel": "accelerator",
    "cpu_model": "CPU model",
    "cpus": "vCPUs",
    "memory_bytes": "memory",
    "kernel": "kernel",
    "cmdline": "kernel command line",
}


def _difference(then: Shape, now: Shape) -> str:
    """`vCPUs 2, now 4; memory 1G, now 2G`."""
    found = []
    for field in dataclasses.fields(Shape):
        was, has = getattr(then, field.name), getattr(now, field.name)
        if was != has:
            if field.name == "memory_bytes":
                was, has = show_size(was), show_size(has)
            found.append(f"{_SHOWN[field.name]} {str(was)[:80]}, now {str(has)[:80]}")
    return "; ".join(found) or "Atoll gives it other devices now"
