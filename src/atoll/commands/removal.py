"""Verbs that remove VMs and bring them back: rm, undo."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.base.errors import NotFound
from atoll.commands.context import Context
from atoll.commands.registry import Reach, Registry, Source, argument
from atoll.commands.reply import Reply
from atoll.commands.view import VmView

VERBS = Registry()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rm:
    vms: tuple[str, ...] = argument(
        "vm", "VMs to remove", many=True, required=True, source=Source.VM
    )


@VERBS.command(
    "rm",
    help="Remove VMs. `undo` brings them back for a day; it does not ask.",
    reach=Reach.VM,
    mutates=True,
    examples=("rm web", "rm web web-next"),
    result={
        "deleted": "names that were removed",
        "failed": "names that were not",
        "not_found": "those of them that are not yours or do not exist",
        "errors": "name -> why it failed",
    },
)
async def rm(ctx: Context, args: Rm) -> Reply:
    results = await ctx.cloud.trash.remove(ctx.caller, args.vms, act=ctx.act)
    errors = {name: error for name, error in results.items() if error is not None}
    deleted = [name for name in results if name not in errors]
    data = {
        "deleted": deleted,
        "failed": list(errors),
        "not_found": [name for name, error in errors.items() if isinstance(error, NotFound)],
        "errors": {name: error.message for name, error in errors.items()},
    }
    hours = f"{ctx.cloud.config.vms.trash_hours:g} h"
    lines = [f"removed {', '.join(deleted)}; `undo` brings back for {hours}"] if deleted else []
    lines += [str(error) for error in errors.values()]
    return Reply(
        data=data,
        text="\n".join(lines),
        exit=next((error.exit for error in errors.values()), 0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    pass


@VERBS.command(
    "undo",
    help="Take back your last `rm`: the VMs return, running if they ran.",
    reach=Reach.VM,
    mutates=True,
    examples=("undo",),
    result={
        "undone": "the command taken back",
        "restored": "one entry per VM: `vm_name`, `former_name`, `status`, `problem`",
    },
)
async def undo(ctx: Context, args: Undo) -> Reply:
    restored = await ctx.cloud.trash.undo(ctx.caller, act=ctx.act)
    entries, lines = [], []
    for done in restored:
        name, status = done.vm.label, VmView.of(ctx.cloud, done.vm).status
        entries.append(
            {"vm_name": name, "former_name": done.former_name, "status": status}
            | ({"problem": done.problem} if done.problem else {})
        )
        was = "" if name == done.former_name else f" (was {done.former_name}; that name is taken)"
        but = f", but: {done.problem}" if done.problem else ""
        lines.append(f"{name} is back{was}: {status}{but}")
    return Reply(data={"undone": "rm", "restored": entries}, text="\n".join(lines))
