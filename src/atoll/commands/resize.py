"""The verb for another size: resize."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atoll.base.units import show_size
from atoll.commands.context import Context
from atoll.commands.registry import Reach, Registry, Source, argument, flag, whole_number
from atoll.commands.reply import Reply
from atoll.services.resizing import Resized, Size

VERBS = Registry()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    vm: str = argument("vm", "VM", source=Source.VM)
    cpus: int | None = flag("--cpu", "vCPUs", value="N", convert=whole_number("--cpu"))
    memory: str | None = flag("--memory", "memory, as 2G or 2", value="SIZE")
    disk: str | None = flag("--disk", "a larger disk, as 50G or 50", value="SIZE")


@VERBS.command(
    "resize",
    help="Change a VM's size. Its disk only grows: at once while it runs, with its file system, else"
    " when it starts. vCPUs and memory change at its next restart, which boots.",
    reach=Reach.VM,
    mutates=True,
    examples=("resize web --disk 50G", "resize web --cpu 4 --memory 8G"),
    result={"vm_name": "the VM"},
    sometimes={
        "old_cpus": "vCPUs so far, with --cpu",
        "new_cpus": "vCPUs wanted",
        "old_memory": "bytes of memory so far, with --memory",
        "new_memory": "bytes wanted",
        "disk_old_bytes": "bytes of disk so far, with --disk",
        "disk_new_bytes": "bytes now",
        "restart_needed": "with --cpu or --memory: whether it runs with another size until then",
        "problem": "what did not follow yet",
    },
)
async def resize(ctx: Context, args: Resize) -> Reply:
    size = Size(cpus=args.cpus, memory=args.memory, disk=args.disk)
    done = await ctx.cloud.resizing.resize(ctx.caller, args.vm, size, act=ctx.act)
    data: dict[str, Any] = {"vm_name": args.vm}
    before, after = done.before, done.after
    if args.cpus is not None:
        data |= {"old_cpus": before.cpus, "new_cpus": after.cpus}
    if args.memory is not None:
        data |= {"old_memory": before.memory_bytes, "new_memory": after.memory_bytes}
    if args.disk is not None:
        data |= {"disk_old_bytes": before.disk_bytes, "disk_new_bytes": after.disk_bytes}
    if args.cpus is not None or args.memory is not None:
        data["restart_needed"] = done.needs_restart
    if done.problem:
        data["problem"] = done.problem
    return Reply(data=data, text=_text(args.vm, done))


def _text(name: str, done: Resized) -> str:
    before, after = done.before, done.after
    changes = []
    if before.cpus != after.cpus:
        changes.append(f"{after.cpus} vCPU (was {before.cpus})")
    for what, was, now in (
        ("memory", before.memory_bytes, after.memory_bytes),
        ("disk", before.disk_bytes, after.disk_bytes),
    ):
        if was != now:
            changes.append(f"{show_size(now)} {what} (was {show_size(was)})")
    if not changes:
        return f"{name} has that size already"
    lines = [f"{name}: {', '.join(changes)}"]
    if done.needs_restart:
        lines.append(f"vCPUs and memory follow at its next start from disk: restart {name}")
    return "\n".join([*lines, *filter(None, [done.problem])])
