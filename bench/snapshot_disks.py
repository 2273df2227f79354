"""`snap` and `rollback` on the engine's disks, by how much a disk holds and how many snapshots it has.

    python bench/snapshot_disks.py [folder] [--mib 1024 10240] [--hollow 51200] [--counts 1 100 1000]

A pool of its own for each disk, the engine's own code on it, a real QEMU (as a block layer, without a
machine) that has the chain open while it is snapped and none while it is rolled back. The folder
(default: a temporary one) must be on the file system to be measured, with twice the largest of
`--mib` free. A hollow disk has as many clusters allocated and no data in them: the same metadata.

All disks are made first, each with a snapshot of what it holds, and then measured in turns. Chains
are merged as the engine merges them, while they are made.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.extend(str(Path(__file__).resolve().parents[1] / part) for part in ("", "tests"))

from bench import snapshot_peers
from bench.disk_chain import export

from atoll.domain import layer_plans as plans
from atoll.engine.disk.pool import Pool
from atoll.engine.disks import Disks
from framework.disk import MIB, OPTIONS, Host, hosting, make_base, tool

VM, DIGEST = "vm-bench", "0123456789abcdef"
SNAPS, MERGE_EVERY = 5, 8
MERGE_DEPTH = 24  # engine.merge_depth, its default
WRITTEN = 8 * MIB  # by the VM between two snapshots
BRIEF = MIB // 16  # the same while many are made, none of them measured
ROOM = 1024 * MIB  # a disk that is measured by its snapshots
FILL_S = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is measured. `mib` hold data, `hollow_mib` only clusters."""

    mib: Sequence[int] = (1024, 10240)
    hollow_mib: Sequence[int] = (51200,)
    counts: Sequence[int] = (1, 100, 1000)
    rounds: int = 3


@dataclass(slots=True, kw_only=True)
class Times:
    """Milliseconds."""

    snap: list[float] = field(default_factory=list)
    rollback: list[float] = field(default_factory=list)
    listing: list[float] = field(default_factory=list)  # what each snapshot holds alone
    opening: list[float] = field(default_factory=list)  # start of a QEMU with the chain
    depth: list[int] = field(default_factory=list)  # no time: files in the chain at that start
    peers: dict[str, list[float]] = field(default_factory=dict)


class Subject:
    """The disk of one VM in a pool of its own."""

    def __init__(self, pool: Pool, *, size_bytes: int) -> None:
        self._pool = pool
        self._disks = Disks(pool, OPTIONS)
        self._size_bytes = size_bytes
        self._names: list[str] = []
        self._kept: list[str] = []
        self.times = Times()

    @classmethod
    async def make(cls, root: Path, *, size_bytes: int) -> Subject:
        """A disk that holds nothing."""
        root.mkdir()
        image = await make_base(root, size_bytes=MIB)
        pool = await asyncio.to_thread(Pool.open, root / "pool")
        base = pool.add_base(image, DIGEST)
        plan = plans.plan_create(
            pool.graph, vm=VM, owner="bench", parent=base, size_bytes=size_bytes, now=0.0
        )
        pool.apply_all(plan)
        return cls(pool, size_bytes=size_bytes)

    @classmethod
    async def full(cls, root: Path, *, size_bytes: int) -> Subject:
        """One that holds data in every cluster, none of it alike."""
        made = await cls.make(root, size_bytes=size_bytes)
        async with hosting(made._pool, VM) as host:
            uri = await export(host, root / "nbd.sock")
            await asyncio.to_thread(_fill, uri, size_bytes)
            await host.io("flush")  # this QEMU is killed, with the tables it has not written
            await made._snap(host, 0)
        return made

    @classmethod
    async def hollow(cls, root: Path, *, size_bytes: int) -> Subject:
        """One that has every cluster allocated, as holes of the file."""
        made = await cls.make(root, size_bytes=MIB)
        layer = made._pool.path(made._pool.graph.head(VM).id)
        made.close()
        argv = ["qemu-img", "resize", "-q", "--preallocation=metadata", str(layer)]
        await tool(*argv, str(size_bytes))
        pool = await asyncio.to_thread(Pool.open, root / "pool")
        assert not pool.damaged, pool.damaged
        made = cls(pool, size_bytes=size_bytes)
        async with hosting(pool, VM) as host:
            await made._snap(host, 0)
        return made

    @classmethod
    async def with_snapshots(cls, root: Path, count: int) -> Subject:
        """One with `count` snapshots, a little written before each."""
        made = await cls.make(root, size_bytes=ROOM)
        async with hosting(made._pool, VM) as host:
            for number in range(1, count + 1):
                await made._snap(host, BRIEF)
                if number % MERGE_EVERY == 0:
                    await made._shorten(host)
            await made._shorten(host)
        return made

    def close(self) -> None:
        """Let go of the pool."""
        self._pool.close()

    async def measure(self) -> None:
        """One round, after which it is what it was. What others left unwritten is written out first."""
        await asyncio.to_thread(os.sync)
        held = len(self._names)
        self.times.depth.append(self._disks.depth(VM))
        began = time.perf_counter()
        async with hosting(self._pool, VM) as host:
            self.times.opening.append(_ms_since(began))
            for _ in range(SNAPS):
                self.times.snap.append(await self._snap(host, WRITTEN))
        began = time.perf_counter()
        await self._disks.snapshots(VM)
        self.times.listing.append(_ms_since(began))
        for at in (0, -1, held - 1):
            self.times.rollback.append(await self._roll_back(self._names[at]))
        for name in (*self._names[held:], *self._kept):
            await self._disks.drop_snapshot(VM, name)
        del self._names[held:]
        self._kept.clear()

    async def measure_peers(self, folder: Path) -> None:
        """One round of the others on the layer that holds the data."""
        disk = self._pool.path(self._pool.graph.chain(self._pool.graph.head(VM).id)[-2].id)
        took = await asyncio.to_thread(
            snapshot_peers.measure, disk, folder, size_bytes=self._size_bytes
        )
        for way, ms in took.items():
            self.times.peers.setdefault(way, []).append(ms)

    async def _snap(self, host: Host, written: int) -> float:
        number = len(self._names)
        if written:
            at = number * written % (self._size_bytes - written)
            await host.write(1 + number % 255, at, written)
        name = f"snap-{number}"
        began = time.perf_counter()
        fork = await self._disks.snapshot(VM, name, host.qmp)
        await fork.prepare()
        await fork.switch()
        await fork.finish()
        took = _ms_since(began)
        self._names.append(name)
        return took

    async def _roll_back(self, name: str) -> float:
        """Until the files are open that the VM's next QEMU is given."""
        keep = f"kept-{len(self._kept)}"
        began = time.perf_counter()
        await self._disks.roll_back(VM, name, keep)
        chain = await self._disks.drive(VM)
        took = _ms_since(began)
        chain.close()
        self._kept.append(keep)
        return took

    async def _shorten(self, host: Host) -> None:
        while await self._disks.merge_step(VM, max_depth=MERGE_DEPTH, qmp=host.qmp):
            pass


