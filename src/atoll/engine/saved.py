"""Saved memory of a paused VM: `<vm folder>/saved/{pages,state,meta.json}`.

Invariant: `meta.json` is written last, so a folder without it is not a saved machine. It names the
shape the state was made for; it is never loaded into another.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from atoll.base import atomic
from atoll.base.errors import Internal
from atoll.engine.qemu.machine import Saved
from atoll.engine.qemu.memory import Pages, unreadable


class Meta(BaseModel):
    """What the saved state fits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    state_sha256: str


class SavedMemory:
    """Saved memory below one VM's folder."""

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
        self.forget()
        self._folder.mkdir(mode=0o700)
        saved.pages.save(self._folder / "pages")
        atomic.write(self._folder / "state", saved.state)
        digest = hashlib.sha256(saved.state).hexdigest()
        return Meta(key=key, state_sha256=digest)

    def commit(self, meta: Meta) -> None:
        """What `write` stored is a saved machine from here on."""
        atomic.write(self._folder / "meta.json", meta.model_dump_json().encode())
        atomic.sync_folder(self._folder.parent)

    def read(self, key: str) -> Saved:
        """Load it. Raises Internal when it is damaged or was made for another shape, Unavailable when
        this host cannot read it now.
        """
        try:
            meta = Meta.model_validate_json((self._folder / "meta.json").read_bytes())
            state = (self._folder / "state").read_bytes()
        except OSError as error:
            raise unreadable("saved memory", error) from error
        except ValidationError as error:
            raise Internal(f"saved memory cannot be read: {error}") from error
        if meta.key != key:
            raise Internal("saved memory is of another QEMU, kernel or machine shape")
        if hashlib.sha256(state).hexdigest() != meta.state_sha256:
            raise Internal("saved device state is damaged: its checksum differs")
        return Saved(pages=Pages.load(self._folder / "pages"), state=state)

    def copy_to(self, other: SavedMemory) -> None:
        """Give another VM the same saved machine; files never change, so they are linked."""
        other.forget()
        other._folder.mkdir(mode=0o700)
        for name in ("pages", "state", "meta.json"):
            os.link(self._folder / name, other._folder / name)
        atomic.sync_folder(other._folder)
        atomic.sync_folder(other._folder.parent)

    def forget(self) -> None:
        """Remove it: from the first instruction of the resumed VM on it no longer fits the disk."""
        if self._folder.exists():
            atomic.remove(self._folder / "meta.json")
        shutil.rmtree(self._folder, ignore_errors=True)
