"""The engine process: builds every part, brings the kernel to what the records say, then serves.

Invariant: nothing is answered before recovery is done, and ending this process, however, ends no VM.
"""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import time
from pathlib import Path

from atoll.base import log
from atoll.base.aio import TaskGroup, shielded
from atoll.base.units import parse_size
from atoll.config import Config
from atoll.engine import downgrade, sole
from atoll.engine.ahead import Ahead
from atoll.engine.boot import Boot, Host
from atoll.engine.capture import Capture
from atoll.engine.cgroup import Cgroups
from atoll.engine.disk.reserve import Reserve
from atoll.engine.disks import Disks
from atoll.engine.handler import Handler
from atoll.engine.images.cache import Images
from atoll.engine.images.installed import Installed
from atoll.engine.jail import Jail
from atoll.engine.launcher import Launcher
from atoll.engine.merging import Merging
from atoll.engine.net.dns import Resolver
from atoll.engine.net.network import Network
from atoll.engine.net.services import Services
from atoll.engine.operations import UNDO_S, Operations
from atoll.engine.pruning import Pruning
from atoll.engine.qemu import probe
from atoll.engine.records import Records
from atoll.engine.recovery import Recovery
from atoll.engine.sampling import Sampler
from atoll.engine.service import Service
from atoll.engine.space import Space
from atoll.engine.stat import Meter
from atoll.engine.template_cache import TemplateCache
from atoll.engine.templates import Templates
from atoll.engine.timekeeping import keep_time
from atoll.engine.warm import Warm
from atoll.rpc.messages import Event, Message
from atoll.rpc.server import RpcServer

FINISH_S = 5.0  # a clone or a pause ends within this; a cold boot is undone and asked for again
BUILD_END_S = 3.0  # to undo a template half made; what is left of it the next engine removes
_log = log.get("engine")


async def run(config: Config) -> None:
    """Serve until cancelled. Raises Conflict when another engine has the instance or the pool."""
    with sole.claim(config.network.instance):
        await _run(config)


async def _run(config: Config) -> None:
    async with Operations() as operations, TaskGroup() as group:
        engine = await _build(config, operations, group)
        try:
            async with engine.server.serving(group=_gid(config)):
                _log.info("engine ready", socket=str(config.engine_socket))
                try:
                    await asyncio.Event().wait()
                finally:
                    engine.ahead.cancel()  # its VM is undone while requests are finished
        finally:
            # While the machines are still connected: a clone cut short lets its source go on.
            await shielded(operations.finish(seconds=FINISH_S), seconds=FINISH_S + UNDO_S + 5)
            await shielded(_ended(engine.ahead), seconds=BUILD_END_S + 1)
            for task in engine.background:
                task.cancel()
            engine.boot.stop_watching()
            for machine in list(engine.service.machines.values()):
                await machine.detach()


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task], timeout=BUILD_END_S)


class _Engine:
    """What `run` needs of what `_build` made."""

    def __init__(
        self,
        *,
        server: RpcServer,
        service: Service,
        boot: Boot,
        ahead: asyncio.Task[None],
        background: tuple[asyncio.Task[None], ...],
    ) -> None:
        self.server = server
        self.service = service
        self.boot = boot
        self.ahead = ahead
        self.background = background


