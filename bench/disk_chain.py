"""What a chain of layers costs, against a raw file on the same file system; and the stall of a clone.

    .venv/bin/python bench/disk_chain.py [folder] > disk_chain.json

Needs qemu-img, qemu-system-x86_64 (as a block layer, without a machine) and fio. The folder (default:
a temporary one) must be on the file system to be measured, with 4 GiB free; the page cache is
bypassed. Targets are measured in turns and medians compared. Goals: 0.8 of raw for random 4k,
0.7 sequential, at depth 1, 8 and 16; a live clone stalls the guest's writes by 50 ms at most.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from atoll.domain import layer_plans as plans
from atoll.domain.layers import CreateLayer, LayerId, Merge, Switch
from atoll.engine.disk import merge
from atoll.engine.disk.blockdev import BlockOptions
from atoll.engine.disk.pool import Pool
from framework.disk import Host, hosting

ROUNDS, DEPTHS, SIZE = 5, (1, 12, 24), 1 << 30
OPTIONS = BlockOptions(aio="io_uring")
VM, DIGEST = "vm-bench", "0123456789abcdef"
STRIDE = 4096 * 40961  # odd, so that it visits every block once before any twice
# name: (goal, arguments of `qemu-img bench`, requests, bytes of a request), in this order: the
# writes scatter the top layer. Each takes half a second or more: a shorter one measures the noise.
PATTERNS = {
    "random 4k read, 1 in flight": (0.8, ["-d", "1", "-S", str(STRIDE)], 4_000, 4096),
    "random 4k read, 32 in flight": (0.8, ["-d", "32", "-S", str(STRIDE)], 60_000, 4096),
    "sequential 1M read, 4 in flight": (0.7, ["-d", "4"], 500, 1 << 20),
    "random 4k write, 32 in flight": (0.8, ["-w", "-d", "32", "-S", str(STRIDE)], 120_000, 4096),
    "the same read after those writes": (None, ["-d", "4"], 500, 1 << 20),
}


def main(folder: Path) -> None:
    """Measure and print JSON."""
    _tool("qemu-img", "create", "-q", "-f", "raw", str(folder / "raw"), str(SIZE))
    _fill(folder / "raw", "raw")
    report = {"depth": _depths(folder), "live": asyncio.run(_live(folder))}
    report["host"] = {
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "file_system": _tool("stat", "-f", "-c", "%T", str(folder)).strip(),
        "qemu": _tool("qemu-img", "--version").splitlines()[0],
    }
    print(json.dumps(report, indent=1))


# -- depth


def _depths(folder: Path) -> dict[str, object]:
    targets: dict[str, tuple[str, Path]] = {"raw": ("raw", folder / "raw")}
    for depth in DEPTHS:
        with _pool(folder / f"depth-{depth}") as pool:
            for seq in range(1, depth + 1):
                head = pool.graph.head(VM).id
                _scatter(pool.path(head), seed=seq)
                if seq < depth:
                    _more(pool, lambda create, _: pool.apply(create))
            targets[f"depth {depth}"] = ("qcow2", pool.path(pool.graph.head(VM).id))
    found: dict[str, object] = {}
    for name, (goal, arguments, count, length) in PATTERNS.items():
        seconds: dict[str, list[float]] = {target: [] for target in targets}
        for turn in range(ROUNDS):
            for target, (form, path) in _rotated(targets, turn):
                seconds[target].append(_bench(path, form, arguments, count, length))
        raw = statistics.median(seconds["raw"])
        found[name] = {
            "goal": goal,
            "raw_per_second": round(count / raw),
            "ratio": {
                target: round(raw / statistics.median(times), 3)
                for target, times in seconds.items()
                if target != "raw"
            },
            "seconds": {
                target: [round(each, 3) for each in times] for target, times in seconds.items()
            },
        }
    return found


def _rotated(targets: dict[str, tuple[str, Path]], turn: int) -> list[tuple[str, tuple[str, Path]]]:
    """Another first one each time: whoever comes after heavy writes pays for them, too."""
    first = turn % len(targets)
    return [*list(targets.items())[first:], *list(targets.items())[:first]]


def _bench(path: Path, form: str, arguments: list[str], count: int, length: int) -> float:
    argv = ["qemu-img", "bench", "-f", form, "-t", "none", "-i", OPTIONS.aio]
    said = _tool(*argv, "-c", str(count), "-s", str(length), *arguments, str(path))
    match = re.search(r"Run completed in ([0-9.]+) seconds", said)
    assert match, said
    return float(match[1])


def _scatter(path: Path, *, seed: int) -> None:
    """700 writes of 64 KiB all over the disk: what a layer of some activity holds."""
    stride = 65536 * (4099 + 2 * seed)
    argv = ["-w", "-d", "16", "-S", str(stride), "-o", str(seed * 65536)]
    _bench(path, "qcow2", argv, 700, 65536)


def _fill(path: Path, form: str) -> None:
    _bench(path, form, ["-w", "-d", "4"], SIZE >> 20, 1 << 20)


def _pool(root: Path) -> Pool:
    image = root.with_name("image.qcow2")
    if not image.exists():
        options = "cluster_size=128k,extended_l2=on"
        _tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(image), str(SIZE))
        _fill(image, "qcow2")
    pool = Pool.open(root)
    base = pool.add_base(image, DIGEST)
    pool.apply_all(
        plans.plan_create(pool.graph, vm=VM, owner="bench", parent=base, size_bytes=SIZE, now=0.0)
    )
    return pool


def _more(pool: Pool, act: Callable[[CreateLayer, Switch], None]) -> None:
    create, switch, *_ = plans.plan_clone(
        pool.graph, source=VM, vm="vm-child", owner="bench", now=0.0
    )
    assert isinstance(create, CreateLayer)
    assert isinstance(switch, Switch)
    act(create, switch)


# -- live


async def _live(folder: Path) -> dict[str, object]:
    """Write latencies as a client sees them: alone, while cloning, while merging."""
    with _pool(folder / "live") as pool:
        async with hosting(pool, VM) as host:
            uri = await export(host, folder / "nbd.sock")
            await _fio(uri, 1)  # first writes allocate; that is measured elsewhere
            quiet = await _fio(uri, 3)
            switch_ms: list[float] = []
            loaded = asyncio.ensure_future(_fio(uri, 6))
            await asyncio.sleep(1)
            for _ in range(8):
                switch_ms.append(await _freeze(host))
                await asyncio.sleep(0.5)
            cloning = await loaded
            loaded = asyncio.ensure_future(_fio(uri, 10))
            await asyncio.sleep(1)
            merges = await _merge(pool, host)
            merging = await loaded
    return {
        "what": "random 4k writes, 16 in flight, through NBD",
        "goal_stall_ms": 50,
        "switch_ms": {
            "median": round(statistics.median(switch_ms), 2),
            "max": round(max(switch_ms), 2),
        },
        "alone": quiet,
        "cloning": cloning,
        "merging": {**merging, **merges},
    }


async def export(host: Host, path: Path) -> str:
    """Serve the head to NBD clients; returns its address, for as long as `host` lives."""
    where = {"type": "unix", "data": {"path": str(path)}}
    await host.qmp.execute("nbd-server-start", {"addr": where})
    export = {"type": "nbd", "id": "disk", "name": "disk", "writable": True}
    await host.qmp.execute("block-export-add", {**export, "node-name": host.head})
    return f"nbd+unix:///disk?socket={path}"


async def _freeze(host: Host) -> float:
    """One more layer as a clone adds it; milliseconds of the one command that needs the pause."""
    pool = host.disk.pool
    steps: list[CreateLayer | Switch] = []
    _more(pool, lambda *both: steps.extend(both))
    create, switch = steps
    assert isinstance(create, CreateLayer)
    assert isinstance(switch, Switch)
    await asyncio.to_thread(pool.apply, create)
    await host.disk.attach(switch.top)
    began = time.perf_counter()
    await host.disk.switch(switch.frozen, switch.top)
    took = (time.perf_counter() - began) * 1000
    await host.disk.seal(switch.frozen, switch.top)
    return took


async def _merge(pool: Pool, host: Host) -> dict[str, object]:
    """Merge until the chain is short. What the guest notices of it is in the latencies."""
    seconds, copied = 0.0, 0
    while plan := plans.plan_merge(pool.graph, vm=VM, max_depth=3, allocated=pool.allocated()):
        step = plan[0]
        assert isinstance(step, Merge)
        copied += sum(pool.allocated()[x] for x in _between(pool, step))
        began = time.perf_counter()
        await merge.merge_layers(pool, step, options=OPTIONS, seconds=60)
        seconds += time.perf_counter() - began
        await host.disk.renew()
        pool.apply_all(plans.plan_collect(pool.graph))
    return {"merge_seconds": round(seconds, 2), "merged_mib": copied >> 20}


def _between(pool: Pool, step: Merge) -> list[LayerId]:
    chain = [layer.id for layer in pool.graph.chain(step.into)]
    return chain[: chain.index(step.base)]


async def _fio(uri: str, seconds: int) -> dict[str, float]:
    argv = ["fio", "--name=w", "--ioengine=nbd", f"--uri={uri}", "--rw=randwrite", "--bs=4k"]
    argv += ["--iodepth=16", f"--runtime={seconds}", "--time_based", "--output-format=json"]
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    text = out.decode()
    write = json.loads(text[text.index("{") :])["jobs"][0]["write"]
    latency = write["clat_ns"]
    return {
        "iops": round(write["iops"]),
        "p99_ms": round(latency["percentile"]["99.000000"] / 1e6, 2),
        "max_ms": round(latency["max"] / 1e6, 2),
    }


def _tool(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as temporary:
        main(Path(temporary))
