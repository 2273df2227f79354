"""From a request to the part of the engine that answers it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable
from typing import Any

from atoll import __version__
from atoll.base.errors import AtollError, Invalid
from atoll.config import Config
from atoll.engine.ahead import Ahead
from atoll.engine.boot import Host
from atoll.engine.images.installed import Installed
from atoll.engine.qemu.argv import shape_key
from atoll.engine.records import Record, Records
from atoll.engine.sampling import Running, Sampler
from atoll.engine.service import Service
from atoll.engine.stat import Meter
from atoll.engine.templates import Templates
from atoll.engine.warm import Warm
from atoll.rpc import messages as m
from atoll.rpc.messages import Message

SYSTEM = "system"  # owner of the VMs that templates are made from; nobody is shown them


class Handler:
    """Dispatches by the request's type; the RPC server calls it with checked messages."""

    def __init__(
        self,
        *,
        config: Config,
        host: Host,
        service: Service,
        records: Records,
        images: Installed,
        templates: Templates,
        warm: Warm,
        ahead: Ahead,
        meter: Meter,
        sampler: Sampler,
    ) -> None:
        self._config = config
        self._host = host
        self._service = service
        self._records = records
        self._images = images
        self._templates = templates
        self._warm = warm
        self._ahead = ahead
        self._meter = meter
        self._sampler = sampler
        self._table: dict[type[Message], Callable[[Any], Awaitable[Message]]] = {
            m.Create: service.create,
            m.Clone: service.clone,
            m.Pause: service.pause,
            m.Resume: service.resume,
            m.Restart: service.restart,
            m.Stop: service.stop,
            m.Identify: service.identify,
            m.Resize: service.resize,
            m.TakeSnapshot: service.take_snapshot,
            m.RollBack: service.roll_back,
            m.DropSnapshot: service.drop_snapshot,
            m.Delete: service.delete,
            m.GetVm: self._get,
            m.ListVms: self._list,
            m.StatVm: self._stat,
            m.ListSnapshots: service.list_snapshots,
            m.SampleVms: self._sample,
            m.Console: self._console,
            m.NodeInfo: self._node,
            m.Prepare: self._prepare,
        }

    async def __call__(self, request: Message) -> Message:
        """Answer one request."""
        act = self._table.get(type(request))
        if act is None:
            raise Invalid(f"{type(request).__name__} is not a request")
        return await act(request)

    async def _get(self, request: m.GetVm) -> m.Vm:
        return self._service.vm(self._service.record(request.vm))

    async def _list(self, request: m.ListVms) -> m.Vms:
        del request
        return m.Vms(vms=tuple(self._service.vm(record) for record in self._users()))

    async def _stat(self, request: m.StatVm) -> m.Stat:
        record = self._service.record(request.vm)
        return await self._meter.stat(record, self._service.machines.get(request.vm))

    async def _sample(self, request: m.SampleVms) -> m.Samples:
        del request
        machines = self._service.machines
        pairs = [(record, machines.get(record.vm)) for record in self._users()]
        running = [Running.of(record, machine) for record, machine in pairs if machine is not None]
        return await self._sampler.samples(running)

    async def _console(self, request: m.Console) -> m.Text:
        machine = self._service.machines.get(self._service.record(request.vm).vm)
        return m.Text(text=await machine.console() if machine else "")

    async def _prepare(self, request: m.Prepare) -> m.Image:
        await self._warm.ensure(request.image, request.cpus, request.memory_bytes)
        self._ahead.look()  # one more than are kept, perhaps
        return self._image(request.image)

    async def _node(self, request: m.NodeInfo) -> m.Node:
        del request
        disk = shutil.disk_usage(self._config.pool)
        memory = _meminfo()
        return m.Node(
            version=__version__,
            accel=self._host.accel.name,
            accel_reason=self._host.accel.reason,
            qemu_version=self._host.qemu_version,
            cpus=os.cpu_count() or 1,
            memory_bytes=memory["MemTotal"],
            memory_available_bytes=memory["MemAvailable"],
            pool_bytes=disk.total,
            pool_free_bytes=disk.free,
            images=tuple(self._image(name) for name in self._images.names()),
            vms=len(self._users()),
            problems=self._service.problems(),
        )

    def _image(self, name: str) -> m.Image:
        built = self._images.current(name)
        warm = sorted(
            {
                (t.cpus, t.memory_bytes)
                for t in self._templates.all()
                if t.digest == built.digest
                and t.key == shape_key(self._host.shape(built, t.cpus, t.memory_bytes))
            }
        )
        return m.Image(
            name=name,
            digest=built.digest,
            size_bytes=built.size_bytes,
            default_port=built.default_port,
            login_user=built.login_user,
            warm_sizes=tuple(warm),
        )

    def _users(self) -> list[Record]:
        return [record for record in self._records.all() if record.owner != SYSTEM]


def _meminfo() -> dict[str, int]:
    """Bytes by name, from /proc/meminfo."""
    facts = {}
    with open("/proc/meminfo") as file:
        for line in file:
            name, value = line.split(":")
            facts[name] = int(value.split()[0]) * 1024
    if "MemAvailable" not in facts:
        raise AtollError("/proc/meminfo lacks MemAvailable")
    return facts
