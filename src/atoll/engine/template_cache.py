"""Templates that other pools of this host made: one folder for each (image, shape, disk size).

Everything a template depends on is in the folder's name, so what is found there fits. Files are
hard links where the file system has them. The cache may be deleted at any time.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from atoll.base import ids, log
from atoll.base.errors import AtollError
from atoll.domain.layers import LayerId
from atoll.engine.disks import Disks
from atoll.engine.templates import Meta, Templates

LAYER = "layer.qcow2"
_log = log.get("template-cache")


class TemplateCache:
    """The folder `templates` of the cache."""

    def __init__(self, folder: Path, *, templates: Templates, disks: Disks) -> None:
        self._folder = folder
        self._templates = templates
        self._disks = disks

    def put(self, meta: Meta) -> None:
        """Link the template's files here; where that fails, the next pool boots again."""
        target = self._place(meta.digest, meta.key, meta.disk_bytes)
        fresh = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True, mode=0o700)
            self._templates.link_out(meta.id, fresh)
            self._disks.link_out(LayerId(meta.layer), fresh / LAYER)
            shutil.rmtree(target, ignore_errors=True)
            os.rename(fresh, target)
        except OSError as error:
            _log.info("template not cached", reason=str(error))

    async def take(self, digest: str, key: str, disk_bytes: int) -> Meta | None:
        """A template that passed its self-test in another pool of this host; None: there is none.

        Its memory and state are checked when it is loaded, like those of any template.
        """
        source = self._place(digest, key, disk_bytes)
        if not (source / "meta.json").exists():
            return None
        template = ids.new("tmpl")
        try:
            layer = await self._disks.import_layer(source / LAYER, template)
            meta = await asyncio.to_thread(self._templates.link_in, source, template, layer)
            await self._templates.load(meta.id)
        except (AtollError, OSError, ValueError) as error:
            _log.warning("cached template unusable", reason=str(error))
            await self._disks.drop_layer(template)
            await asyncio.to_thread(shutil.rmtree, source, ignore_errors=True)
            return None
        _log.info("template taken from the cache", template=meta.id)
        return meta

    async def drop(self, meta: Meta) -> None:
        """Remove what `put` linked; another pool that takes it at this moment boots instead."""
        place = self._place(meta.digest, meta.key, meta.disk_bytes)
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)

    def _place(self, digest: str, key: str, disk_bytes: int) -> Path:
        return self._folder / f"{digest}-{key}-{disk_bytes >> 20}"
