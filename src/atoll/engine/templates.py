"""Warm templates: an image booted once, frozen at ready, and mapped by every VM that starts from it.

A template is a folder `<pool>/templates/<id>/`: `meta.json` (its shape key, image, disk layer),
`pages` (memory), `state` (device state), `prologue` (see `qemu.state`). All are written once, under a
temporary name, and renamed when the template has passed its self-test; a damaged one is set aside
and never used. Loaded, its memory is a sealed file that lives as long as this process or a VM. Nothing
in the folder changes, so the folder's own time says when the template was last used.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from atoll.base import atomic, ids, log
from atoll.base.errors import Internal
from atoll.engine.disk.copy import link_or_copy
from atoll.engine.qemu.machine import Saved
from atoll.engine.qemu.memory import Pages, unreadable

FILES = ("pages", "state", "meta.json")
_log = log.get("templates")


class Meta(BaseModel):
    """What a template is for; `layer` is the disk as it was when the memory was frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    key: str  # argv.shape_key of the machine it restores into
    image: str  # name
    digest: str  # of the image
    cpus: int
    memory_bytes: int
    disk_bytes: int
    layer: str
    state_sha256: str
    created_at: float


class Loaded:
    """A template ready to be mapped: its sealed memory and its device state."""

    def __init__(self, meta: Meta, ram: int, state: bytes) -> None:
        self.meta = meta
        self.ram = ram
        self._state = state

    def saved(self) -> Saved:
        """The machine as frozen: no pages differ from the memory file."""
        return Saved(pages=Pages(self.meta.memory_bytes), state=self._state)


class Templates:
    """The folder of templates and those in memory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._metas: dict[str, Meta] = {}
        self._loaded: dict[str, Loaded] = {}
        self._loading = asyncio.Lock()

    def open(self) -> None:
        """Read what there is; half-written ones are removed, unreadable ones set aside."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in sorted(self._root.iterdir()):
            if folder.name.startswith("."):
                shutil.rmtree(folder, ignore_errors=True)
                continue
            try:
                meta = Meta.model_validate_json((folder / "meta.json").read_bytes())
            except (FileNotFoundError, NotADirectoryError, ValidationError) as error:
                self.set_aside(folder.name, str(error)[:200])
                continue
            self._metas[meta.id] = meta

    def all(self) -> Iterator[Meta]:
        """Every usable template."""
        return iter(list(self._metas.values()))

    def find(self, key: str, digest: str, disk_bytes: int) -> Meta | None:
        """What a disk of this size has to grow least from, of this shape and image; the newest such.

        A disk never shrinks: templates with a larger one do not fit.
        """
        fitting = [
            meta
            for meta in self._metas.values()
            if meta.key == key and meta.digest == digest and meta.disk_bytes <= disk_bytes
        ]
        return max(fitting, key=lambda meta: (meta.disk_bytes, meta.created_at), default=None)

    def used_at(self, template: str) -> float:
        """When it was last loaded, Unix time; 0 when it is not there."""
        try:
            return (self._root / template).stat().st_mtime
        except OSError:
            return 0.0

    async def load(self, template: str) -> Loaded:
        """Map-ready template. Raises Internal when it is missing or damaged; it is then set aside.

        Raises Unavailable when this host has no memory for it now. VMs and saved memories stand on
        a template, so only proven damage gives it up.
        """
        with contextlib.suppress(OSError):  # not there: said below, or about to be written
            os.utime(self._root / template)
        async with self._loading:
            if template in self._loaded:
                return self._loaded[template]
            meta = self._metas.get(template)
            if meta is None:
                raise Internal(f"template {template} is not there")
            folder = self._root / template
            try:
                ram, state = await asyncio.to_thread(_read, folder, meta)
            except OSError as error:
                failure = unreadable(f"template {template}", error)
                if isinstance(failure, Internal):
                    self.set_aside(template, str(error))
                raise failure from error
            except Internal as error:
                self.set_aside(template, str(error))
                raise Internal(f"template {template} cannot be used: {error}") from error
            loaded = Loaded(meta, ram, state)
            self._loaded[template] = loaded
            return loaded

    def write(self, meta: Meta, saved: Saved) -> None:
        """Store a template that passed its self-test, durably."""
        fresh = self._root / f".{meta.id}"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        saved.pages.save(fresh / "pages")
        atomic.write(fresh / "state", saved.state, mode=0o400)
        atomic.write(fresh / "meta.json", meta.model_dump_json(indent=1).encode(), mode=0o400)
        os.chmod(fresh / "pages", 0o400)
        os.rename(fresh, self._root / meta.id)
        atomic.sync_folder(self._root)
        self._metas[meta.id] = meta

    def link_out(self, template: str, folder: Path) -> None:
        """Hard links to the template's files in `folder`; they never change, so sharing is safe."""
        for name in FILES:
            link_or_copy(self._root / template / name, folder / name)

    def link_in(self, folder: Path, template: str, layer: str) -> Meta:
        """A template from files that `link_out` left in `folder`, under a new id."""
        meta = Meta.model_validate_json((folder / "meta.json").read_bytes())
        meta = meta.model_copy(update={"id": template, "layer": layer})
        fresh = self._root / f".{template}"
        fresh.mkdir(mode=0o700)
        for name in ("pages", "state"):
            link_or_copy(folder / name, fresh / name)
        atomic.write(fresh / "meta.json", meta.model_dump_json(indent=1).encode(), mode=0o400)
        os.rename(fresh, self._root / template)
        atomic.sync_folder(self._root)
        self._metas[template] = meta
        return meta

    def keep_loaded(self, loaded: Loaded) -> None:
        """Use the memory file of a template just made instead of reading it back."""
        self._loaded[loaded.meta.id] = loaded

    def set_aside(self, template: str, why: str) -> None:
        """Never use `template` again; what is left of it is kept under `.bad-…` until the next start."""
        _log.error("template set aside", template=template, reason=why)
        self._forget(template)
        folder = self._root / template
        if folder.exists():
            os.rename(folder, self._root / f".bad-{ids.new(template)}")

    async def remove(self, template: str) -> None:
        """Delete `template`, from the first step on for good; its disk layer is the caller's business.

        What a crash leaves of it has a name that `open` removes.
        """
        self._forget(template)
        gone = self._root / f".gone-{template}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._root / template, gone)
        for left in (gone, self._root / f".{template}"):
            await asyncio.to_thread(shutil.rmtree, left, ignore_errors=True)

    def _forget(self, template: str) -> None:
        self._metas.pop(template, None)
        loaded = self._loaded.pop(template, None)
        if loaded is not None:
            os.close(loaded.ram)


def _read(folder: Path, meta: Meta) -> tuple[int, bytes]:
    state = (folder / "state").read_bytes()
    if hashlib.sha256(state).hexdigest() != meta.state_sha256:
        raise Internal("its device state is damaged: the checksum differs")
    with contextlib.closing(Pages.load(folder / "pages")) as pages:
        if pages.size != meta.memory_bytes:
            raise Internal(f"its memory is {pages.size} bytes, not {meta.memory_bytes}")
        return pages.sealed_file(), state
