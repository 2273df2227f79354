"""QEMU's command line: a pure function of a machine's shape and of the files handed to it.

Invariant: two machines whose `shape_key` is equal accept each other's device state. Everything that
changes the state's layout (machine type, devices and their addresses, vCPUs, memory, CPU model,
QEMU's version, kernel command line) is in the key; what differs between clones (file descriptors,
name, accelerator buffers) is not.

KVM and TCG differ in `-accel` and `-cpu` only. Under TCG `tb-size` is always set: the default code
cache grows to 1 GiB per VM.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from atoll.engine.disk.blockdev import DEVICE_OPTIONS

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
MAC = "52:54:00:a7:01:01"
AGENT_PORT = "atoll.agent.0"
CONSOLE_BYTES = 1 << 17  # the serial log is a ring: the newest 128 KiB
MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Everything that device state depends on. `kernel` is a digest of kernel and initramfs."""

    arch: str  # "x86_64" or "aarch64", as `uname -m` says
    accel: str  # "kvm" or "tcg"
    cpu_model: str
    cpus: int
    memory_bytes: int
    cmdline: str
    kernel: str
    qemu_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Handles:
    """File descriptors and block nodes of one particular QEMU.

    `ram` is a sealed memory file to map privately, or None for empty memory; `shared_ram` makes
    empty memory that a migration leaves out. `blockdevs` are the JSON objects of the disk chain,
    lowest layer first; `disk_node` is the name of its top.
    """

    name: str
    qmp: int
    agent: int
    kernel: int
    initrd: int
    tap: int | None
    ram: int | None
    fdsets: tuple[tuple[int, int], ...]  # (fd, fdset id)
    blockdevs: tuple[dict[str, object], ...]
    disk_node: str
    restoring: bool
    tb_size_mib: int
    shared_ram: bool = False


def shape_key(shape: Shape) -> str:
    """32 hex digits that name the shape; a change of this function changes every key."""
    placeholder = Handles(
        name="",
        qmp=0,
        agent=0,
        kernel=0,
        initrd=0,
        tap=0,
        ram=None,
        fdsets=(),
        blockdevs=(),
        disk_node="disk",
        restoring=False,
        tb_size_mib=0,
    )
    facts = [*render(shape, placeholder), shape.kernel, shape.qemu_version, shape.arch]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def render(shape: Shape, handles: Handles) -> list[str]:
    """The argument vector, program first."""
    binary = "qemu-system-aarch64" if shape.arch == "aarch64" else "qemu-system-x86_64"
    argv = [binary, "-name", f"guest={handles.name},debug-threads=on"]
    argv += ["-nodefaults", "-no-user-config", "-display", "none", "-S"]
    argv += ["-sandbox", SANDBOX]
    argv += ["-accel", _accel(shape, handles.tb_size_mib), "-cpu", shape.cpu_model]
    argv += ["-smp", f"cpus={shape.cpus}", "-m", f"{shape.memory_bytes // MIB}M"]
    argv += ["-object", _ram(shape, handles), "-M", _machine(shape)]
    argv += ["-kernel", _fd(handles.kernel), "-initrd", _fd(handles.initrd)]
    argv += ["-append", shape.cmdline]
    for fd, fdset in handles.fdsets:
        argv += ["-add-fd", f"fd={fd},set={fdset}"]
    for node in handles.blockdevs:
        argv += ["-blockdev", json.dumps(node, sort_keys=True)]
    argv += _devices(shape, handles)
    if handles.restoring:
        argv += ["-incoming", "defer"]
    return argv


def _accel(shape: Shape, tb_size_mib: int) -> str:
    if shape.accel == "kvm":
        return "kvm"
    return f"tcg,thread=multi,tb-size={tb_size_mib}"


def _ram(shape: Shape, handles: Handles) -> str:
    size = f"id=ram0,size={shape.memory_bytes}"
    if handles.ram is None:
        return f"memory-backend-ram,{size},share={'on' if handles.shared_ram else 'off'}"
    return f"memory-backend-file,{size},share=off,mem-path={_fd(handles.ram)}"


def _machine(shape: Shape) -> str:
    if shape.arch == "aarch64":
        return "virt,gic-version=max,memory-backend=ram0,suppress-vmdesc=on"
    # Only what a server guest uses: each device dropped is state not saved and memory not spent.
    return (
        "q35,memory-backend=ram0,suppress-vmdesc=on"
        ",sata=off,smbus=off,vmport=off,usb=off,graphics=off"
    )


def _devices(shape: Shape, handles: Handles) -> list[str]:
    argv = ["-chardev", f"socket,id=qmp,fd={handles.qmp},server=on,wait=off"]
    argv += ["-mon", "chardev=qmp,mode=control"]
    argv += ["-chardev", f"ringbuf,id=console,size={CONSOLE_BYTES}", "-serial", "chardev:console"]
    disk = f"virtio-blk-pci,id=disk0,drive={handles.disk_node},addr=0x3,{DEVICE_OPTIONS}"
    argv += ["-device", disk]
    # Without a tap the card stays, unplugged, so that the machine keeps its shape.
    wire = "hubport,id=net0,hubid=0"
    if handles.tap is not None:
        wire = f"tap,id=net0,fd={handles.tap},vhost=off"
    argv += ["-netdev", wire]
    argv += ["-device", f"virtio-net-pci,id=nic0,netdev=net0,mac={MAC},romfile=,addr=0x4"]
    argv += ["-object", "rng-builtin,id=rng0", "-device", "virtio-rng-pci,rng=rng0,addr=0x5"]
    argv += ["-device", "virtio-serial-pci,id=serial0,max_ports=4,addr=0x6"]
    argv += ["-chardev", f"socket,id=agent,fd={handles.agent},server=on,wait=off"]
    argv += ["-device", f"virtserialport,bus=serial0.0,nr=1,chardev=agent,name={AGENT_PORT}"]
    if shape.arch == "x86_64":
        # A new generation id in each process makes the guest's kernel reseed before anybody asks.
        argv += ["-device", "vmgenid,guid=auto,id=generation0"]
    return argv


def _fd(fd: int) -> str:
    return f"/proc/self/fd/{fd}"
