"""Control groups: for real in the hierarchy this host has, on a tree of plain files in the other.

Plain files shaped like a unified hierarchy show which files are written with what; that the kernel
obeys them shows only on a host that has it. A unified hierarchy without controllers (which a host
with the old one often mounts besides) does serve for joining, killing and removing.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from atoll.base.aio import poll
from atoll.base.errors import Unavailable
from atoll.engine.cgroup import OVERHEAD_BYTES, ROOT, TASKS, Cgroups, Group, Usage

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
MIB = 1 << 20
UNIFIED = ROOT / "unified"


@pytest.fixture
async def cgroups() -> AsyncIterator[Cgroups]:
    cgroups = Cgroups(instance="tnetcg")
    cgroups.setup()
    try:
        yield cgroups
    finally:
        await cgroups.teardown()


@pytest.fixture
def spawned() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


async def run_in(group: Group, *argv: str, stdout: int | None = None) -> subprocess.Popen[bytes]:
    """Start `argv` in the group: each file gets a 0 from within."""
    joins = "".join(f"echo 0 > {path}; " for path in group.procs)
    process = _spawn(["sh", "-euc", f'{joins} exec "$@"', "sh", *argv], stdout)

    async def joined() -> bool | None:
        inside = all(process.pid in _pids(path) for path in group.procs)
        return True if inside or process.poll() is not None else None

    await poll(joined, seconds=10, every=0.001, what="joining the group")
    return process


def _spawn(argv: list[str], stdout: int | None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, stdout=stdout)


def _pids(procs: Path) -> list[int]:
    return [int(pid) for pid in procs.read_text().split()]


async def test_a_process_is_counted_limited_and_ended(
    cgroups: Cgroups, spawned: list[subprocess.Popen[bytes]]
) -> None:
    assert cgroups.problems == ()
    group = cgroups.create("vm-1", memory_bytes=64 * MIB, cpus=2)
    assert cgroups.create("vm-1", memory_bytes=64 * MIB, cpus=2) == group
    spin = "for i in range(10**6): pass\nprint(flush=True)\nimport time; time.sleep(60)"
    process = await run_in(group, "python3", "-c", spin, stdout=subprocess.PIPE)
    spawned.append(process)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert group.pids() == {process.pid}
    usage = group.usage()
    assert 0.01 < usage.cpu_seconds < 30
    assert MIB < usage.anonymous_bytes <= usage.memory_bytes < 64 * MIB
    assert usage.tasks == 1
    assert cgroups.existing() == {"vm-1"}

    await group.remove()
    assert process.wait() == -9
    assert cgroups.existing() == set()
    assert group.usage() == Usage()
    await group.remove()  # again


async def test_memory_beyond_the_ceiling_ends_the_process(
    cgroups: Cgroups, spawned: list[subprocess.Popen[bytes]]
) -> None:
    group = cgroups.create("vm-1", memory_bytes=16 * MIB, cpus=1)
    ceiling = 2 * 16 * MIB + 16 * MIB // 64 + OVERHEAD_BYTES
    for name in ("memory.limit_in_bytes", "memory.max"):
        for folder in group.folders:
            if (folder / name).exists():
                assert int((folder / name).read_text()) == ceiling
    below, beyond = (f"bytearray({ceiling + change})" for change in (-64 * MIB, 64 * MIB))
    assert (await run_in(group, "python3", "-c", below)).wait(timeout=20) == 0
    process = await run_in(group, "python3", "-c", beyond)
    spawned.append(process)
    assert process.wait(timeout=20) == -9


async def test_tasks_beyond_the_limit_are_refused(
    cgroups: Cgroups, spawned: list[subprocess.Popen[bytes]]
) -> None:
    group = cgroups.create("vm-1", memory_bytes=64 * MIB, cpus=1)
    program = (
        "import os, time\n"
        f"for n in range({TASKS + 10}):\n"
        "    try:\n"
        "        if os.fork() == 0: time.sleep(60)\n"
        "    except OSError: raise SystemExit(n - 200)\n"
    )
    process = await run_in(group, "python3", "-c", program)
    spawned.append(process)
    assert process.wait(timeout=20) == (TASKS + 1 - 1 - 200) % 256  # itself is one
    await group.remove()
    assert cgroups.existing() == set()


async def test_what_a_crash_left_is_found_and_ended(
    cgroups: Cgroups, spawned: list[subprocess.Popen[bytes]]
) -> None:
    process = await run_in(cgroups.create("vm-1", memory_bytes=MIB, cpus=1), "sleep", "60")
    spawned.append(process)
    successor = Cgroups(instance="tnetcg")
    successor.setup()
    assert successor.existing() == {"vm-1"}
    await successor.teardown()
    assert process.wait(timeout=5) == -9
    assert not list(ROOT.glob("*/tnetcg"))


@pytest.mark.parametrize("name", ["..", "a/b", "", "../../x", ".hidden"])
def test_names_cannot_leave_the_parent(cgroups: Cgroups, name: str) -> None:
    with pytest.raises(ValueError, match="not a group name"):
        cgroups.group(name)


def test_no_control_groups_at_all(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no control groups"):
        Cgroups(instance="tnetcg", root=tmp_path).setup()


@pytest.mark.skipif(not (UNIFIED / "cgroup.procs").exists(), reason="no unified hierarchy")
async def test_the_unified_hierarchy_joins_kills_and_removes(
    spawned: list[subprocess.Popen[bytes]],
) -> None:
    cgroups = Cgroups(instance="tnetcg", root=UNIFIED)
    cgroups.setup()
    try:
        if "memory" not in (UNIFIED / "cgroup.controllers").read_text().split():
            assert cgroups.problems == (
                "no memory control group: it is not limited",
                "no pids control group: it is not limited",
            )
        group = cgroups.create("vm-1", memory_bytes=MIB, cpus=1)
        process = await run_in(group, "sh", "-c", "sleep 60 & sleep 60")
        spawned.append(process)
        assert group.folders == (UNIFIED / "tnetcg" / "vm-1",)
        await group.remove()
        assert process.wait(timeout=5) == -9
    finally:
        await cgroups.teardown()
    assert not (UNIFIED / "tnetcg").exists()


def test_the_unified_hierarchy_as_plain_files(tmp_path: Path) -> None:
    """The kernel makes these files in each new folder; here the test does."""
    _unified(tmp_path, controllers="cpu io memory pids", delegated="")
    parent = tmp_path / "atoll"
    _unified(parent, controllers="cpu memory pids", delegated="cpu")
    folder = parent / "vm-1"
    files = ("memory.max", "memory.oom.group", "pids.max", "memory.current", "pids.current")
    _unified(folder, controllers="", delegated="", files=files)
    (folder / "memory.current").write_text("5000\n")
    (folder / "pids.current").write_text("3\n")
    (folder / "memory.stat").write_text("anon 4096\nfile 904\n")
    (folder / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")

    cgroups = Cgroups(instance="atoll", root=tmp_path, tb_size_mib=100)
    cgroups.setup()
    group = cgroups.create("vm-1", memory_bytes=1024 * MIB, cpus=4)
    assert cgroups.problems == ()
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu"  # the last one written
    assert (parent / "cgroup.subtree_control").read_text() == "+pids"
    assert (folder / "memory.max").read_text() == str(
        2 * 1024 * MIB + 16 * MIB + OVERHEAD_BYTES + 200 * MIB
    )
    assert (folder / "memory.oom.group").read_text() == "1"
    assert (folder / "pids.max").read_text() == str(TASKS + 4)
    assert group.procs == (folder / "cgroup.procs",)
    assert group.usage() == Usage(cpu_seconds=2.5, memory_bytes=5000, anonymous_bytes=4096, tasks=3)
    group.kill()
    assert (folder / "cgroup.kill").read_text() == "1"


def _unified(
    folder: Path, *, controllers: str, delegated: str, files: tuple[str, ...] = ()
) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "cgroup.controllers").write_text(controllers + "\n")
    (folder / "cgroup.subtree_control").write_text(delegated + "\n")
    for name in ("cgroup.procs", *files):
        (folder / name).touch()
