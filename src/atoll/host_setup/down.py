"""`atoll down` and `atoll purge`: nothing of ours is left running, and for purge nothing at all.

VMs are paused, not stopped: their memory goes to disk and `atoll up` brings them back as they were.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from atoll.base import ids
from atoll.base.aio import together
from atoll.base.errors import AtollError, Conflict
from atoll.config import Config
from atoll.doors.edge import launch
from atoll.doors.names import launch as dns_launch
from atoll.engine.teardown import teardown
from atoll.host_setup import layout, remembered
from atoll.host_setup.processes import Processes, choose
from atoll.host_setup.progress import Progress
from atoll.host_setup.systemd import Systemd
from atoll.host_setup.up import engine_ready
from atoll.rpc.client import EngineClient
from atoll.rpc.messages import ListVms, Outcome, Pause, Stop, Vm, Vms, VmState

PAUSE_S = 180.0  # up to a few GiB of private pages to a slow disk
AT_ONCE = 4  # pausing is bound by the disk; more in parallel only makes each slower


async def down(config: Config, config_path: Path, progress: Progress) -> None:
    """Pause every VM, end every process, remove every trace in the kernel. Data stays."""
    layout.require_root("atoll down")
    processes = choose(config, config_path)
    if await _has_work(config, processes):
        await _pause_all(config, processes, progress)
    await progress.step("processes", processes.stop())
    await launch.withdraw(config)
    await dns_launch.withdraw(config)
    await progress.step("networks, cgroups, sockets", asyncio.to_thread(teardown, config))


async def purge(config: Config, config_path: Path, progress: Progress) -> None:
    """`down`, then delete data, images and configuration. The system user stays: it owns nothing."""
    await down(config, config_path, progress)
    if isinstance(processes := choose(config, config_path), Systemd):
        processes.remove()
    for path in (config.paths.state, config.paths.cache, config.paths.run):
        await progress.step(f"delete {path}", asyncio.to_thread(_delete, path))
    await asyncio.to_thread(config_path.unlink, missing_ok=True)


async def _has_work(config: Config, processes: Processes) -> bool:
    facts = await processes.facts()
    runs = any(fact.startswith(("running", "restarting")) for fact in facts.values())
    return runs or await asyncio.to_thread(_has_vm_folders, config)


def _has_vm_folders(config: Config) -> bool:
    folder = config.paths.run / "vm"
    return folder.is_dir() and any(folder.iterdir())


async def _pause_all(config: Config, processes: Processes, progress: Progress) -> None:
    """With control gone, so that it does not see a VM pause and resume it at once."""
    await progress.step("control and edge end", processes.only_engine())
    engine = EngineClient(socket=config.engine_socket)
    try:
        await engine_ready(engine)
        found = (await engine.call(ListVms(), Vms, seconds=30)).vms
        running = tuple(vm for vm in found if vm.state in (VmState.RUNNING, VmState.STARTING))
        if running:
            remembered.write(config.paths.state, [vm.vm for vm in running])
            await progress.step(
                f"{len(running)} VM{'s' * (len(running) > 1)} to disk",
                _pause(engine, running, progress),
            )
    finally:
        await engine.close()


async def _pause(engine: EngineClient, vms: tuple[Vm, ...], progress: Progress) -> None:
    slots, problems = asyncio.Semaphore(AT_ONCE), dict[str, str]()

    async def one(vm: Vm) -> None:
        async with slots:
            try:
                await engine.call(Pause(op=ids.new("op"), vm=vm.vm), Outcome, seconds=PAUSE_S)
            except AtollError as error:
                # A full disk must not keep the machine from going down: the disk's data is safe.
                progress.say(f"  {vm.vm} cannot be paused ({error.message}); shutting it down")
                await stop(vm)

    async def stop(vm: Vm) -> None:
        try:
            await engine.call(Stop(op=ids.new("op"), vm=vm.vm), Outcome, seconds=PAUSE_S)
        except AtollError as error:
            problems[vm.vm] = error.message

    await together(*(one(vm) for vm in vms))
    if problems:
        vm, why = next(iter(problems.items()))
        raise Conflict(
            f"{len(problems)} VMs still run; {vm}: {why}", hint="Try: atoll doctor, then atoll down"
        )


def _delete(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
