"""QEMU's argument list is fixed here, for KVM and for TCG: a change is a decision, not an accident."""

from __future__ import annotations

import dataclasses

from atoll.engine.qemu.argv import Handles, Shape, render, shape_key

SHAPE = Shape(
    arch="x86_64",
    accel="tcg",
    cpu_model="max",
    cpus=2,
    memory_bytes=1 << 30,
    cmdline="root=/dev/vda rw",
    kernel="k1",
    qemu_version="7.2.22",
)
HANDLES = Handles(
    name="vm-0123456789ab",
    qmp=3,
    agent=4,
    kernel=5,
    initrd=6,
    tap=7,
    ram=8,
    fdsets=((9, 1),),
    blockdevs=({"driver": "null-co", "node-name": "top"},),
    disk_node="top",
    restoring=True,
    tb_size_mib=64,
)
COMMON = (
    "-nodefaults -no-user-config -display none -S"
    " -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
)
MACHINE = (
    "-smp cpus=2 -m 1024M"
    " -object memory-backend-file,id=ram0,size=1073741824,share=off,mem-path=/proc/self/fd/8"
    " -M q35,memory-backend=ram0,suppress-vmdesc=on,sata=off,smbus=off,vmport=off,usb=off,graphics=off"
    " -kernel /proc/self/fd/5 -initrd /proc/self/fd/6"
)
DEVICES = (
    "-chardev socket,id=qmp,fd=3,server=on,wait=off -mon chardev=qmp,mode=control"
    " -chardev ringbuf,id=console,size=131072 -serial chardev:console"
    " -device virtio-blk-pci,id=disk0,drive=top,addr=0x3,werror=enospc,rerror=report"
    " -netdev tap,id=net0,fd=7,vhost=off"
    " -device virtio-net-pci,id=nic0,netdev=net0,mac=52:54:00:a7:01:01,romfile=,addr=0x4"
    " -object rng-builtin,id=rng0 -device virtio-rng-pci,rng=rng0,addr=0x5"
    " -device virtio-serial-pci,id=serial0,max_ports=4,addr=0x6"
    " -chardev socket,id=agent,fd=4,server=on,wait=off"
    " -device virtserialport,bus=serial0.0,nr=1,chardev=agent,name=atoll.agent.0"
    " -device vmgenid,guid=auto,id=generation0 -incoming defer"
)


def expected(accel: str, cpu: str) -> list[str]:
    """The whole list for one accelerator."""
    argv = ["qemu-system-x86_64", "-name", "guest=vm-0123456789ab,debug-threads=on"]
    argv += [*COMMON.split(), "-accel", accel, "-cpu", cpu, *MACHINE.split()]
    argv += ["-append", "root=/dev/vda rw", "-add-fd", "fd=9,set=1"]
    argv += ["-blockdev", '{"driver": "null-co", "node-name": "top"}']
    return argv + DEVICES.split()


def test_tcg() -> None:
    assert render(SHAPE, HANDLES) == expected("tcg,thread=multi,tb-size=64", "max")


def test_kvm_differs_in_flags_only() -> None:
    kvm = dataclasses.replace(SHAPE, accel="kvm", cpu_model="host")
    assert render(kvm, HANDLES) == expected("kvm", "host")


def test_arm64_uses_its_own_machine() -> None:
    arm = dataclasses.replace(SHAPE, arch="aarch64", accel="kvm", cpu_model="host")
    argv = render(arm, HANDLES)
    assert argv[0] == "qemu-system-aarch64"
    assert argv[argv.index("-M") + 1].startswith("virt,")
    assert not any("vmgenid" in part for part in argv)


def test_empty_memory_needs_no_file() -> None:
    cold = dataclasses.replace(HANDLES, ram=None, restoring=False)
    argv = render(SHAPE, cold)
    assert "memory-backend-ram,id=ram0,size=1073741824,share=off" in argv
    assert "-incoming" not in argv


def test_key_follows_the_shape_and_not_the_handles() -> None:
    assert shape_key(SHAPE) == shape_key(dataclasses.replace(SHAPE))
    changes: tuple[dict[str, object], ...] = (
        {"cpus": 1},
        {"memory_bytes": 2 << 30},
        {"cpu_model": "qemu64"},
        {"accel": "kvm"},
        {"kernel": "k2"},
        {"cmdline": "ro"},
        {"qemu_version": "10.0"},
    )
    keys = {shape_key(dataclasses.replace(SHAPE, **change)) for change in changes}  # type: ignore[arg-type]
    assert len(keys) == len(changes)
    assert shape_key(SHAPE) not in keys
