"""One control group per VM: a ceiling for memory and tasks, and the account of what it used.

Invariant: a QEMU joins its group before it starts, so whatever runs in the group is that VM's and
nothing else's; killing "the VM" is killing the group, also after the engine lost its records.

Groups are `<controller>/<instance>/<vm>` in the old hierarchy and `<instance>/<vm>` in the unified
one. They lie at the top and not under the engine's own group: under systemd they would otherwise end
with the engine's unit, and VMs outlive it. (systemd leaves groups at the top that it did not make.)
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from atoll.base.aio import poll
from atoll.base.errors import Unavailable

ROOT = Path("/sys/fs/cgroup")
MIB = 1 << 20
# A QEMU runs its vCPUs, the main loop, and up to 64 workers for disk requests.
TASKS = 128
# QEMU's own heap and libraries (30 MiB measured), and the rest for pages of disk files, which are
# charged here but can be dropped.
OVERHEAD_BYTES = 128 * MIB
# Translated code, and as much again for the tables that lead to it.
BYTES_PER_CODE_BYTE = 2
# Page tables and other kernel memory grow with the guest: 1/512 for the tables, then some.
OVERHEAD_SHARE = 64
# A page the template never wrote is a hole in its memory file. The first VM to write there pays for
# two: the hole's page, which stays for all VMs of the template, and its own copy of it.
PAGES_PER_PAGE = 2
_CONTROLLERS = ("memory", "pids", "cpuacct")
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
Version = Literal[1, 2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a group uses now; `anonymous_bytes` are the pages it does not share with a template."""

    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    anonymous_bytes: int = 0
    tasks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One VM's group: a folder per controller in the old hierarchy, one in the unified."""

    version: Version
    folders: tuple[Path, ...]

    @property
    def procs(self) -> tuple[Path, ...]:
        """Files to write a pid into (0 means the writer itself), all of them, before exec."""
        return tuple(folder / "cgroup.procs" for folder in self.folders)

    def pids(self) -> set[int]:
        """Processes in the group now."""
        return {int(pid) for procs in self.procs for pid in _read(procs).split()}

    def kill(self) -> None:
        """SIGKILL to whatever is in the group; it may take moments to be gone."""
        for folder in self.folders:
            with contextlib.suppress(OSError):  # cgroup.kill: unified, Linux 5.14
                (folder / "cgroup.kill").write_text("1")
                return
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def remove(self, *, seconds: float = 10.0) -> None:
        """Kill what is left and remove the group; a group already gone is fine.

        Raises Unavailable when a process in it cannot be ended within `seconds`.
        """
        await poll(self._try_remove, seconds=seconds, every=0.01, what=f"ending {self.folders[0]}")

    async def _try_remove(self) -> bool | None:
        self.kill()
        for folder in self.folders:
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:  # a process in it has not ended yet
                return None
        return True

    def usage(self) -> Usage:
        """Zeros for what this host does not account."""
        values = {key: number for folder in self.folders for key, number in _figures(folder)}
        cpu = values.get("cpuacct.usage", 0) / 1e9 or values.get("usage_usec", 0) / 1e6
        return Usage(
            cpu_seconds=cpu,
            memory_bytes=values.get("memory.usage_in_bytes", values.get("memory.current", 0)),
            anonymous_bytes=values.get("anon", values.get("rss", 0)),
            tasks=values.get("pids.current", 0),
        )


