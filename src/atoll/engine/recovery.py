"""After a start of the engine: make records, processes and kernel agree again.

A killed engine leaves VMs running. Each record tells what was under way: a VM that was only being
made is removed (its maker asks again with the same operation), one that runs is adopted, one whose
process is gone is what its disk and saved memory say. Processes, namespaces, cgroups and layers that
no record claims are removed.
"""

from __future__ import annotations

import contextlib
import shutil

from atoll.base import log
from atoll.base.errors import AtollError
from atoll.engine.boot import Boot
from atoll.engine.disks import Disks
from atoll.engine.launch import Process
from atoll.engine.launcher import Launcher
from atoll.engine.net.network import Network
from atoll.engine.qemu import machine as qemu
from atoll.engine.qemu.machine import Machine
from atoll.engine.records import Record, Records
from atoll.engine.saved import SavedMemory
from atoll.engine.service import Service
from atoll.rpc.messages import VmState

HALTED_ON_WRITE = "io-error"  # QEMU's run state after a write that found no space
_log = log.get("recovery")


class Recovery:
    """Runs once, before the engine answers anybody."""

    def __init__(
        self,
        *,
        records: Records,
        disks: Disks,
        boot: Boot,
        service: Service,
        network: Network,
        launcher: Launcher,
    ) -> None:
        self._records = records
        self._disks = disks
        self._boot = boot
        self._service = service
        self._network = network
        self._launcher = launcher

    async def run(self) -> None:
        """Bring everything to what the records say, and the records to what is true."""
        for record in self._records.all():
            await self._guarded(record)
        # Before the slots: a process whose pid was never written down has one as well.
        await self._launcher.remove_strays(set(self._service.machines))
        await self._network.reconcile(self._records.slots())
        known = {record.vm for record in self._records.all()}
        await self._disks.reconcile(known | self._records.unreadable)

    async def _guarded(self, record: Record) -> None:
        """One VM's trouble must not keep the others away: it is noted; the next start tries again."""
        try:
            await self._one(record)
        except (AtollError, OSError) as error:
            _log.error("vm not recovered", vm=record.vm, reason=str(error))
            known = self._records.get(record.vm)
            if known is not None and not (known.intent and known.intent.fresh):
                self._ended(known, problem=f"not recovered: {error}")

    async def _one(self, record: Record) -> None:
        process = self._process(record)
        if record.intent is not None and record.intent.fresh:
            await self._remove(record, process)
            return
        machine = await self._adopt(record, process)
        if machine is None:
            self._ended(record)
            return
        SavedMemory(self._records.folder(record.vm)).forget()  # a VM that runs has none
        self._service.machines[record.vm] = machine
        self._records.put(record.model_copy(update={"state": VmState.RUNNING, "intent": None}))
        self._boot.watch(machine, died=self._service.died, heard=self._service.heard)
        _log.info("vm adopted", vm=record.vm, pid=machine.process.pid)

    def _process(self, record: Record) -> Process | None:
        if record.pid is None or record.pid_started is None:
            return None
        return self._launcher.adopt(record.pid, record.pid_started)

    async def _adopt(self, record: Record, process: Process | None) -> Machine | None:
        """The machine if it really runs its guest; else its process is ended."""
        if process is None:
            return None
        machine: Machine | None = None
        try:
            machine = await qemu.adopt(
                self._launcher,
                vm=record.vm,
                run=self._boot.run(record.vm),
                process=process,
                memory_bytes=record.spec.memory_bytes,
            )
            status = await machine.status()
            if status == "paused" and self._was_running(record):
                # A pause may have got as far as saving: out of date from the first instruction on.
                SavedMemory(self._records.folder(record.vm)).forget()
                await self._carry_on(machine)  # stopped for the blink of a pause or a clone
                status = "running"
            await self._disks.adopt(machine.qmp, record.vm)
        except AtollError as error:
            _log.error("vm process cannot be adopted", vm=record.vm, reason=str(error))
            if machine is not None:
                await machine.end()
            else:
                await _end(process)
            return None
        if status == HALTED_ON_WRITE:
            self._service.space.halt(record.vm)  # it goes on when the pool has space
        elif status != "running":
            await machine.end()
            return None
        await self._boot.refresh_slot(record)
        await self._boot.open_port(record)
        return machine

    def _was_running(self, record: Record) -> bool:
        """Whether a halted guest is to go on: what is saved of it, if anything, is out of date."""
        if record.state is VmState.RUNNING:
            return True
        resuming = record.intent is not None and record.intent.kind == "resume"
        return resuming and not SavedMemory(self._records.folder(record.vm)).complete

    async def _carry_on(self, machine: Machine) -> None:
        await machine.resume()
        with contextlib.suppress(AtollError):
            await machine.agent.thaw(seconds=10)

    def _ended(self, record: Record, *, problem: str = "") -> None:
        """No process: paused if its memory was saved whole, else stopped."""
        shutil.rmtree(self._boot.run(record.vm), ignore_errors=True)
        memory = SavedMemory(self._records.folder(record.vm))
        state = VmState.PAUSED if memory.complete else VmState.STOPPED
        if state is VmState.STOPPED:
            memory.forget()  # what a pause that was cut short left
        if record.state is VmState.RUNNING and state is VmState.STOPPED:
            _log.warning("vm ended while the engine was away", vm=record.vm)
        self._records.put(
            record.model_copy(
                update={
                    "state": state,
                    "intent": None,
                    "problem": problem or record.problem,
                    "slot": None,
                    "pid": None,
                    "pid_started": None,
                }
            )
        )

    async def _remove(self, record: Record, process: Process | None) -> None:
        """Undo a VM that was never finished, or finish removing one."""
        if process is not None:
            await _end(process)
        shutil.rmtree(self._boot.run(record.vm), ignore_errors=True)
        await self._disks.remove(record.vm)
        self._records.drop(record.vm)
        _log.info("unfinished vm removed", vm=record.vm)


async def _end(process: Process) -> None:
    process.kill()
    await process.wait_exit(seconds=10)
    process.close()
