"""Making warm templates: boot an image, wait until it is ready, freeze it, prove it, keep it.

A template is used only after its self-test: a clone of it was started, told who it is, answered, and
came back from a reboot. A boot that fails is tried again; the third failure is reported with the end
of the console. What was built is also put into the cache, so that another pool on this host need not
boot it again.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from atoll.base import ids, log
from atoll.base.aio import poll, shielded
from atoll.base.errors import AtollError, Internal
from atoll.base.units import parse_size
from atoll.config import Config
from atoll.domain.layers import LayerId
from atoll.domain.template_plans import Size
from atoll.engine.agent import FrozenGuest
from atoll.engine.boot import ACK_S, BOOT_S, Boot
from atoll.engine.disks import Disks
from atoll.engine.images.cache import BuiltImage
from atoll.engine.images.installed import Installed
from atoll.engine.qemu.machine import Machine, Saved, save
from atoll.engine.qemu.memory import Pages
from atoll.engine.records import Intent, Record, Records
from atoll.engine.service import UNDO_S, Service
from atoll.engine.template_cache import TemplateCache
from atoll.engine.templates import Loaded, Meta, Templates
from atoll.rpc.messages import Event, Identity, Spec, VmState

TRIES = 3
SETTLE_S = (
    3.0  # units that start after "ready" end within this; a quieter template is a smaller one
)
OWNER = "system"
_log = log.get("warm")


class Warm:
    """Builds templates, one at a time: whoever builds or removes any holds `alone`."""

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
        cache: TemplateCache,
        alone: asyncio.Lock,
        publish: Callable[[Event], None],
    ) -> None:
        self._config = config
        self._images = images
        self._templates = templates
        self._boot = boot
        self._disks = disks
        self._records = records
        self._service = service
        self._cache = cache
        self._alone = alone
        self._publish = publish

    async def ensure(self, image: str, cpus: int, memory_bytes: int) -> Meta:
        """The template of this image and size, image and all built if need be (minutes).

        Raises NotFound for an unknown image, Unavailable when it does not boot.
        """
        async with self._alone:
            built = await self._images.ensure(image)
            return await self._ensure(built, self.size(built, cpus, memory_bytes))

    async def make(self, size: Size) -> Meta:
        """The same for an image that is there, the one that new VMs get (a minute, or two)."""
        async with self._alone:
            return await self._ensure(self._images.current(size.image), size)

    def size(
        self, built: BuiltImage, cpus: int, memory_bytes: int, disk_bytes: int | None = None
    ) -> Size:
        """The template that suits VMs like this: with the default disk, or theirs if it is smaller."""
        # No VM of an image is smaller than the image.
        default = max(parse_size(self._config.vms.disk), built.virtual_bytes)
        return Size(
            image=built.name,
            cpus=cpus,
            memory_bytes=memory_bytes,
            disk_bytes=min(default, disk_bytes or default),
        )

    async def _ensure(self, built: BuiltImage, size: Size) -> Meta:
        spec = Spec(
            image=size.image,
            cpus=size.cpus,
            memory_bytes=size.memory_bytes,
            disk_bytes=size.disk_bytes,
        )
        key = self._boot.key_of(built, size)
        meta = self._templates.find(key, built.digest, size.disk_bytes)
        if (
            meta is not None
            and meta.disk_bytes == size.disk_bytes  # a smaller one grows at every start
            and await self._usable(meta)
        ):
            return meta
        meta = await self._cache.take(built.digest, key, size.disk_bytes)
        if meta is None:
            meta = await self._build(built, spec, key)
        detail = f"warm template of {size}"
        self._publish(Event(at=time.time(), kind="template-ready", detail=detail))
        return meta

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
        try:
            await asyncio.to_thread(self._templates.write, meta, saved)
        except OSError:  # the pool is full: give back what was written
            await self._templates.remove(meta.id)
            await self._disks.drop_layer(meta.id)
            raise
        await asyncio.to_thread(self._cache.put, meta)
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
        machine = await self._boot.start(record, saved, self._service.hold_slot, forked=False)
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
