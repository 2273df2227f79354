"""Current use of one VM, from the kernel's counters and, when it answers soon, from its guest."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from atoll.base.errors import AtollError
from atoll.engine.cgroup import Cgroups
from atoll.engine.disks import Disks
from atoll.engine.net.network import Network
from atoll.engine.qemu.machine import Machine
from atoll.engine.records import Record
from atoll.rpc.messages import Stat

GUEST_S = 3.0  # a guest that hangs must not hang `stat`


class Meter:
    """Reads counters; changes nothing."""

    def __init__(self, *, disks: Disks, network: Network, cgroups: Cgroups) -> None:
        self._disks = disks
        self._network = network
        self._cgroups = cgroups

    async def stat(self, record: Record, machine: Machine | None) -> Stat:
        """Facts about `record`; those of its process are 0 when there is none."""
        facts: dict[str, object] = {
            "vm": record.vm,
            "memory_total_bytes": record.spec.memory_bytes,
            "disk_size_bytes": record.spec.disk_bytes,
            "disk_used_bytes": self._disks.used_bytes(record.vm),
        }
        if machine is not None:
            facts |= await self._process(record, machine)
            facts |= await self._guest(machine)
        return Stat.model_validate(facts)

    async def _process(self, record: Record, machine: Machine) -> dict[str, object]:
        facts: dict[str, object] = {
            "cpu_seconds": self._cgroups.group(record.vm).usage().cpu_seconds,
            "uptime_seconds": max(0.0, time.time() - record.created_at),
        }
        if record.slot is not None:
            traffic = self._network.traffic(record.slot)
            facts |= {"network_rx_bytes": traffic.rx_bytes, "network_tx_bytes": traffic.tx_bytes}
        facts |= io_bytes(machine.process.pid)
        try:
            facts["memory_private_bytes"] = await asyncio.to_thread(_private_bytes, machine)
        except AtollError:
            return facts  # the process is ending
        return facts

    async def _guest(self, machine: Machine) -> dict[str, object]:
        try:
            inside = await machine.agent.stat(seconds=GUEST_S)
        except AtollError:
            return {}
        return {
            "fs_total_bytes": inside.fs_total_bytes,
            "fs_used_bytes": inside.fs_used_bytes,
            "uptime_seconds": inside.uptime_seconds,
            "ports": tuple(inside.ports),
        }


def _private_bytes(machine: Machine) -> int:
    with machine.memory() as memory:
        return sum(run.length for run in memory.private_runs())


def io_bytes(pid: int) -> dict[str, int]:
    """What a process has had read and written by the disks; nothing when it is ending or gone."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return {}
    counters = dict(line.split(": ") for line in lines)
    if "read_bytes" not in counters:
        return {}  # the process is ending
    return {
        "io_read_bytes": int(counters["read_bytes"]),
        "io_write_bytes": int(counters["write_bytes"]),
    }
