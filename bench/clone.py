"""`cp` of a running VM: how long the parent stands still, when the child answers, and the old way.

A guest's own clock stands still with the guest, so the pause is seen from outside, too: a process in
the guest says something each millisecond, and the longest silence is taken (with what the same
stream's longest silence is when nothing is cloned). The old way is what `virsh save` and a restore
do: stop, stream all of memory to a file, copy the disk with qemu-img, load the stream in a second
QEMU. It is done on a bare QEMU of the same memory size, as much of it filled with random bytes.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.cloud import Timed, drop_all, drop_newest, rounded, running, timed
from bench.report import Row

from atoll.rpc.messages import Node, NodeInfo, Stat, StatVm
from framework.atoll import Atoll

DATA_MB, SYSTEM_MB, BIG, SMALL, PEER = 300, 150, 5, 4, 2
TICK = """
import sys, time
last = time.monotonic()
while True:
    time.sleep(0.001)
    now = time.monotonic()
    print(f"{(now - last) * 1000:.2f}", flush=True)
    last = now
"""


async def measure(atoll: Atoll) -> list[Row]:
    """All rows of this subject; no VM runs at the end."""
    new_ms = []
    for number in range(3):
        new_ms.append((await timed(atoll, f"new --name small-{number}x")).wall_ms)
    one = statistics.median(new_ms)
    small_mib = await _private_mib(atoll)
    small = await _clones(atoll, "small-0x", SMALL)
    await drop_all(atoll)
    await atoll.command("new --name big")
    room = f"sudo mount -o remount,size={DATA_MB + 50}M /dev/shm"
    await atoll.ssh(f"{room}; head -c {DATA_MB}M /dev/urandom > /dev/shm/data", user="big")
    big_mib = await _private_mib(atoll)
    big = await _clones(atoll, "big", BIG)
    await drop_all(atoll)
    accel = (await atoll.engine.call(NodeInfo(), Node, seconds=30)).accel
    peers = [await asyncio.to_thread(_save_and_restore, atoll.folder, accel) for _ in range(PEER)]
    return [
        _pause_row(f"`cp` of a running 1 GiB VM with {DATA_MB} MB dirty: pause", 120, big, big_mib),
        _pause_row("`cp` of an idle VM: pause", 50, small, small_mib),
        _answer_row(big, one),
        *_peer_rows(big, peers),
    ]


# -- ours


class _Clones:
    """What was seen of several clones of one VM."""

    def __init__(self) -> None:
        self.made: list[Timed] = []
        self.silence_ms: list[float] = []  # outside
        self.gap_ms: list[float] = []  # by the guest's clock
        self.quiet_ms = 0.0  # longest silence with no clone

    @property
    def wall_ms(self) -> float:
        return statistics.median(t.wall_ms for t in self.made)

    @property
    def pause_ms(self) -> float:
        return statistics.median(t.laps["pause"] for t in self.made)

    def after_ms(self, timed: Timed) -> float:
        """From the end of the pause to the child's answer."""
        before = ("queue", "precopy", "prepare", "freeze", "pause")
        return timed.wall_ms - sum(timed.laps[lap] for lap in before)


