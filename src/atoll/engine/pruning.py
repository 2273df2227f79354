"""Removes templates and images that nobody uses: `domain.template_plans` says which. Prologues as well.

Each goes in an order that leaves, at any crash, at worst something that nothing names: the template,
then its layer; the image, then its base. The next pass finds that and removes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from atoll.base import log
from atoll.base.errors import AtollError
from atoll.config import Config
from atoll.domain.template_plans import Held, plan_images, plan_templates
from atoll.engine.disks import Disks
from atoll.engine.images.installed import Installed
from atoll.engine.records import Record, Records
from atoll.engine.saved import SnapshotMemory, live_snapshots
from atoll.engine.template_cache import TemplateCache
from atoll.engine.templates import Meta, Templates

_log = log.get("pruning")


class Pruning:
    """One pass at a time, and none while a template is being built: `alone`."""

    def __init__(
        self,
        *,
        config: Config,
        images: Installed,
        templates: Templates,
        disks: Disks,
        records: Records,
        cache: TemplateCache,
        key_of: Callable[[Record], str],
        alone: asyncio.Lock,
    ) -> None:
        self._keep = config.engine.templates_kept
        self._prologues = config.pool / "prologues"
        self._key_of = key_of
        self._images = images
        self._templates = templates
        self._disks = disks
        self._records = records
        self._cache = cache
        self._alone = alone

    def check_layers(self) -> None:
        """Before anything is served: a template whose disk is lost must not be found by `new`."""
        kept = self._disks.template_pins()
        for meta in self._templates.all():
            if meta.id not in kept:
                self._templates.set_aside(
                    meta.id, f"its disk layer {meta.layer} is not in the pool"
                )

    async def run(self, default: Meta | None) -> int:
        """Remove what can go; `default` is the default size's template. -> how many templates went."""
        async with self._alone:
            removed = 0
            try:
                # Planned anew for each: while one is removed VMs are made and deleted.
                while not self._is_uncertain() and (found := self._idle_template(default)):
                    await self._remove(found)
                    removed += 1
                while not self._is_uncertain() and (digest := self._idle_image()):
                    await self._images.remove(digest)
                    await self._disks.drop_base(digest)
                    _log.info("image removed", digest=digest)
                await self._drop_loose_layers()
                self._drop_prologues()
            except (AtollError, OSError) as error:
                _log.warning("pruning was cut short", reason=str(error))
            return removed

    def _is_uncertain(self) -> bool:
        """Whether what is needed cannot be told now: a VM about to stand on something, lost records."""
        making = any(
            record.intent is not None and record.intent.kind == "create" and not record.image
            for record in self._records.all()
        )
        return making or bool(self._records.unreadable) or self._disks.is_damaged

    def _idle_template(self, default: Meta | None) -> Meta | None:
        held = {meta.id: meta for meta in self._templates.all()}
        plan = plan_templates(
            (self._held(meta) for meta in held.values()),
            default=default.id if default else None,
            images=self._images.digests() - self._images.obsolete(),
            needed=self._bases(),
            keep=self._keep,
        )
        return held[plan[0]] if plan else None

    def _bases(self) -> set[str]:
        """Templates that memory stands on: of VMs, and of live snapshots."""
        found: set[str | None] = set()
        for record in self._records.all():
            found.add(record.base)
            folder = self._records.folder(record.vm)
            found |= {SnapshotMemory(folder, name).base for name in live_snapshots(folder)}
        return {base for base in found if base}

    def _held(self, meta: Meta) -> Held:
        return Held(
            id=meta.id,
            key=meta.key,
            digest=meta.digest,
            disk_bytes=meta.disk_bytes,
            created_at=meta.created_at,
            used_at=self._templates.used_at(meta.id),
        )

    def _idle_image(self) -> str | None:
        known, obsolete = self._images.digests(), self._images.obsolete()
        bases = self._disks.bases()
        standing = {record.image for record in self._records.all()}
        plan = plan_images(
            obsolete | bases.keys(),
            current=known - obsolete,
            needed=standing
            | {meta.digest for meta in self._templates.all()}
            | {digest for digest, is_used in bases.items() if is_used},
        )
        return plan[0] if plan else None

    async def _remove(self, meta: Meta) -> None:
        await self._templates.remove(meta.id)
        await self._disks.drop_layer(meta.id)
        same = (meta.digest, meta.key, meta.disk_bytes)
        if same not in {(m.digest, m.key, m.disk_bytes) for m in self._templates.all()}:
            await self._cache.drop(meta)
        _log.info("template removed", template=meta.id, image=meta.image, cpus=meta.cpus)

    async def _drop_loose_layers(self) -> None:
        """Of templates set aside, or whose building or removal a crash cut short."""
        if self._disks.is_damaged:
            return
        known = {meta.id for meta in self._templates.all()}
        for template in sorted(self._disks.template_pins() - known):
            await self._disks.drop_layer(template)
            _log.info("layer of a template that is gone dropped", template=template)

    def _drop_prologues(self) -> None:
        """Those of machines that no VM and no template has: an older QEMU's, a size of before.

        One is read for a VM that has a record, so look and removal are one step, without an await
        between. One that is missed is made again, in a second.
        """
        if self._is_uncertain():
            return
        needed = {meta.key for meta in self._templates.all()}
        alike = {(vm.image, vm.spec.cpus, vm.spec.memory_bytes): vm for vm in self._records.all()}
        needed |= {self._key_of(vm) for vm in alike.values()}
        for path in list(self._prologues.glob("*")):
            if path.name not in needed:
                path.unlink(missing_ok=True)
                _log.info("prologue removed", key=path.name)
