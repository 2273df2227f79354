"""Counters of running VMs, read from files shaped like the kernel's; one process is this test's own."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from atoll.engine.cgroup import Cgroups
from atoll.engine.net.kernel import Traffic
from atoll.engine.sampling import Running, Sampler
from atoll.rpc.messages import Sample

ONE, TWO = "vm-000000000001", "vm-000000000002"


@dataclass
class Links:
    """The network's counters by slot."""

    slots: dict[int, Traffic] = field(default_factory=dict)

    def traffic(self, number: int) -> Traffic:
        return self.slots.get(number, Traffic(rx_bytes=0, tx_bytes=0))


@dataclass(kw_only=True)
class Program:
    """A process, or one that has ended."""

    pid: int = field(default_factory=os.getpid)
    start_time: int = 77
    has_ended: bool = False

    def alive(self) -> bool:
        return not self.has_ended


@pytest.fixture
def sampler(tmp_path: Path) -> Sampler:
    """On a unified hierarchy that holds the account of ONE."""
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    folder = tmp_path / "atoll" / ONE
    folder.mkdir(parents=True)
    (folder / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    (folder / "memory.stat").write_text("anon 4096\nfile 904\n")
    (folder / "memory.current").write_text("5000\n")
    links = Links({3: Traffic(rx_bytes=10, tx_bytes=20)})
    return Sampler(network=links, cgroups=Cgroups(instance="atoll", root=tmp_path))


async def sampled(sampler: Sampler, *running: Running) -> dict[str, Sample]:
    return {sample.vm: sample for sample in (await sampler.samples(running)).samples}


async def test_what_the_kernel_counts(sampler: Sampler) -> None:
    one = Running(vm=ONE, slot=3, process=Program())
    first = (await sampled(sampler, one))[ONE]
    assert first.process == f"{os.getpid()}-77"
    assert (first.cpu_seconds, first.memory_bytes) == (2.5, 4096)
    assert (first.network_rx_bytes, first.network_tx_bytes) == (10, 20)
    second = (await sampled(sampler, one))[ONE]
    assert second.since_boot_s > first.since_boot_s
    assert second.io_read_bytes >= first.io_read_bytes
    assert second.io_write_bytes >= first.io_write_bytes


async def test_a_vm_that_ends_meanwhile_is_left_out(sampler: Sampler) -> None:
    no_such_pid = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
    found = await sampled(
        sampler,
        Running(vm=ONE, slot=3, process=Program(has_ended=True)),
        Running(vm=ONE, slot=3, process=Program(pid=no_such_pid)),
        Running(vm=TWO, slot=None, process=Program()),
    )
    assert list(found) == [TWO]
    assert (found[TWO].cpu_seconds, found[TWO].network_rx_bytes) == (0.0, 0)
