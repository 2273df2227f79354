"""A node's images, layers and templates without kernel or QEMU: the real classes on tiny files.

Templates hold one page and are made at once; what would boot a VM has no launcher to do it with.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from atoll.base import ids
from atoll.base.aio import TaskGroup
from atoll.config import Config, Engine, Paths, Vms
from atoll.domain.template_plans import Size
from atoll.engine.ahead import Ahead
from atoll.engine.boot import Boot, Host
from atoll.engine.cgroup import Cgroups
from atoll.engine.disk import qcow2
from atoll.engine.disks import Disks
from atoll.engine.images.cache import Images
from atoll.engine.images.installed import Installed
from atoll.engine.jail import Jail
from atoll.engine.launcher import Launcher
from atoll.engine.net.network import Network
from atoll.engine.net.services import Services
from atoll.engine.operations import Operations
from atoll.engine.pruning import Pruning
from atoll.engine.qemu.machine import Saved
from atoll.engine.qemu.memory import Pages
from atoll.engine.qemu.probe import Accel
from atoll.engine.records import Record, Records
from atoll.engine.recovery import Recovery
from atoll.engine.service import Service
from atoll.engine.template_cache import TemplateCache
from atoll.engine.templates import Meta, Templates
from atoll.engine.warm import Warm
from atoll.rpc.messages import Event, Spec, VmState
from fakes.image_builder import FakeBuilder
from framework.service import service_of

MIB, GIB = 1 << 20, 1 << 30
STATE = b"device state"
ACCEL = Accel(name="tcg", cpu_model="max", reason="a test")
DEFAULT = 512 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The parts of one node that templates are the business of."""

    config: Config
    boot: Boot
    disks: Disks
    images: Installed
    templates: Templates
    records: Records
    cache: TemplateCache
    pruning: Pruning
    ahead: Ahead
    service: Service
    recovery: Recovery
    alone: asyncio.Lock
    told: list[Event]

    def size(self, memory_bytes: int = DEFAULT, *, disk_bytes: int = 8 * GIB) -> Size:
        return Size(image="debian", cpus=1, memory_bytes=memory_bytes, disk_bytes=disk_bytes)

    def find(self, memory_bytes: int = DEFAULT, *, disk_bytes: int = 8 * GIB) -> Meta | None:
        return self.boot.template_for(self.size(memory_bytes, disk_bytes=disk_bytes))

    async def make(
        self, memory_bytes: int = DEFAULT, *, used_at: float = 0, digest: str = "", **size: int
    ) -> Meta:
        """A template as `Warm` leaves it: layer pinned, files written, linked into the cache."""
        wanted, built = self.size(memory_bytes, **size), self.images.current("debian")
        vm, template, digest = ids.new("vm"), ids.new("tmpl"), digest or built.digest
        parent = self.disks.layer_of_image(digest)
        await self.disks.create(vm, "system", parent=parent, size_bytes=wanted.disk_bytes)
        layer = await self.disks.keep_layer(vm, template)
        await self.disks.remove(vm)
        meta = Meta(
            id=template,
            key=self.boot.key_of(built, wanted),
            image="debian",
            digest=digest,
            cpus=wanted.cpus,
            memory_bytes=memory_bytes,
            disk_bytes=wanted.disk_bytes,
            layer=layer,
            state_sha256=hashlib.sha256(STATE).hexdigest(),
            created_at=time.time(),
        )
        self.templates.write(meta, Saved(pages=Pages(memory_bytes), state=STATE))
        self.cache.put(meta)
        if used_at:
            os.utime(self.config.pool / "templates" / template, (used_at, used_at))
        return meta

    async def forget(self, meta: Meta) -> None:
        """As another pool sees it: the template is in the cache only."""
        await self.templates.remove(meta.id)
        await self.disks.drop_layer(meta.id)

    def spec(self, memory_bytes: int = DEFAULT, *, disk_bytes: int = 8 * GIB) -> Spec:
        return Spec(image="debian", cpus=1, memory_bytes=memory_bytes, disk_bytes=disk_bytes)

    def stand(self, *, base: str | None = None, image: str = "") -> Record:
        """A VM that stands on these."""
        return self.records.put(
            Record(
                vm=ids.new("vm"),
                owner="acct-1",
                spec=self.spec(),
                state=VmState.PAUSED,
                hostname="web",
                created_at=1.0,
                login_user="atoll",
                base=base,
                image=image,
            )
        )

    def layers(self) -> set[str]:
        return {path.stem for path in (self.config.pool / "layers").iterdir()}

    def cached(self) -> set[str]:
        return {path.name for path in (self.config.paths.cache / "templates").iterdir()}


