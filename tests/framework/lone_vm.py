"""The engine's service as `node` builds it, with one running VM: a process that sleeps and a monitor.

Nothing is set up in the kernel, so it needs no root; what only a real QEMU can do fails.
"""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from atoll.base.aio import TaskGroup, poll
from atoll.config import Config, Paths
from atoll.engine import launch
from atoll.engine.agent import GuestAgent
from atoll.engine.boot import Boot, Host
from atoll.engine.cgroup import Cgroups
from atoll.engine.disk.blockdev import BlockOptions
from atoll.engine.disk.pool import Pool
from atoll.engine.disks import Disks
from atoll.engine.images.cache import Images
from atoll.engine.images.installed import Installed
from atoll.engine.jail import Jail
from atoll.engine.launcher import Launcher
from atoll.engine.net.network import Network
from atoll.engine.net.services import Services
from atoll.engine.operations import Operations
from atoll.engine.qemu.machine import Machine
from atoll.engine.qemu.probe import Accel
from atoll.engine.qemu.qmp import Qmp
from atoll.engine.records import Record, Records
from atoll.engine.recovery import Recovery
from atoll.engine.service import Service
from atoll.engine.templates import Templates
from atoll.rpc.messages import GIB, Event, Spec, VmState
from fakes.monitor import Monitor
from framework.service import service_of

VM = "vm-000000000000"
HEARD_S = 10.0


@dataclass(kw_only=True)
class LoneVm:
    """What a test needs of it."""

    service: Service
    boot: Boot
    recovery: Recovery
    machine: Machine
    monitor: Monitor
    told: list[Event]

    @property
    def state(self) -> VmState:
        """As its record says."""
        return self.service.record(VM).state

    def kinds(self) -> list[str]:
        """What was told to control."""
        return [told.kind for told in self.told]

    async def until(self, check: Callable[[], bool], what: str) -> None:
        """Poll."""

        async def checked() -> bool | None:
            return check() or None

        await poll(checked, seconds=HEARD_S, what=what, every=0.01)

    async def watch(self) -> None:
        """Connect, and follow it as the service does."""
        await self.machine.qmp.connect(seconds=5)
        self.service.machines[VM] = self.machine
        self.boot.watch(self.machine, died=self.service.died, heard=self.service.heard)

    async def ends(self) -> str:
        """Its process goes; the problem that is told."""
        self.machine.process.kill()
        await self.until(lambda: self.state is VmState.STOPPED, "the end to be noticed")
        assert VM not in self.service.machines
        assert self.kinds()[-1] == "vm-state"
        return self.service.vm(self.service.record(VM)).problem


def record(process: launch.Process) -> Record:
    """Of a VM that runs."""
    return Record(
        vm=VM,
        owner="acct-a",
        spec=Spec(image="debian", cpus=1, memory_bytes=GIB, disk_bytes=GIB),
        state=VmState.RUNNING,
        hostname="web",
        created_at=1.0,
        login_user="atoll",
        pid=process.pid,
        pid_started=process.start_time,
    )


@contextmanager
def _sleeper() -> Iterator[launch.Process]:
    with subprocess.Popen(["sleep", "1000"], stderr=subprocess.DEVNULL) as started:
        began = launch.start_time(started.pid)
        assert began is not None
        process = launch.adopt(started.pid, began)
        assert process is not None
        yield process
        started.kill()


@asynccontextmanager
async def lone_vm(folder: Path) -> AsyncIterator[LoneVm]:
    """One in `folder`, for the body."""
    config = Config(paths=Paths(state=folder / "s", run=folder / "r", cache=folder / "c"))
    (folder / "cgroup").mkdir()
    (folder / "cgroup" / "cgroup.controllers").touch()
    async with Operations() as operations, TaskGroup() as group:
        with Pool.open(config.pool) as pool, _sleeper() as process:
            made = _made(config, folder, pool, operations, group, process)
            async with made.monitor.serving(made.machine.run / "qmp.sock"):
                yield made
                made.boot.stop_watching()
                await made.machine.detach()
                for adopted in made.service.machines.values():
                    await adopted.detach()


def _made(
    config: Config,
    folder: Path,
    pool: Pool,
    operations: Operations,
    group: TaskGroup,
    process: launch.Process,
) -> LoneVm:
    disks = Disks(pool, BlockOptions(aio="threads"))
    network = Network(settings=config.network, services=Services.of(config), slots_ready=0)
    launcher = Launcher(
        jail=Jail(folder=folder / "jail"),
        cgroups=Cgroups(instance="test", root=folder / "cgroup"),
    )
    boot = Boot(
        config=config,
        host=Host(accel=Accel(name="tcg", reason="test", cpu_model="max"), qemu_version="0"),
        images=Installed(folder, images=Images(folder), disks=disks, progress=print),
        templates=Templates(folder / "templates"),
        disks=disks,
        network=network,
        launcher=launcher,
        group=group,
    )
    records = Records(config.pool / "vms")
    records.load()
    records.put(record(process))
    told: list[Event] = []
    service = service_of(
        config=config,
        records=records,
        disks=disks,
        boot=boot,
        operations=operations,
        told=told,
        reserve_bytes=1,
    )
    run = boot.run(VM)
    run.mkdir(parents=True)
    machine = Machine(
        vm=VM,
        run=run,
        process=process,
        launcher=launcher,
        qmp=Qmp(run / "qmp.sock"),
        agent=GuestAgent(run / "agent.sock"),
        memory_bytes=GIB,
    )
    recovery = Recovery(
        records=records,
        disks=disks,
        boot=boot,
        service=service,
        network=network,
        launcher=launcher,
    )
    return LoneVm(
        service=service,
        boot=boot,
        recovery=recovery,
        machine=machine,
        monitor=Monitor(),
        told=told,
    )