class Cgroups:
    """The groups of one Atoll. Call `setup` before `create`."""

    def __init__(self, *, instance: str, root: Path = ROOT, tb_size_mib: int = 0) -> None:
        self.problems: tuple[str, ...] = ()
        self._overhead_bytes = OVERHEAD_BYTES + BYTES_PER_CODE_BYTE * tb_size_mib * MIB
        self._instance = instance
        self._root = root
        self._version: Version = 2 if (root / "cgroup.controllers").exists() else 1
        self._parents: tuple[Path, ...] = ()
        self._find_parents()

    def setup(self) -> None:
        """Make the parents. Raises Unavailable when this host lets us limit nothing."""
        if not self._parents:
            raise Unavailable(
                f"no control groups under {self._root}",
                hint="Try: mount cgroup2 there, or run the engine outside a container",
            )
        try:
            if self._version == 2:
                _enable(self._root)
            for parent in self._parents:
                parent.mkdir(exist_ok=True)
            if self._version == 2:
                _enable(self._parents[0])
        except OSError as error:
            raise Unavailable(
                f"control groups cannot be made: {error}",
                hint="Try: systemctl edit atoll-engine, Delegate=yes; or a writable /sys/fs/cgroup",
            ) from error
        missing = [name for name in ("memory", "pids") if not self._has(name)]
        self.problems = tuple(f"no {name} control group: it is not limited" for name in missing)

    def create(self, vm: str, *, memory_bytes: int, cpus: int) -> Group:
        """A group whose ceiling is what the guest can touch plus what QEMU needs; again is fine."""
        group = self.group(vm)
        own = PAGES_PER_PAGE * memory_bytes
        ceiling = own + memory_bytes // OVERHEAD_SHARE + self._overhead_bytes
        limits = {
            "memory.max": ceiling,
            "memory.limit_in_bytes": ceiling,
            "memory.oom.group": 1,
            "pids.max": TASKS + cpus,
        }
        for folder in group.folders:
            folder.mkdir(exist_ok=True)
            for name, value in limits.items():
                if (folder / name).exists():
                    (folder / name).write_text(str(value))
        return group

    def group(self, vm: str) -> Group:
        """The group of `vm`, there or not."""
        if not _NAME.fullmatch(vm):
            raise ValueError(f"not a group name: {vm!r}")
        folders = tuple(parent / vm for parent in self._parents)
        return Group(version=self._version, folders=folders)

    def existing(self) -> set[str]:
        """Names of all groups, with and without processes."""
        return {
            entry.name
            for parent in self._parents
            if parent.is_dir()
            for entry in parent.iterdir()
            if entry.is_dir()
        }

    async def teardown(self) -> None:
        """End every VM's processes and remove all groups."""
        for vm in sorted(self.existing()):
            await self.group(vm).remove()
        for parent in self._parents:
            with contextlib.suppress(FileNotFoundError):
                parent.rmdir()

    def _find_parents(self) -> None:
        if self._version == 2:
            self._parents = (self._root / self._instance,)
            return
        # cpu and cpuacct are one mount on many hosts, under both names
        mounts = (self._root / name for name in _CONTROLLERS)
        real = dict.fromkeys(m.resolve() for m in mounts if (m / "cgroup.procs").exists())
        self._parents = tuple(mount / self._instance for mount in real)

    def _has(self, controller: str) -> bool:
        if self._version == 2:
            return controller in _read(self._parents[0] / "cgroup.controllers").split()
        return any(
            (parent / f"{controller}.stat").exists() or (parent / f"{controller}.max").exists()
            for parent in self._parents
        )


def _enable(folder: Path) -> None:
    """Pass on to children what of our controllers this folder has."""
    has = set(_read(folder / "cgroup.controllers").split())
    on = set(_read(folder / "cgroup.subtree_control").split())
    for name in ("memory", "pids", "cpu"):
        if name in has - on:
            (folder / "cgroup.subtree_control").write_text(f"+{name}")


def _figures(folder: Path) -> list[tuple[str, int]]:
    """Every figure of interest as (name, value); of *.stat files the lines."""
    found = []
    for name in ("cpuacct.usage", "memory.usage_in_bytes", "memory.current", "pids.current"):
        text = _read(folder / name).strip()
        if text.isdigit():
            found.append((name, int(text)))
    for name in ("memory.stat", "cpu.stat"):
        for line in _read(folder / name).splitlines():
            key, _, value = line.partition(" ")
            if key in ("anon", "rss", "usage_usec") and value.isdigit():
                found.append((key, int(value)))
    return found


def _read(path: Path) -> str:
    """The text of a kernel file; empty when the group has no such file or is gone."""
    try:
        return path.read_text()
    except OSError:
        return ""