class _Listener:
    """Reads the ticks of a guest; `take` says the longest gaps since the last call."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._silence = self._gap = 0.0
        self._last = time.perf_counter()

    async def listen(self) -> None:
        while line := await self._reader.readline():
            now = time.perf_counter()
            self._silence = max(self._silence, (now - self._last) * 1000)
            self._gap = max(self._gap, float(line))
            self._last = now

    def take(self) -> tuple[float, float]:
        took = self._silence, self._gap
        self._silence = self._gap = 0.0
        return took


async def _clones(atoll: Atoll, parent: str, count: int) -> _Clones:
    seen = _Clones()
    process = await asyncio.create_subprocess_exec(
        "ssh", *atoll.ssh_options(), f"{parent}@127.0.0.1", f"python3 -uc '{TICK}'",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout
    listener = _Listener(process.stdout)
    task = asyncio.ensure_future(listener.listen())
    try:
        await asyncio.sleep(3)
        listener.take()
        await asyncio.sleep(4)
        seen.quiet_ms = listener.take()[0]
        for number in range(count):
            listener.take()
            seen.made.append(await timed(atoll, f"cp {parent} {parent}-c{number}x"))
            silence, gap = listener.take()
            seen.silence_ms.append(silence)
            seen.gap_ms.append(gap)
            await drop_newest(atoll)  # each clone is made on the same machine
    finally:
        process.kill()
        await process.wait()
        await task
    return seen


async def _private_mib(atoll: Atoll) -> float:
    """Of the VM that started last."""
    vm = max(await running(atoll), key=lambda vm: vm.created_at)
    stat = await atoll.engine.call(StatVm(vm=vm.vm), Stat, seconds=30)
    return stat.memory_private_bytes / (1 << 20)


def _pause_row(what: str, goal_ms: int, seen: _Clones, private_mib: float) -> Row:
    silence = statistics.median(seen.silence_ms)
    return Row(
        what=what,
        goal=f"≤ {goal_ms} ms",
        measured=f"{silence:.0f} ms",
        met=silence <= goal_ms,
        runs=str(len(seen.made)),
        remarks=f"longest silence of a 1 ms ticker, heard outside; {seen.quiet_ms:.0f} ms when "
        f"nothing is cloned. The engine stops the VM for {seen.pause_ms:.0f} ms; by the guest's own "
        f"clock the longest gap is {statistics.median(seen.gap_ms):.0f} ms."
        f" {private_mib:.0f} MiB private",
        raw={"silence_ms": rounded(seen.silence_ms), "guest_gap_ms": rounded(seen.gap_ms),
             "laps_ms": [t.laps for t in seen.made]},
    )  # fmt: skip


def _answer_row(seen: _Clones, new_ms: float) -> Row:
    after = statistics.median(seen.after_ms(t) for t in seen.made)
    last = seen.made[-1].laps
    return Row(
        what="`cp` of that VM: the child answers, after the pause, beside `new`",
        goal="≤ 1.5",
        measured=f"{after / new_ms:.2f} ({after:.0f} ms; `new` {new_ms:.0f} ms)",
        met=after <= 1.5 * new_ms,
        runs=f"{len(seen.made)}; 3 `new` beside them",
        remarks="laps of the last, ms: " + ", ".join(f"{lap} {ms:.0f}" for lap, ms in last.items()),
        raw={"after_ms": rounded([seen.after_ms(t) for t in seen.made])},
    )


# -- the old way


def _peer_rows(seen: _Clones, peers: list[dict[str, float]]) -> list[Row]:
    total = statistics.median(sum(p.values()) for p in peers)
    still = statistics.median(p["save_ms"] + p["disk_ms"] for p in peers)
    silence = statistics.median(seen.silence_ms)
    runs = f"{len(seen.made)}; {len(peers)} of the old way"
    return [
        Row(
            what="`cp` of that VM beside a full-stream save and disk copy: the source stands still",
            goal="≥ 10 times shorter",
            measured=f"{still / silence:.1f} times ({silence:.0f} ms; old way {still:.0f} ms)",
            met=still >= 10 * silence,
            runs=runs,
            remarks=f"old way: save {peers[-1]['save_ms']:.0f} ms, qemu-img convert of the image "
            f"{peers[-1]['disk_ms']:.0f} ms, both to the page cache",
            raw={"peers": [{k: round(v) for k, v in p.items()} for p in peers]},
        ),
        Row(
            what="`cp` of that VM beside the same and a restore: in all",
            goal="≥ 10 times faster",
            measured=f"{total / seen.wall_ms:.1f} times ({seen.wall_ms / 1000:.1f} s, old way "
            f"{total / 1000:.1f} s)",
            met=total >= 10 * seen.wall_ms,
            runs=runs,
            remarks=f"old way: restore {peers[-1]['restore_ms']:.0f} ms, without an identity, a network "
            "or an answer of the guest; of ours these are the larger part, in emulated code",
        ),
    ]


def _save_and_restore(where: Path, accel: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=where) as name:
        folder = Path(name)
        memory, stream = folder / "memory", folder / "stream"
        with memory.open("wb") as file:
            for _ in range(DATA_MB + SYSTEM_MB):
                file.write(os.urandom(1 << 20))
            file.truncate(1 << 30)
        took: dict[str, float] = {}
        with _qemu(folder / "one", accel, f"memory-backend-file,mem-path={memory},share=on") as say:
            began = time.perf_counter()
            say("stop")
            say("migrate-set-parameters", {"max-bandwidth": 1 << 40})
            say("migrate", {"uri": f"exec:cat > {stream}"})
            _wait(say, "query-migrate", "completed")
            took["save_ms"] = (time.perf_counter() - began) * 1000
            began = time.perf_counter()
            argv = ["qemu-img", "convert", "-U", "-O", "qcow2", str(_image()), str(folder / "disk")]
            subprocess.run(argv, check=True, timeout=120)
            took["disk_ms"] = (time.perf_counter() - began) * 1000
        began = time.perf_counter()
        with _qemu(
            folder / "two", accel, "memory-backend-memfd", "-incoming", f"exec:cat {stream}"
        ) as say:
            _wait(say, "query-migrate", "completed")
            say("cont")
            took["restore_ms"] = (time.perf_counter() - began) * 1000
    return took


def _image() -> Path:
    """The newest built image's disk."""
    disks = Path("/var/cache/atoll/images").glob("debian-*/*.qcow2")
    return max(disks, key=lambda path: path.stat().st_mtime)


@contextmanager
def _qemu(path: Path, accel: str, backend: str, *more: str) -> Iterator[Any]:
    """A bare QEMU; yields a function that asks it."""
    process = subprocess.Popen(
        ["qemu-system-x86_64", "-machine", "q35,memory-backend=m", "-accel", accel, "-m", "1024",
         "-object", f"{backend},id=m,size=1G", "-nodefaults", "-display", "none",
         "-qmp", f"unix:{path},server=on,wait=off", *more],
    )  # fmt: skip
    try:
        with _connected(path) as sock, sock.makefile("rw") as wire:

            def say(command: str, arguments: dict[str, Any] | None = None) -> Any:
                wire.write(json.dumps({"execute": command, "arguments": arguments or {}}) + "\n")
                wire.flush()
                while True:
                    answer = json.loads(wire.readline())
                    if "error" in answer:
                        raise RuntimeError(f"{command}: {answer['error']}")
                    if "return" in answer:
                        return answer["return"]

            say("qmp_capabilities")
            yield say
    finally:
        process.kill()
        process.wait()


@contextmanager
def _connected(path: Path) -> Iterator[socket.socket]:
    deadline = time.monotonic() + 20
    with socket.socket(socket.AF_UNIX) as sock:
        while True:
            try:
                sock.connect(str(path))
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        yield sock


def _wait(say: Any, command: str, wanted: str) -> None:
    deadline = time.monotonic() + 120
    while (status := say(command).get("status")) != wanted:
        if status == "failed" or time.monotonic() > deadline:
            raise RuntimeError(f"{command}: {status}, not {wanted}")
        time.sleep(0.01)
