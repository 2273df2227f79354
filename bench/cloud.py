"""Commands of a bench's own Atoll with a stopwatch: wall clock here, the engine's laps beside it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.base import ids
from atoll.base.aio import poll
from atoll.rpc.messages import Image, ListVms, Prepare, Vm, Vms, VmState
from framework.atoll import Atoll

MEMORY_BYTES = 1 << 30
PREPARE_S = 600
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One command. `laps` are the engine's, in milliseconds, `engine_ms` their sum."""

    data: dict[str, Any]
    wall_ms: float
    laps: dict[str, float]

    @property
    def engine_ms(self) -> float:
        """A clone's `pause` is part of its `fork`."""
        return sum(
            ms for name, ms in self.laps.items() if name != "pause" or "fork" not in self.laps
        )


async def timed(atoll: Atoll, line: str) -> Timed:
    """Run `line` through the local door: no SSH in the number."""
    began = time.perf_counter()
    data = await atoll.command(line)
    return Timed(data=data, wall_ms=(time.perf_counter() - began) * 1000, laps=_laps(atoll))


def _laps(atoll: Atoll) -> dict[str, float]:
    """Of the operation that ended last, from control's journal."""
    path = atoll.config.control_state / "atoll.db"
    query = "SELECT result FROM operations WHERE finished_at NOTNULL ORDER BY finished_at DESC"
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    try:
        row = db.execute(query).fetchone()
    finally:
        db.close()
    result = json.loads(row[0]) if row and row[0] else {}
    return dict(result.get("timings_ms", {}))


async def prepare(atoll: Atoll) -> None:
    """The image, warm for VMs of the bench's size; done already is fine."""
    vms = atoll.config.vms
    request = Prepare(op=ids.new("op"), image=vms.image, cpus=vms.cpus, memory_bytes=MEMORY_BYTES)
    await atoll.engine.call(request, Image, seconds=PREPARE_S)


async def running(atoll: Atoll) -> list[Vm]:
    """VMs with a process, as the engine sees them."""
    listed = await atoll.engine.call(ListVms(), Vms, seconds=30)
    return [vm for vm in listed.vms if vm.state is VmState.RUNNING and vm.pid is not None]


async def drop_all(atoll: Atoll) -> None:
    """End every VM at once: nothing of it is wanted, and an orderly pause writes its memory."""
    await _drop(atoll, await running(atoll))


async def drop_newest(atoll: Atoll) -> None:
    """End the VM that was made last."""
    await _drop(atoll, [max(await running(atoll), key=lambda vm: vm.created_at)])


async def _drop(atoll: Atoll, vms: Sequence[Vm]) -> None:
    for vm in vms:
        assert vm.pid is not None
        os.kill(vm.pid, signal.SIGKILL)
    names = {vm.vm for vm in vms}

    async def gone() -> bool | None:
        return names.isdisjoint(vm.vm for vm in await running(atoll)) or None

    await poll(gone, seconds=60, what="VMs to end")


def cpu_s(pids: Sequence[int]) -> float:
    """CPU time spent so far, all threads."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


async def available_mib() -> float:
    """MemAvailable: median of five looks, a second apart."""
    seen = []
    for _ in range(5):
        await asyncio.sleep(1)
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(x for x in lines if x.startswith("MemAvailable:"))
        seen.append(int(line.split()[1]) / 1024)
    return statistics.median(seen)


def pss_mib(pid: int) -> float:
    """Proportional set: shared pages divided by those who share them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(x for x in lines if x.startswith("Pss:")).split()[1]) / 1024


def anatomy_mib(pid: int) -> dict[str, float]:
    """Where a QEMU's memory is that it shares with nobody, in MiB, largest first.

    The code cache is its one executable mapping without a file; what an emulator keeps besides (its
    tables of translated blocks) cannot be told from the rest of its heap.
    """
    found = {
        "translated code": 0.0,
        "guest's own pages": 0.0,
        "heap and tables": 0.0,
        "programs": 0.0,
    }
    kind = ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        first, *rest = line.split()
        if "-" in first and not first.endswith(":"):
            mode, name = rest[0], " ".join(rest[4:])
            if "atoll-ram" in name:
                kind = "guest's own pages"
            elif name and not name.startswith("["):
                kind = "programs"
            else:
                kind = "translated code" if "x" in mode else "heap and tables"
        elif first == "Private_Dirty:":
            found[kind] += int(rest[0]) / 1024
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def rounded(values: Sequence[float]) -> list[float]:
    """For the JSON."""
    return [round(value, 1) for value in values]
