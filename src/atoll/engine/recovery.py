"""After a start of the engine: make records, processes and kernel agree again.

A killed engine leaves VMs running. Each record tells what was under way: a VM that was only being
made is removed (its maker asks again with the same operation), one that runs is adopted, one whose
process is gone is what its disk and saved memory say. Processes, namespaces, cgroups and layers that
no record claims are removed.
"""

from __future__ import annotations

import contextlib
import shutil
from enum import Enum

from atoll.base import log
from atoll.base.aio import deadline
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

ADOPT_S = 120.0  # takes milliseconds; an honest QEMU on a crowded host, seconds
# A QEMU may answer anything, and must not keep the engine from starting.
MALFORMED = (LookupError, TypeError, ValueError, AttributeError)
_log = log.get("recovery")


class Verdict(Enum):
    """What becomes of a process that an earlier engine left."""

    KEEP = "it runs"
    GO_ON = "it was halted for the blink of a pause or a clone"
    HALTED = "it was halted by a full pool, and goes on when there is space"
    END = "its VM is what the disk and the saved memory say"


def judge(record: Record, status: str, *, is_saved: bool) -> Verdict:
    """From QEMU's run state, and whether the VM's memory is saved whole. Pure.

    A copy that nobody has told yet who it is would be its parent's double on the network; one from
    another time would let in whose key was taken away since.
    """
    if record.newborn or record.forked:
        return Verdict.END
    match status:
        case "running":
            return Verdict.KEEP
        case "io-error":
            return Verdict.HALTED
        case "paused" if record.state is VmState.RUNNING:
            return Verdict.GO_ON  # what a pause may have saved of it is out of date then
        case "paused" if record.intent and record.intent.kind == "resume" and not is_saved:
            return Verdict.GO_ON  # its memory is nowhere else any more
    return Verdict.END


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
        self._service.forget_loose_memory(record)
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
            async with deadline(ADOPT_S, f"taking over the process of {record.vm}"):
                machine = await self._connect(record, process)
                memory = SavedMemory(self._records.folder(record.vm))
                verdict = judge(record, await machine.status(), is_saved=memory.complete)
                if verdict is Verdict.GO_ON:
                    memory.forget()  # out of date from the first instruction on
                    await self._carry_on(machine)
                if verdict is not Verdict.END:
                    await self._disks.adopt(machine.qmp, record.vm)
        except (AtollError, *MALFORMED) as error:
            _log.error("vm process cannot be adopted", vm=record.vm, reason=str(error))
            verdict = Verdict.END
        if verdict is Verdict.END:
            await (machine.end() if machine is not None else _end(process))
            return None
        if verdict is Verdict.HALTED:
            self._service.space.halt(record.vm)
        await self._boot.refresh_slot(record)
        await self._boot.open_port(record)
        return machine

    async def _connect(self, record: Record, process: Process) -> Machine:
        return await qemu.adopt(
            self._launcher,
            vm=record.vm,
            run=self._boot.run(record.vm),
            process=process,
            memory_bytes=record.spec.memory_bytes,
        )

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
