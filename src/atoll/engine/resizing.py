"""Another size for a VM that is there: a larger disk now, other vCPUs and memory at its next boot.

The record says what is wanted before anything is done. The size that a VM runs with stays in `spec`,
for its saved memory and its clones fit no other; what its next boot gets is beside it. A disk of a
VM that does not run grows when it starts: `Disks.drive` makes it as large as the record says. So an
engine that ends at any moment leaves a disk that is smaller than its record, never a larger one that
nobody knows of, and asking again does what is missing.
"""

from __future__ import annotations

from atoll.base import log
from atoll.base.aio import poll
from atoll.base.errors import AtollError, Invalid
from atoll.base.units import show_size
from atoll.engine.agent import GuestAgent
from atoll.engine.disks import Disks
from atoll.engine.qemu.machine import Machine
from atoll.engine.records import Record, Records
from atoll.rpc.messages import Spec, VmState

AGENT_S = 10.0
NOTICE_S = 10.0  # a guest notices its larger disk within milliseconds
SMALLER = "its disk has grown, its file system has not: it does at the next restart"
_log = log.get("resizing")


def planned(record: Record, spec: Spec) -> Record:
    """The record once `spec` is wanted. Pure. Raises Invalid for a size that it cannot have."""
    now = record.spec
    if spec.image != now.image:
        raise Invalid(f"{record.vm} has its image, {now.image}, for life")
    if spec.disk_bytes < now.disk_bytes:
        raise Invalid(
            f"a disk of {show_size(spec.disk_bytes)} is smaller than that of {record.vm}",
            hint=f"Disks only grow; it has {show_size(now.disk_bytes)}",
        )
    if record.state is VmState.STOPPED:
        return record.model_copy(
            update={"spec": spec, "next_cpus": None, "next_memory_bytes": None}
        )
    return record.model_copy(
        update={
            "spec": now.model_copy(update={"disk_bytes": spec.disk_bytes}),
            "next_cpus": spec.cpus if spec.cpus != now.cpus else None,
            "next_memory_bytes": spec.memory_bytes
            if spec.memory_bytes != now.memory_bytes
            else None,
        }
    )


def for_boot(record: Record) -> Record:
    """The record of a VM about to boot from its disk: with the size it is to have, on no template."""
    spec = record.spec.model_copy(
        update={
            "cpus": record.next_cpus or record.spec.cpus,
            "memory_bytes": record.next_memory_bytes or record.spec.memory_bytes,
        }
    )
    return record.model_copy(
        update={
            "spec": spec,
            "base": None,
            "forked": False,
            "next_cpus": None,
            "next_memory_bytes": None,
        }
    )


class Resizing:
    """Changes sizes; its caller holds the VM and has written the intent."""

    def __init__(self, *, records: Records, disks: Disks) -> None:
        self._records = records
        self._disks = disks

    async def change(self, record: Record, spec: Spec, machine: Machine | None) -> Record:
        """Want `spec`, and grow the disk under a `machine` that runs. Raises Invalid.

        A disk that could not be made larger is not wanted any more.
        """
        wanted = planned(record, spec)
        is_behind = machine is not None and (
            wanted.spec.disk_bytes > record.spec.disk_bytes or record.problem == SMALLER
        )
        if is_behind:
            wanted = wanted.model_copy(update={"problem": SMALLER})
        self._records.put(wanted)
        if machine is None or not is_behind:
            return wanted
        try:
            return await self._grow(wanted, machine)
        except BaseException:
            self._records.put(self._as_it_is(record))
            raise

    async def _grow(self, record: Record, machine: Machine) -> Record:
        before = await _fs_bytes(machine.agent)
        is_new = await self._disks.grow(record.vm, machine.qmp, size_bytes=record.spec.disk_bytes)
        # Asked again after a crash it may have grown already: then it fills most of the disk.
        most = record.spec.disk_bytes * 9 // 10
        if not await _grows_to(machine.agent, before + 1 if is_new and before else most):
            _log.warning("file system does not grow", vm=record.vm)
            return record
        return self._records.put(record.model_copy(update={"problem": ""}))

    def _as_it_is(self, record: Record) -> Record:
        """`record`, from before a change that failed, with what the disk has become."""
        disk_bytes = max(record.spec.disk_bytes, self._disks.size_bytes(record.vm))
        if disk_bytes == record.spec.disk_bytes:
            return record
        spec = record.spec.model_copy(update={"disk_bytes": disk_bytes})
        return record.model_copy(update={"spec": spec, "problem": SMALLER})


async def _fs_bytes(agent: GuestAgent) -> int:
    """The size of the root file system, once it is as large as its disk allows; 0: it does not say."""
    try:
        return (await agent.grow(seconds=AGENT_S)).fs_bytes
    except AtollError:
        return 0


async def _grows_to(agent: GuestAgent, enough: int) -> bool:
    """Have the guest grow its file system, as soon as it has noticed its larger disk."""

    async def grown() -> bool | None:
        return await _fs_bytes(agent) >= enough or None

    try:
        return await poll(grown, seconds=NOTICE_S, what="the file system to grow")
    except AtollError:
        return False
