"""Making warm templates: boot an image, wait until it is ready, freeze it, prove it, keep it.

A template is used only after its self-test: a clone of it was started, told who it is, answered, and
came back from a reboot. A boot that fails is tried again; the third failure is reported with the end
of the console. What was built is also linked into the cache under a name made of everything it
depends on, so that another pool on this host need not boot it again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from atoll.base import ids, log
from atoll.base.aio import poll, shielded
from atoll.base.errors import AtollError, Internal
from atoll.base.units import parse_size
from atoll.config import Config
from atoll.domain.layers import LayerId
from atoll.engine.agent import FrozenGuest
from atoll.engine.boot import ACK_S, BOOT_S, Boot
from atoll.engine.disks import Disks
from atoll.engine.images.cache import BuiltImage
from atoll.engine.images.installed import Installed
from atoll.engine.qemu.argv import shape_key
from atoll.engine.qemu.machine import Machine, Saved, save
from atoll.engine.qemu.memory import Pages
from atoll.engine.records import Intent, Record, Records
from atoll.engine.service import UNDO_S, Service
from atoll.engine.templates import Loaded, Meta, Templates
from atoll.rpc.messages import Identity, Spec, VmState

TRIES = 3
SETTLE_S = (
    3.0  # units that start after "ready" end within this; a quieter template is a smaller one
)
OWNER = "system"
LAYER = "layer.qcow2"
_log = log.get("warm")


class Warm:
    """Builds templates, one at a time."""

    def __init__(
        self,
        *,
        config: Config,
        images: Installed,
        templates: Templates,
        boot: Boot,
        disks: Disks,
        records: Records,
        service: Service,
    ) -> None:
        self._config = config
        self._images = images
        self._templates = templates
        self._boot = boot
        self._disks = disks
        self._records = records
        self._service = service
        self._one = asyncio.Lock()

    async def ensure(self, image: str, cpus: int, memory_bytes: int) -> Meta:
        """The template of this image and size, built if it is not there (a minute, or two).

        Raises NotFound for an unknown image, Unavailable when it does not boot.
        """
        async with self._one:
            built = await self._images.ensure(image)
            spec = Spec(
                image=image,
                cpus=cpus,
                memory_bytes=memory_bytes,
                # No VM of an image is smaller than the image.
                disk_bytes=max(parse_size(self._config.vms.disk), built.virtual_bytes),
            )
            key = shape_key(self._boot.shape_of(built, spec))
            meta = self._templates.find(key, built.digest)
            if meta is not None and await self._usable(meta):
                return meta
            return await self._import(built, key) or await self._build(built, spec, key)

    async def _usable(self, meta: Meta) -> bool:
        try:
            await self._templates.load(meta.id)
        except Internal:
            return False
        return True

    async def _build(self, built: BuiltImage, spec: Spec, key: str) -> Meta:
        for attempt in range(1, TRIES + 1):
            try:
                meta, saved = await self._freeze(built, spec, key)
                await self._self_test(meta, saved, built)
                break
            except AtollError as error:
                _log.warning("template failed", attempt=attempt, reason=str(error))
                if attempt == TRIES:
                    raise
        else:
            raise Internal("no attempt was made")
        await asyncio.to_thread(self._templates.write, meta, saved)
        await asyncio.to_thread(self._export, meta)
        _log.info("template ready", template=meta.id, image=spec.image, cpus=spec.cpus)
        return meta

    async def _freeze(self, built: BuiltImage, spec: Spec, key: str) -> tuple[Meta, Saved]:
        """Boot once and take it at ready: memory, device state and disk of one instant."""
        started = time.monotonic()
        async with self._temporary(
            built, spec, parent=self._disks.layer_of_image(built.digest)
        ) as record:
            machine = await self._start(record, None)
            await machine.resume()
            await self._boot.wait_ready(machine)
            _log.info("image booted", image=spec.image, seconds=round(time.monotonic() - started))
            await asyncio.sleep(SETTLE_S)
            # Freezing flushes: the template's disk needs no journal replay if it boots cold.
            async with FrozenGuest(machine.agent, held_seconds=20, seconds=20):
                pass
            await machine.stop()
            prologue = await self._boot.prologue_of(record)
            saved = await save(machine, prologue, Pages(machine.memory_bytes))
            await machine.end()
            template = ids.new("tmpl")
            layer = await self._disks.keep_layer(record.vm, template)
        meta = Meta(
            id=template,
            key=key,
            image=spec.image,
            digest=built.digest,
            cpus=spec.cpus,
            memory_bytes=spec.memory_bytes,
            disk_bytes=spec.disk_bytes,
            layer=layer,
            state_sha256=hashlib.sha256(saved.state).hexdigest(),
            created_at=time.time(),
        )
        return meta, saved

    async def _self_test(self, meta: Meta, saved: Saved, built: BuiltImage) -> None:
        """Clone it, tell it who it is, ask, reboot, ask again."""
        ram = await asyncio.to_thread(saved.pages.sealed_file)
        self._templates.keep_loaded(Loaded(meta, ram, saved.state))
        spec = Spec(
            image=meta.image,
            cpus=meta.cpus,
            memory_bytes=meta.memory_bytes,
            disk_bytes=meta.disk_bytes,
        )
        try:
            async with self._temporary(
                built, spec, parent=LayerId(meta.layer), base=meta.id
            ) as record:
                fresh = Saved(pages=Pages(meta.memory_bytes), state=saved.state)
                machine = await self._start(record, fresh)
                await machine.resume()
                await self._boot.identify(
                    machine, record, Identity(hostname="self-test", fresh=True)
                )
                before = await machine.agent.hello(seconds=ACK_S)
                if before.hostname != "self-test":
                    raise Internal(f"a clone of the template calls itself {before.hostname!r}")
                await machine.agent.shutdown("reboot", seconds=ACK_S)
                await self._rebooted(machine, before.boot_id)
        except BaseException:
            self._templates.set_aside(meta.id, "self-test failed")
            await shielded(self._disks.drop_layer(meta.id), seconds=UNDO_S)
            raise

    async def _rebooted(self, machine: Machine, boot_id: str) -> None:
        async def other() -> bool | None:
            try:
                hello = await machine.agent.hello(seconds=5)
            except AtollError:
                return None
            return True if hello.ready and hello.boot_id != boot_id else None

        await poll(other, seconds=BOOT_S, every=0.5, what="a reboot of the template's clone")

    async def _start(self, record: Record, saved: Saved | None) -> Machine:
        machine = await self._boot.start(record, saved, self._service.hold_slot)
        self._service.machines[record.vm] = machine  # so that discarding the record ends it
        return machine

    @asynccontextmanager
    async def _temporary(
        self, built: BuiltImage, spec: Spec, *, parent: LayerId, base: str | None = None
    ) -> AsyncIterator[Record]:
        """A VM of ours for the body; every trace of it is gone afterwards, also after a crash."""
        vm = ids.new("vm")
        record = self._records.put(
            Record(
                vm=vm,
                owner=OWNER,
                spec=spec,
                state=VmState.STARTING,
                hostname="template",
                created_at=time.time(),
                login_user=built.login_user,
                image=built.digest,
                base=base,
                intent=Intent(op="op-000000000000", kind="template", fresh=True),
            )
        )
        try:
            await self._disks.create(vm, OWNER, parent=parent, size_bytes=spec.disk_bytes)
            yield record
        finally:
            await shielded(self._service.discard(vm), seconds=UNDO_S)

    # -- the cache

    def _cached(self, digest: str, key: str) -> Path:
        return self._config.paths.cache / "templates" / f"{digest}-{key}"

    def _export(self, meta: Meta) -> None:
        """Link the template's files into the cache; where that fails, the next pool boots again."""
        target = self._cached(meta.digest, meta.key)
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

    async def _import(self, built: BuiltImage, key: str) -> Meta | None:
        """A template that passed its self-test in another pool of this host; None: there is none.

        Its memory and state are checked when it is loaded, like those of any template.
        """
        source = self._cached(built.digest, key)
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
