"""Verbs for a VM's state: pause, resume, restart, stat, vm-logs, and `ssh <vm> <command>`."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from atoll.base.errors import Conflict
from atoll.base.units import GIB, show_size
from atoll.commands.context import Context
from atoll.commands.registry import Reach, Registry, Source, argument, flag, one_of
from atoll.commands.render import facts, instant, printable
from atoll.commands.reply import Reply
from atoll.commands.several import VMS, on_each
from atoll.commands.trend import trend
from atoll.commands.view import VmView
from atoll.domain.usage import Range
from atoll.domain.vm import VmRecord
from atoll.rpc.messages import Stat

VERBS = Registry()
SAMPLE_S = 0.25  # between the two readings that make a rate
_MANY = {
    "vms": "of several VMs or a pattern: one entry per VM, each with the keys above",
    "failed": "then also: names that failed",
    "not_found": "those of them that are not yours or do not exist",
    "errors": "name -> why it failed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SomeVms:
    vms: tuple[str, ...] = argument("vm", VMS, many=True, required=True, source=Source.VM)


@VERBS.command(
    "pause",
    help="Save a VM's memory to disk and free its CPU and memory.",
    reach=Reach.VM,
    mutates=True,
    examples=("pause web", "pause web 'test-*'"),
    result={"vm_name": "the VM", "status": "`paused`"},
    sometimes=_MANY,
)
async def pause(ctx: Context, args: SomeVms) -> Reply:
    async def one(name: str) -> Reply:
        await ctx.cloud.power.pause(ctx.caller, name, act=ctx.act)
        return Reply(data={"vm_name": name, "status": "paused"}, text=f"{name} is paused")

    return await on_each(ctx, args.vms, one)


@VERBS.command(
    "resume",
    help="Let a paused VM go on where it was; boot a stopped one.",
    reach=Reach.VM,
    mutates=True,
    examples=("resume web", "resume 'test-*'"),
    result={
        "vm_name": "the VM",
        "status": "`running`",
        "cold_booted": '"true" when the saved memory could not be used and it booted, else "false"',
    },
    sometimes=_MANY,
)
async def resume(ctx: Context, args: SomeVms) -> Reply:
    async def one(name: str) -> Reply:
        made = await ctx.cloud.power.resume(ctx.caller, name, act=ctx.act)
        is_cold = made.outcome is not None and made.outcome.cold_booted
        cold_booted = "true" if is_cold else "false"
        return Reply(
            data={"vm_name": name, "status": "running", "cold_booted": cold_booted},
            text=f"{name} is running" + (" (booted from its disk)" if is_cold else ""),
        )

    return await on_each(ctx, args.vms, one)


@VERBS.command(
    "restart",
    help="Shut a VM down in order and boot it.",
    reach=Reach.VM,
    mutates=True,
    examples=("restart web", "restart 'test-*'"),
    result={"status": "`restarted`", "vm_name": "the VM"},
    sometimes=_MANY,
)
async def restart(ctx: Context, args: SomeVms) -> Reply:
    async def one(name: str) -> Reply:
        await ctx.cloud.power.restart(ctx.caller, name, act=ctx.act)
        return Reply(data={"status": "restarted", "vm_name": name}, text=f"{name} is running")

    return await on_each(ctx, args.vms, one)


_RANGES = ("now", *Range)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatArgs(SomeVms):
    range: str = flag(
        "--range",
        "now, or a chart of the last 24 hours, 7 or 30 days",
        default="now",
        value="|".join(_RANGES),
        convert=one_of("--range", _RANGES),
        shown="now",
    )


@VERBS.command(
    "stat",
    help="What a VM uses now, or used over time. Running VMs are looked at once a minute.",
    reach=Reach.VM,
    examples=("stat web", "stat web --json", "stat '*'", "stat web --range=24h"),
    result={
        "name": "the VM",
        "status": "its state",
        "range": "`now`, `24h`, `7d` or `30d`",
        "points": "of `now` one entry: `timestamp`, `vm_name`, `cpu_cores`, `cpu_nominal`,"
        " `mem_used_bytes`, `mem_total_bytes`, `disk_size_gb`, `disk_used_gb`, `fs_used_gb`,"
        " `fs_total_gb`, `fs_free_gb`, `network_tx_mbps`, `network_rx_mbps`, `io_read_mbps`,"
        " `io_write_mbps`, `uptime_seconds`, `ports`. Of a range, oldest first, one per 5"
        " minutes of `24h`, 30 of `7d`, 120 of `30d`, from `timestamp` on: averages of rates"
        " (null: not seen), the most of `mem_used_bytes` (with QEMU's own), the last of other"
        " sizes; without `fs_*`, `uptime_seconds` and `ports`, which only the VM knows. Times it"
        " was off or not seen have no entry; no entry at all: null",
    },
    sometimes=_MANY,
)
async def stat(ctx: Context, args: StatArgs) -> Reply:
    async def over_time(name: str) -> Reply:
        return await trend(ctx, name, Range(args.range))

    async def one(name: str) -> Reply:
        started = time.monotonic()
        vm, first = await ctx.cloud.power.stat(ctx.caller, name)
        await asyncio.sleep(SAMPLE_S)
        vm, now = await ctx.cloud.power.stat(ctx.caller, name)
        point = _point(vm, first, now, time.monotonic() - started)
        point["timestamp"] = instant(ctx.cloud.now())
        status = VmView.of(ctx.cloud, vm).status
        data = {"name": name, "status": status, "range": "now", "points": [point]}
        return Reply(data=data, text=_text(vm, now, point, status))

    return await on_each(ctx, args.vms, one if args.range == "now" else over_time, between="\n\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class OneVm:
    vm: str = argument("vm", "VM", source=Source.VM)


@VERBS.command(
    "vm-logs",
    help="Print a VM's boot log. It is what the VM wrote on its console since it started, the newest"
    " 128 KiB; one that started warm has not booted, and may have written nothing.",
    reach=Reach.VM,
    examples=("vm-logs web", "vm-logs web --json"),
    result={"vm_name": "the VM", "log": "the text, without escape sequences"},
)
async def vm_logs(ctx: Context, args: OneVm) -> Reply:
    log = printable(await ctx.cloud.power.console(ctx.caller, args.vm))
    if not log:
        ctx.progress(f"{args.vm} has written nothing on its console since it started")
    return Reply(data={"vm_name": args.vm, "log": log}, text=log)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ssh:
    vm: str = argument("vm", "VM", source=Source.VM)
    command: tuple[str, ...] = argument(
        "command", "what to run; a shell if not given", rest=True, secret=True
    )


@VERBS.command(
    "ssh",
    help="Run a command in a VM, or open a shell there. What follows the name is the command.",
    reach=Reach.VM,
    examples=("ssh web uptime", "ssh web 'cd /srv && ls'"),
)
async def ssh(ctx: Context, args: Ssh) -> Reply:
    route = await ctx.cloud.route(ctx.caller, args.vm)
    return Reply(run_in_vm=route, command=" ".join(args.command))


def _point(vm: VmRecord, first: Stat, now: Stat, seconds: float) -> dict[str, Any]:
    """Rates between two readings; a VM that restarted between them has none."""
    if now.uptime_seconds < first.uptime_seconds:
        raise Conflict(f"{vm.title} was restarting", hint="Try again")

    def rate(name: str, scale: float) -> float:
        gone = float(getattr(now, name)) - float(getattr(first, name))
        return round(max(0.0, gone) / seconds / scale, 3)

    return {
        "timestamp": "",
        "vm_name": vm.label,
        "cpu_cores": rate("cpu_seconds", 1),
        "cpu_nominal": vm.cpus,
        "mem_used_bytes": now.memory_private_bytes,
        "mem_total_bytes": now.memory_total_bytes or vm.memory_bytes,
        "disk_size_gb": round((now.disk_size_bytes or vm.disk_bytes) / GIB, 3),
        "disk_used_gb": round(now.disk_used_bytes / GIB, 3),
        "fs_used_gb": round(now.fs_used_bytes / GIB, 3),
        "fs_total_gb": round(now.fs_total_bytes / GIB, 3),
        "fs_free_gb": round((now.fs_total_bytes - now.fs_used_bytes) / GIB, 3),
        "network_tx_mbps": rate("network_tx_bytes", 125_000),
        "network_rx_mbps": rate("network_rx_bytes", 125_000),
        "io_read_mbps": rate("io_read_bytes", 125_000),
        "io_write_mbps": rate("io_write_bytes", 125_000),
        "uptime_seconds": round(now.uptime_seconds),
        "ports": list(now.ports),
    }


def _text(vm: VmRecord, now: Stat, point: dict[str, Any], status: str) -> str:
    has_fs = now.fs_total_bytes > 0
    memory_total = now.memory_total_bytes or vm.memory_bytes
    return facts(
        (
            ("name", vm.label),
            ("status", status),
            ("up", f"{now.uptime_seconds:.0f} s" if now.uptime_seconds else ""),
            ("cpu", f"{point['cpu_cores']:.2f} of {vm.cpus}"),
            ("memory", f"{show_size(now.memory_private_bytes)} own of {show_size(memory_total)}"),
            (
                "files",
                f"{show_size(now.fs_used_bytes)} of {show_size(now.fs_total_bytes)}"
                if has_fs
                else "",
            ),
            ("disk", f"{show_size(now.disk_used_bytes)} in the pool"),
            (
                "network",
                f"in {point['network_rx_mbps']:g}, out {point['network_tx_mbps']:g} Mbit/s",
            ),
            ("ports", ", ".join(map(str, now.ports))),
        )
    )