async def measure(folder: Path, extent: Extent) -> dict[str, Times]:
    """By each disk's name, `3 MiB`, `3 MiB hollow` or `3 snapshots`. Nothing is left in `folder`."""
    async with contextlib.AsyncExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        subjects: dict[str, Subject] = {}

        async def add(name: str, making: Awaitable[Subject]) -> None:
            subjects[name] = await making
            stack.callback(subjects[name].close)

        for number, mib in enumerate(extent.mib):
            await add(f"{mib} MiB", Subject.full(place / f"full-{number}", size_bytes=mib * MIB))
        for number, mib in enumerate(extent.hollow_mib):
            root = place / f"hollow-{number}"
            await add(f"{mib} MiB hollow", Subject.hollow(root, size_bytes=mib * MIB))
        for count in extent.counts:
            root = place / f"count-{count}"
            await add(f"{count} snapshots", Subject.with_snapshots(root, count))
        for _ in range(extent.rounds):
            for subject in subjects.values():
                await subject.measure()
            for mib in extent.mib:
                await subjects[f"{mib} MiB"].measure_peers(place)
    return {name: subject.times for name, subject in subjects.items()}


def _fill(uri: str, size_bytes: int) -> None:
    """As a guest writes; fio's blocks are random, each anew, so nothing can be left out as alike."""
    argv = ["fio", "--name=fill", "--ioengine=nbd", f"--uri={uri}", "--rw=write", "--bs=1M"]
    argv += ["--iodepth=8", f"--size={size_bytes}", "--refill_buffers", "--output-format=json"]
    subprocess.run(argv, check=True, timeout=FILL_S, capture_output=True)


def _ms_since(began: float) -> float:
    return (time.perf_counter() - began) * 1000


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    usual = Extent()
    parser.add_argument("folder", nargs="?", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--mib", nargs="*", type=int, default=usual.mib)
    parser.add_argument("--hollow", nargs="*", type=int, default=usual.hollow_mib)
    parser.add_argument("--counts", nargs="*", type=int, default=usual.counts)
    parser.add_argument("--rounds", type=int, default=usual.rounds)
    return parser.parse_args()


if __name__ == "__main__":
    asked = _arguments()
    asked_extent = Extent(
        mib=asked.mib, hollow_mib=asked.hollow, counts=asked.counts, rounds=asked.rounds
    )
    found = asyncio.run(measure(asked.folder, asked_extent))
    print(json.dumps({name: asdict(times) for name, times in found.items()}, indent=1))
