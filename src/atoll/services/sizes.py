"""Sizes of VMs as they are asked for: checked against what a VM may have and what the node has."""

from __future__ import annotations

from dataclasses import replace

from atoll.base.errors import Exhausted, Invalid
from atoll.base.units import GIB, MIB, parse_size, show_size
from atoll.domain.vm import VmRecord
from atoll.rpc.messages import Node

MAX_CPUS = 64
MEMORY_BYTES = (128 * MIB, 1024 * GIB)
DISK_BYTES = (1 * GIB, 64 * 1024 * GIB)


def cpu_count(count: int) -> int:
    """`count` if a VM can have so many vCPUs. Raises Invalid."""
    if not 1 <= count <= MAX_CPUS:
        raise Invalid(f"--cpu {count} is not within 1 to {MAX_CPUS}", hint="Try: --cpu 2")
    return count


def memory_size(text: str) -> int:
    """Bytes of `--memory`. Raises Invalid; whether the node has as much is `check_memory`'s to say."""
    return _size(text, "--memory", MEMORY_BYTES)


def disk_size(text: str) -> int:
    """Bytes of `--disk`. Raises Invalid."""
    return _size(text, "--disk", DISK_BYTES)


def check_memory(memory_bytes: int, node: Node) -> None:
    """Raises Exhausted for more than the whole machine has."""
    if memory_bytes > node.memory_bytes:
        raise Exhausted(
            f"--memory {show_size(memory_bytes)} is more than this machine has"
            f" ({show_size(node.memory_bytes)})",
            hint="Try: --memory 1G",
        )


def resized(
    vm: VmRecord, *, cpus: int | None, memory: str | None, disk: str | None, node: Node
) -> VmRecord:
    """`vm` with the sizes asked for; None: as it is. Raises Invalid or Exhausted."""
    memory_bytes, disk_bytes = vm.memory_bytes, vm.disk_bytes
    if memory is not None:
        memory_bytes = memory_size(memory)
        check_memory(memory_bytes, node)
    if disk is not None:
        disk_bytes = disk_size(disk)
    if disk_bytes < vm.disk_bytes:
        raise Invalid(
            f"--disk {disk} is smaller than the disk of {vm.label}",
            hint=f"A disk only grows; it has {show_size(vm.disk_bytes)}",
        )
    count = vm.cpus if cpus is None else cpu_count(cpus)
    return replace(vm, cpus=count, memory_bytes=memory_bytes, disk_bytes=disk_bytes)


def _size(text: str, flag: str, bounds: tuple[int, int]) -> int:
    """Whole MiB within `bounds`."""
    low, high = bounds
    size = parse_size(text, what=flag) // MIB * MIB
    if not low <= size <= high:
        plain = "A plain number is in gigabytes. " if text.strip().isdecimal() else ""
        raise Invalid(
            f"{flag} {text} is not within {show_size(low)} to {show_size(high)}",
            hint=f"{plain}Try: {flag} {show_size(max(low, GIB))}",
        )
    return size
