"""The verb that says what of the pool is used: billing usage. Nothing costs anything here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atoll.base.units import show_size
from atoll.commands.context import Context
from atoll.commands.registry import Reach, Registry, flag, one_of
from atoll.commands.render import facts, table
from atoll.commands.reply import Reply
from atoll.commands.view import VmView
from atoll.rpc.messages import Node, VmState

VERBS = Registry()
_GROUPS = ("none", "vm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    group: str = flag(
        "--group",
        "vm: a line per VM as well",
        default="none",
        value="|".join(_GROUPS),
        convert=one_of("--group", _GROUPS),
        shown="none",
    )


@VERBS.command(
    "billing usage",
    help="Show what your VMs have of the pool, and what the pool has. Nothing is charged.",
    reach=Reach.ACCOUNT,
    aliases=("usage",),
    examples=("billing usage", "billing usage --group=vm"),
    result={
        "range": "`now`",
        "vms": "your VMs: `count`, `running`, `limit`",
        "cpus": "vCPUs: `allotted` to your VMs, of them `running`, `total` in the machine",
        "memory_bytes": "`allotted` to your VMs, of them `running`; the machine's `total` and"
        " `available`: VMs share what they have not written",
        "disk_bytes": "`allotted` to your VMs, `used` by them alone; the pool's `total` and `free`",
    },
    sometimes={
        "by_vm": "with --group=vm, one entry per VM: `vm_name`, `status`, `cpus`, `memory_bytes`,"
        " `disk_bytes`, `disk_used_bytes`",
    },
)
async def usage(ctx: Context, args: Usage) -> Reply:
    node = await ctx.cloud.facts.fresh_node()
    await ctx.cloud.facts.refresh()
    views = [VmView.of(ctx.cloud, vm) for vm in await ctx.cloud.access.visible(ctx.caller)]
    data = _summed(views, node, ctx.cloud.config.vms.max_vms)
    text = _text(data)
    if args.group == "vm":
        entries = [_entry(view) for view in views]
        data["by_vm"] = entries
        if entries:
            text = f"{text}\n\n{_table(entries)}"
    return Reply(data=data, text=text)


def _summed(views: Sequence[VmView], node: Node, limit: int) -> dict[str, Any]:
    theirs = held(views)
    return {
        "range": "now",
        "vms": {**theirs["vms"], "limit": limit},
        "cpus": {**theirs["cpus"], "total": node.cpus},
        "memory_bytes": {
            **theirs["memory_bytes"],
            "available": node.memory_available_bytes,
            "total": node.memory_bytes,
        },
        "disk_bytes": {
            **theirs["disk_bytes"],
            "free": node.pool_free_bytes,
            "total": node.pool_bytes,
        },
    }


def held(views: Sequence[VmView]) -> dict[str, Any]:
    """What some VMs have of the pool together."""
    running = [view.record for view in views if view.status == VmState.RUNNING]
    owned = [view.record for view in views]
    return {
        "vms": {"count": len(owned), "running": len(running)},
        "cpus": {
            "allotted": sum(vm.cpus for vm in owned),
            "running": sum(vm.cpus for vm in running),
        },
        "memory_bytes": {
            "allotted": sum(vm.memory_bytes for vm in owned),
            "running": sum(vm.memory_bytes for vm in running),
        },
        "disk_bytes": {
            "allotted": sum(vm.disk_bytes for vm in owned),
            "used": sum(map(_disk_used, views)),
        },
    }


def _text(data: dict[str, Any]) -> str:
    vms, cpus = data["vms"], data["cpus"]
    memory = {key: show_size(size) for key, size in data["memory_bytes"].items()}
    disk = {key: show_size(size) for key, size in data["disk_bytes"].items()}
    return facts(
        (
            ("VMs", f"{vms['count']} of {vms['limit']}, {vms['running']} running"),
            ("vCPU", f"{cpus['allotted']}, {cpus['running']} running; machine {cpus['total']}"),
            (
                "memory",
                f"{memory['allotted']}, {memory['running']} running;"
                f" machine {memory['total']}, {memory['available']} available",
            ),
            (
                "disk",
                f"{disk['allotted']}, {disk['used']} used;"
                f" pool {disk['total']}, {disk['free']} free",
            ),
        )
    )


def _entry(view: VmView) -> dict[str, Any]:
    vm = view.record
    return {
        "vm_name": vm.label,
        "status": view.status,
        "cpus": vm.cpus,
        "memory_bytes": vm.memory_bytes,
        "disk_bytes": vm.disk_bytes,
        "disk_used_bytes": _disk_used(view),
    }


def _disk_used(view: VmView) -> int:
    return 0 if view.facts is None else view.facts.disk_used_bytes


def _table(entries: Sequence[dict[str, Any]]) -> str:
    rows = [
        (
            entry["vm_name"],
            entry["status"],
            str(entry["cpus"]),
            show_size(entry["memory_bytes"]),
            show_size(entry["disk_bytes"]),
            show_size(entry["disk_used_bytes"]),
        )
        for entry in entries
    ]
    return table(("NAME", "STATUS", "CPU", "MEMORY", "DISK", "USED"), rows)
