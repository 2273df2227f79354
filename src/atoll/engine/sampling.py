"""Counters of all running VMs in one answer, out of files of the kernel.

Invariant: nothing here asks a guest or its QEMU: it would wake one that idles, and under emulation cost
CPU once a minute and VM. For the same reason memory is the control group's account (the pages a VM does
not share, those of QEMU itself included) and not a walk through its page tables, as `engine.stat` does
for one VM. What the disk uses is in the list of VMs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from atoll.engine.cgroup import Group
from atoll.engine.net.kernel import Traffic
from atoll.engine.qemu.machine import Machine
from atoll.engine.records import Record
from atoll.engine.stat import io_bytes
from atoll.rpc.messages import Sample, Samples


class Cgroups(Protocol):
    """The account of what each VM used."""

    def group(self, vm: str) -> Group:
        """The group of `vm`, there or not."""
        ...


class Network(Protocol):
    """The counters of network slots."""

    def traffic(self, number: int) -> Traffic:
        """Byte counters of a slot, as its VM sees them."""
        ...


class Process(Protocol):
    """A QEMU that may have ended."""

    @property
    def pid(self) -> int:
        """Its number, which is another's some time after it ended."""
        ...

    @property
    def start_time(self) -> int:
        """With the number it names a process for ever."""
        ...

    def alive(self) -> bool:
        """False from the moment it ended."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A VM with a process."""

    vm: str
    slot: int | None
    process: Process

    @classmethod
    def of(cls, record: Record, machine: Machine) -> Running:
        """What of a VM is read here."""
        return cls(vm=record.vm, slot=record.slot, process=machine.process)


class Sampler:
    """Reads; changes nothing."""

    def __init__(self, *, network: Network, cgroups: Cgroups) -> None:
        self._network = network
        self._cgroups = cgroups

    async def samples(self, running: Iterable[Running]) -> Samples:
        """One for each VM that has not ended meanwhile. In a thread: 500 take 0.1 s of CPU."""
        return await asyncio.to_thread(self._read, tuple(running))

    def _read(self, running: Iterable[Running]) -> Samples:
        found = (self._sample(one) for one in running)
        return Samples(samples=tuple(sample for sample in found if sample is not None))

    def _sample(self, one: Running) -> Sample | None:
        since_boot_s = time.monotonic()
        used = self._cgroups.group(one.vm).usage()
        traffic = Traffic(rx_bytes=0, tx_bytes=0)
        if one.slot is not None:
            traffic = self._network.traffic(one.slot)
        io = io_bytes(one.process.pid)
        if not io or not one.process.alive():
            return None  # what was read may be the next process's, or nobody's
        return Sample(
            vm=one.vm,
            process=f"{one.process.pid}-{one.process.start_time}",
            since_boot_s=since_boot_s,
            cpu_seconds=used.cpu_seconds,
            memory_bytes=used.anonymous_bytes,
            network_rx_bytes=traffic.rx_bytes,
            network_tx_bytes=traffic.tx_bytes,
            **io,
        )