def image_disk() -> bytes:
    """A qcow2 file without a parent, small and empty."""
    parts, length = qcow2.overlay(size_bytes=GIB, backing="none", label=b"")
    data = bytearray(length)
    for offset, part in parts.items():
        data[offset : offset + len(part)] = part
    data[8:20] = struct.pack(">QI", 0, 0)  # offset and length of the parent's name
    return bytes(data)


@asynccontextmanager
async def world(
    folder: Path, *, kept: int = 2, pool: Callable[[Path], None] = Path.mkdir
) -> AsyncIterator[World]:
    """A node with the image `debian` installed, and what `pool` makes at the pool's place: nothing."""
    config = Config(
        paths=Paths(state=folder / "state", run=folder / "run", cache=folder / "cache"),
        vms=Vms(cpus=1, memory="512M", disk="8G"),
        engine=Engine(templates_kept=kept),
    )
    config.paths.state.mkdir(parents=True)
    pool(config.pool)
    disks = await Disks.open(config)
    builder = FakeBuilder(disk=image_disk())
    cached = Images(config.paths.cache, builder=builder)
    images = Installed(config.pool / "images", images=cached, disks=disks, progress=lambda _: None)
    images.open()
    await images.ensure("debian")
    templates = Templates(config.pool / "templates")
    templates.open()
    records = Records(config.pool / "vms")
    records.load()
    cache = TemplateCache(config.paths.cache / "templates", templates=templates, disks=disks)
    alone, told = asyncio.Lock(), list[Event]()
    host = Host(accel=ACCEL, qemu_version="7.2")
    network = Network(settings=config.network, services=Services.of(config), slots_ready=0)
    cgroups = Cgroups(instance="t1", root=folder)
    launcher = Launcher(jail=Jail(folder=folder), cgroups=cgroups)
    async with Operations() as operations, TaskGroup() as group:
        boot = Boot(
            config=config,
            host=host,
            images=images,
            templates=templates,
            disks=disks,
            network=network,
            launcher=launcher,
            group=group,
        )
        service = service_of(
            config=config,
            records=records,
            disks=disks,
            boot=boot,
            operations=operations,
            told=told,
            reserve_bytes=MIB,
        )
        warm = Warm(
            config=config,
            images=images,
            templates=templates,
            boot=boot,
            disks=disks,
            records=records,
            service=service,
            cache=cache,
            alone=alone,
            publish=told.append,
        )
        pruning = Pruning(
            config=config,
            images=images,
            templates=templates,
            disks=disks,
            records=records,
            cache=cache,
            key_of=boot.key,
            alone=alone,
        )
        ahead = Ahead(
            config=config,
            host=host,
            images=images,
            boot=boot,
            disks=disks,
            warm=warm,
            pruning=pruning,
            publish=told.append,
        )
        recovery = Recovery(
            records=records,
            disks=disks,
            boot=boot,
            service=service,
            network=network,
            launcher=launcher,
        )
        yield World(
            config=config,
            boot=boot,
            disks=disks,
            images=images,
            templates=templates,
            records=records,
            cache=cache,
            pruning=pruning,
            ahead=ahead,
            service=service,
            recovery=recovery,
            alone=alone,
            told=told,
        )
        for meta in templates.all():
            await templates.remove(meta.id)  # closes its memory
