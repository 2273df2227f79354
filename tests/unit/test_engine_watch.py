"""What the engine makes of what a QEMU tells by itself: real process, real socket, any event."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from atoll.base.aio import TaskGroup, poll
from atoll.base.errors import Unavailable
from atoll.config import Config, Paths
from atoll.engine import launch
from atoll.engine.agent import GuestAgent
from atoll.engine.boot import Boot, Host
from atoll.engine.cgroup import Cgroups
from atoll.engine.disk.blockdev import BlockOptions
from atoll.engine.disk.pool import Pool
from atoll.engine.disk.reserve import Reserve
from atoll.engine.disks import Disks
from atoll.engine.images.cache import Images
from atoll.engine.images.installed import Installed
from atoll.engine.jail import Jail
from atoll.engine.launcher import Launcher
from atoll.engine.net.network import Network
from atoll.engine.operations import Operations
from atoll.engine.qemu.machine import CONSOLE_CHARS, Machine
from atoll.engine.qemu.probe import Accel
from atoll.engine.qemu.qmp import Qmp
from atoll.engine.records import Record, Records
from atoll.engine.service import Service
from atoll.engine.space import HALTED, Space
from atoll.engine.templates import Templates
from atoll.rpc.messages import GIB, Event, Spec, VmState
from fakes.monitor import Monitor, event

VM = "vm-000000000000"
HEARD_S = 10.0
FULL = event("BLOCK_IO_ERROR", {"nospace": True, "device": "disk"})
OFF = event("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"})
ODD = {
    "unknown": event("DEVICE_ON_FIRE", {"device": "vm-zzzzzzzzzzzz"}),
    "data of no type": event("SHUTDOWN", None),
    "data is a list": event("BLOCK_IO_ERROR", [True]),
    "reason is a list": event("SHUTDOWN", {"reason": ["guest-shutdown"]}),
    "nospace is a number": event("BLOCK_IO_ERROR", {"nospace": 1}),
    "name is a number": event(7, {}),
    "half a character": event("\ud800", {"reason": "\ud800"}),
    "large": event("SHUTDOWN", {"reason": "x" * (9 << 20)}),
}


@dataclass
class World:
    """A service with one running VM whose QEMU is a monitor and a process that sleeps."""

    service: Service
    machine: Machine
    monitor: Monitor
    told: list[Event] = field(default_factory=list)

    @property
    def state(self) -> VmState:
        return self.service.record(VM).state

    def kinds(self) -> list[str]:
        """What was told to control."""
        return [told.kind for told in self.told]

    async def until(self, check: Callable[[], bool], what: str) -> None:
        async def checked() -> bool | None:
            return check() or None

        await poll(checked, seconds=HEARD_S, what=what, every=0.01)

    async def ends(self) -> str:
        """The process is gone; the problem that is told."""
        self.machine.process.kill()
        await self.until(lambda: self.state is VmState.STOPPED, "the end to be noticed")
        assert VM not in self.service.machines
        assert self.kinds()[-1] == "vm-state"
        return self.service.vm(self.service.record(VM)).problem


@pytest.fixture
def sleeper() -> Iterator[launch.Process]:
    with subprocess.Popen(["sleep", "1000"], stderr=subprocess.DEVNULL) as started:
        began = launch.start_time(started.pid)
        assert began is not None
        process = launch.adopt(started.pid, began)
        assert process is not None
        yield process
        started.kill()


@asynccontextmanager
async def _service(folder: Path, told: list[Event]) -> AsyncIterator[tuple[Service, Boot]]:
    """As `node` builds it, on a folder, with nothing set up in the kernel."""
    config = Config(paths=Paths(state=folder / "s", run=folder / "r", cache=folder / "c"))
    (folder / "cgroup").mkdir()
    (folder / "cgroup" / "cgroup.controllers").touch()
    cgroups = Cgroups(instance="test", root=folder / "cgroup")
    records = Records(config.pool / "vms")
    async with Operations() as operations, TaskGroup() as group:
        with Pool.open(config.pool) as pool:
            disks = Disks(pool, BlockOptions(aio="threads"))
            boot = Boot(
                config=config,
                host=Host(
                    accel=Accel(name="tcg", reason="test", cpu_model="max"), qemu_version="0"
                ),
                images=Installed(
                    config.pool / "images", images=Images(folder), disks=disks, progress=print
                ),
                templates=Templates(config.pool / "templates"),
                disks=disks,
                network=Network(settings=config.network, slots_ready=0),
                launcher=Launcher(jail=Jail(folder=folder / "jail"), cgroups=cgroups),
                group=group,
            )
            records.load()
            service = Service(
                config=config,
                records=records,
                disks=disks,
                boot=boot,
                operations=operations,
                space=Space(disks, Reserve(config.pool, 1), reserve_bytes=1),
                publish=told.append,
                problems=tuple,
            )
            yield service, boot
            boot.stop_watching()


@pytest.fixture
async def world(tmp_path: Path, sleeper: launch.Process) -> AsyncIterator[World]:
    told: list[Event] = []
    monitor = Monitor()
    async with _service(tmp_path, told) as (service, boot), monitor.serving(tmp_path / "qmp.sock"):
        machine = Machine(
            vm=VM,
            run=tmp_path,
            process=sleeper,
            launcher=boot._launcher,
            qmp=Qmp(tmp_path / "qmp.sock"),
            agent=GuestAgent(tmp_path / "agent.sock"),
            memory_bytes=GIB,
        )
        await machine.qmp.connect(seconds=5)
        service._records.put(
            Record(
                vm=VM,
                owner="acct-a",
                spec=Spec(image="debian", cpus=1, memory_bytes=GIB, disk_bytes=GIB),
                state=VmState.RUNNING,
                hostname="web",
                created_at=1.0,
                login_user="atoll",
                pid=sleeper.pid,
                pid_started=sleeper.start_time,
            )
        )
        service.machines[VM] = machine
        boot.watch(machine, died=service.died, heard=service.heard)
        yield World(service, machine, monitor, told)
        await machine.detach()


async def test_a_guest_that_powers_off_is_stopped_without_a_problem(world: World) -> None:
    world.monitor.say(OFF)
    await world.until(lambda: world.machine.ended != "", "the event")
    assert (world.state, world.kinds()) == (VmState.RUNNING, [])  # while there is a process
    assert await world.ends() == ""


async def test_an_end_without_a_word_is_a_problem(world: World) -> None:
    assert await world.ends() == "qemu ended: killed"


async def test_a_full_pool_is_told_once(world: World) -> None:
    world.monitor.say(FULL * 2 + OFF)
    await world.until(lambda: world.machine.ended != "", "the last event")
    assert (world.state, world.kinds()) == (VmState.RUNNING, ["pool-full"])
    assert world.told[0].detail == HALTED
    assert await world.ends() == ""  # it is halted no more


async def test_a_late_word_of_a_machine_that_was_ended_says_nothing(world: World) -> None:
    assert await world.ends()
    before = world.kinds()
    world.service.heard(world.machine, "BLOCK_IO_ERROR", {"nospace": True})
    assert (world.kinds(), world.service.space.problem(VM)) == (before, "")


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
async def test_odd_events_change_nothing(world: World, odd: bytes) -> None:
    world.monitor.say(odd + FULL)
    await world.until(lambda: world.kinds() == ["pool-full"], "the event after it")
    assert world.state is VmState.RUNNING
    assert await world.ends() == "qemu ended: killed"


@pytest.mark.parametrize(
    "sent",
    [event("X", "x" * (11 << 20)), event([], {}), b"\xff\xfe\n"],
    ids=["huge", "list", "no text"],
)
async def test_a_monitor_that_cannot_be_read_costs_only_its_own_vm(
    world: World, sent: bytes
) -> None:
    async with world.machine.qmp.listening("X"):
        world.monitor.say(sent)

        async def broken() -> bool | None:
            try:
                await world.machine.stop()
            except Unavailable:
                return True
            return None

        await poll(broken, seconds=HEARD_S, what="the monitor to break off")
    assert world.state is VmState.RUNNING
    assert await world.ends() == "qemu ended: killed"


async def test_answers_of_another_type_are_no_defect(world: World) -> None:
    answers: tuple[object, ...] = ([], "running", None, {"status": ["running"]})
    for answer in answers:
        world.monitor.answers["query-status"] = answer
        assert await world.machine.status() != "running"


async def test_the_console_is_read_twice(world: World) -> None:
    """QEMU forgets what was read; the newest part is asked for again and again."""
    for printed, said in (("boot\n", "boot\n"), ("", "boot\n"), ("login: ", "boot\nlogin: ")):
        world.monitor.answers["ringbuf-read"] = printed
        assert await world.machine.console() == said
    world.monitor.answers["ringbuf-read"] = "x" * (CONSOLE_CHARS + 1)
    assert await world.machine.console() == "x" * CONSOLE_CHARS
