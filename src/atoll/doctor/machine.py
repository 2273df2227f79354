"""What the machine itself must bring: tools, kernel features, room, a sane clock."""

from __future__ import annotations

import asyncio
import os
import platform
import pwd
import shutil
import sys
import time
from pathlib import Path

from atoll.base.errors import AtollError
from atoll.base.proc import run
from atoll.base.units import GIB, show_size
from atoll.config import Config
from atoll.doctor.finding import Finding, degraded, missing, ok
from atoll.doors.edge.launch import unbound

PROBE_S = 10.0
ROOM_BYTES = 10 * GIB  # an image, its template and a few VMs
LEAST_ROOM_BYTES = 2 * GIB
MEMORY_BYTES = 2 * GIB
REMOTE = frozenset(["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs"])
VOLATILE = frozenset(["tmpfs", "ramfs"])

# program -> Debian package that brings it
TOOLS = {
    "qemu-img": "qemu-utils",
    "haproxy": "haproxy",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "ip": "iproute2",
    "ssh-keygen": "openssh-client",
    "mkfs.ext4": "e2fsprogs",
    "dnsmasq": "dnsmasq-base",
    "setpriv": "util-linux",
}
QEMU = {
    "x86_64": ("qemu-system-x86_64", "qemu-system-x86"),
    "aarch64": ("qemu-system-aarch64", "qemu-system-arm"),
}


async def examine(config: Config, *, is_running: bool) -> list[Finding]:
    """Every check of the machine, in the order a reader can act on them."""
    return [
        _python(),
        *_tools(),
        _kvm(),
        _user(config),
        await _file_system(config),
        _room(config),
        _memory(),
        _cgroups(),
        await _nftables(),
        _io_uring(),
        *([] if is_running else await _ports(config)),
        _clock(),
    ]


def _python() -> Finding:
    return ok("python", f"{platform.python_version()}, {sys.executable}")


def _tools() -> list[Finding]:
    tools = dict(TOOLS)
    program, package = QEMU.get(platform.machine(), QEMU["x86_64"])
    tools[program] = package
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    lacking = {
        tool: package for tool, package in tools.items() if not shutil.which(tool, path=path)
    }
    if not lacking:
        return [ok("tools", f"all {len(tools)} are installed")]
    packages = " ".join(sorted(set(lacking.values())))
    return [missing("tools", f"{', '.join(lacking)} not found", f"apt-get install {packages}")]


def _kvm() -> Finding:
    device = Path("/dev/kvm")
    if not device.exists():
        return degraded(
            "/dev/kvm", "not there: VMs are emulated, slower by a factor of 10 to 30",
            "modprobe kvm_intel || modprobe kvm_amd   (in a VM: turn on nested virtualisation)",
        )  # fmt: skip
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return degraded("/dev/kvm", f"cannot be opened: {error.strerror}", "ls -l /dev/kvm")
    # That it opens proves nothing; the engine's verdict after its probe guest is a line of its own.
    return ok("/dev/kvm", "opens")


def _user(config: Config) -> Finding:
    try:
        pwd.getpwnam(config.control.user)
    except KeyError:
        return missing("user", f"{config.control.user} does not exist", "make up")
    return ok("user", config.control.user)


async def _file_system(config: Config) -> Finding:
    path = _nearest(config.pool)
    try:
        found = await run(["findmnt", "-n", "-o", "FSTYPE", "--target", str(path)], seconds=PROBE_S)
    except AtollError as error:
        return degraded("pool", f"file system of {path} unknown: {error.message}", "findmnt")
    kind = found.out.decode().strip().splitlines()[-1]
    if kind in REMOTE:
        return degraded(
            "pool", f"{path} is on {kind}, over a network", "set paths.state to a local disk"
        )
    if kind in VOLATILE:
        return degraded(
            "pool", f"{path} is on {kind}: gone after a reboot", "set paths.state to a local disk"
        )
    return ok("pool", f"{path} on {kind}" + ("" if kind == "xfs" else " (XFS is best)"))


def _room(config: Config) -> Finding:
    path = _nearest(config.pool)
    free_bytes = shutil.disk_usage(path).free
    found = f"{show_size(free_bytes)} free at {path}"
    if free_bytes < LEAST_ROOM_BYTES:
        return missing("room", found, f"free at least {show_size(LEAST_ROOM_BYTES)}")
    if free_bytes < ROOM_BYTES:
        return degraded("room", found, f"free {show_size(ROOM_BYTES)} for images and VMs")
    return ok("room", found)


def _memory() -> Finding:
    lines = Path("/proc/meminfo").read_text().splitlines()
    available_kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    found = f"{show_size(available_kib * 1024)} available"
    if available_kib * 1024 < MEMORY_BYTES:
        return degraded("memory", found, "atoll exec ls, then pause what is idle")
    return ok("memory", found)


def _cgroups() -> Finding:
    unified = Path("/sys/fs/cgroup/cgroup.controllers")
    if unified.exists():
        version, names = "v2", set(unified.read_text().split())
    else:
        version, names = "v1", {p.name for p in Path("/sys/fs/cgroup").iterdir() if p.is_dir()}
    lacking = {"memory", "pids", "cpu"} - names
    if lacking:
        return degraded(
            "cgroups", f"{version} without {', '.join(sorted(lacking))}: VMs have no such ceiling",
            "cat /proc/cgroups",
        )  # fmt: skip
    return ok("cgroups", f"{version} with memory, pids and cpu")


async def _nftables() -> Finding:
    if os.geteuid() != 0:
        return degraded("nftables", "not checked without root", "sudo atoll doctor")
    try:
        await run(["nft", "list", "tables"], seconds=PROBE_S)
    except AtollError as error:
        return missing("nftables", error.message, "modprobe nf_tables")
    return ok("nftables", "rules can be read")


def _io_uring() -> Finding:
    switch = Path("/proc/sys/kernel/io_uring_disabled")
    if switch.exists() and switch.read_text().strip() == "2":
        return degraded(
            "io_uring", "turned off: disks use threads", "sysctl kernel.io_uring_disabled=0"
        )
    return ok("io_uring", "not turned off")


async def _ports(config: Config) -> list[Finding]:
    wanted = {
        "ssh.port": (config.ssh.listen, config.ssh.port),
        "https.port": (config.https.listen, config.https.port),
        "https.http_port": (config.https.listen, config.https.http_port),
        "control.api_port": ("127.0.0.1", config.control.api_port),
    }
    taken = [key for key, address in wanted.items() if not await asyncio.to_thread(_free, *address)]
    if not taken:
        return [
            ok("ports", ", ".join(str(port) for _listen, port in wanted.values()) + " are free")
        ]
    return [
        missing(
            "ports", f"{key}: {wanted[key][1]} is in use", f"ss -ltnp 'sport = {wanted[key][1]}'"
        )
        for key in taken
    ]


def _free(listen: str, port: int) -> bool:
    try:
        with unbound(listen) as sock:
            sock.bind((listen, port))
    except PermissionError:
        return True  # a low port and no root: it may well be free
    except OSError:
        return False
    return True


def _clock() -> Finding:
    made = Path(__file__).stat().st_mtime
    if time.time() < made - 86400:
        return missing(
            "clock", f"{time.strftime('%F %T')} is before this program was installed",
            "timedatectl set-ntp true",
        )  # fmt: skip
    return ok("clock", time.strftime("%F %T %Z"))


def _nearest(path: Path) -> Path:
    """The path itself or the closest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())