async def _build(config: Config, operations: Operations, group: TaskGroup) -> _Engine:
    config.pool.mkdir(parents=True, exist_ok=True, mode=0o700)
    await asyncio.to_thread(downgrade.refuse, config.pool)  # before anything is touched
    config.paths.run.mkdir(parents=True, exist_ok=True, mode=0o755)
    version = await probe.qemu_version()
    accel = await probe.choose(
        config.engine.accel, cache=config.pool / "accel.json", qemu_version=version
    )
    _log.info("accelerator chosen", accel=accel.name, reason=accel.reason)
    host = Host(accel=accel, qemu_version=version)

    network = Network(
        settings=config.network, services=Services.of(config), slots_ready=config.engine.slots_ready
    )
    cgroups = Cgroups(instance=config.network.instance, tb_size_mib=config.engine.tb_size_mib)
    jail = Jail(folder=config.paths.run / "jail")
    cgroups.setup()
    await network.setup()
    await jail.setup()
    launcher = Launcher(jail=jail, cgroups=cgroups)

    disks = await Disks.open(config)
    reserve_bytes = parse_size(config.engine.reserve, what="engine.reserve")
    space = Space(disks, Reserve(config.pool, reserve_bytes), reserve_bytes=reserve_bytes)
    await space.make_room()  # recovery writes records
    images = Installed(
        config.pool / "images",
        images=Images(config.paths.cache),
        disks=disks,
        progress=lambda line: server.publish(Event(at=time.time(), kind="progress", detail=line)),
    )
    images.open()
    templates = Templates(config.pool / "templates")
    templates.open()
    records = Records(config.pool / "vms")
    records.load()

    server: RpcServer
    ahead: Ahead
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
    service = Service(
        config=config,
        records=records,
        disks=disks,
        boot=boot,
        capture=Capture(records=records, disks=disks, boot=boot),
        operations=operations,
        space=space,
        publish=lambda event: server.publish(event),
        problems=lambda: (
            *network.problems,
            *cgroups.problems,
            *records.problems,
            *images.problems,
            *disks.problems,
            *ahead.problems,
        ),
        missed=lambda spec: ahead.missed(spec),
    )
    alone = asyncio.Lock()
    cache = TemplateCache(config.paths.cache / "templates", templates=templates, disks=disks)
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
        publish=lambda event: server.publish(event),
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
    pruning.check_layers()
    ahead = Ahead(
        config=config,
        host=host,
        images=images,
        boot=boot,
        disks=disks,
        warm=warm,
        pruning=pruning,
        publish=lambda event: server.publish(event),
    )
    handler = Handler(
        config=config,
        host=host,
        service=service,
        records=records,
        images=images,
        templates=templates,
        warm=warm,
        ahead=ahead,
        meter=Meter(disks=disks, network=network, cgroups=cgroups),
        sampler=Sampler(network=network, cgroups=cgroups),
    )

    async def handle(message: Message) -> Message:
        return await handler(message)

    server = RpcServer(path=config.engine_socket, handler=handle, allowed=_allowed(config))
    await Recovery(
        records=records,
        disks=disks,
        boot=boot,
        service=service,
        network=network,
        launcher=launcher,
    ).run()
    merging = Merging(
        records=records,
        disks=disks,
        service=service,
        operations=operations,
        max_depth=config.engine.merge_depth,
    )
    resolver = Resolver(
        address=network.layout.service,
        upstream=config.network.upstream_dns,
        pid_file=dns_pid_file(config),
        records=Services.of(config).records(),
    )
    background = (
        group.create_task(network.keep_ready(), name="slots ahead"),
        group.create_task(resolver.run(), name="dns"),
        group.create_task(merging.run(), name="disk merges"),
        group.create_task(space.watch(service.go_on), name="full pool"),
        group.create_task(keep_time(service.machines, operations.busy), name="guest clocks"),
    )
    return _Engine(
        server=server,
        service=service,
        boot=boot,
        ahead=group.create_task(ahead.run(), name="templates ahead"),
        background=background,
    )


def dns_pid_file(config: Config) -> Path:
    """Where the resolver of a killed engine is found again."""
    return config.paths.run / "dns.pid"


def _allowed(config: Config) -> set[int]:
    """Root, and the user control runs as."""
    try:
        return {os.geteuid(), pwd.getpwnam(config.control.user).pw_uid}
    except KeyError:
        return {os.geteuid()}


def _gid(config: Config) -> int | None:
    try:
        return grp.getgrnam(config.control.user).gr_gid
    except KeyError:
        return None
