"""Verbs that remove VMs, and take that or a rollback back: rm, undo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atoll.base.errors import Invalid, NotFound
from atoll.commands.context import Context
from atoll.commands.registry import Reach, Registry, Source, argument, flag
from atoll.commands.reply import Reply
from atoll.commands.several import VMS, collected, each, is_anything
from atoll.commands.view import VmView
from atoll.domain.snapshot import Snapshot
from atoll.domain.vm import VmRecord
from atoll.services.trash import Restored

VERBS = Registry()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rm:
    vms: tuple[str, ...] = argument("vm", VMS, many=True, required=True, source=Source.VM)
    everything: bool = flag("--all", "with the pattern *: yes, all of them", default=False)


@VERBS.command(
    "rm",
    help="Remove VMs. `undo` brings them back for a day; it does not ask.",
    reach=Reach.VM,
    mutates=True,
    examples=("rm web", "rm web 'test-*'", "rm 'test-*' --dry-run"),
    result={
        "deleted": "names that were removed",
        "failed": "names that were not",
        "not_found": "those of them that are not yours or do not exist",
        "errors": "name -> why it failed",
    },
)
async def rm(ctx: Context, args: Rm) -> Reply:
    if not args.everything:
        await _check_width(ctx, args.vms)

    async def remove(name: str) -> None:
        await ctx.cloud.trash.remove(ctx.caller, name, act=ctx.act)

    done = await each(ctx, args.vms, remove)
    deleted = list(done.results)
    hours = f"{ctx.cloud.config.vms.trash_hours:g} h"
    lines = [f"removed {', '.join(deleted)}; `undo` brings back for {hours}"] if deleted else []
    return Reply(
        data={"deleted": deleted, **done.failures()},
        text="\n".join([*lines, *map(str, done.errors.values())]),
        exit=done.exit,
        changed=tuple(deleted),
    )


async def _check_width(ctx: Context, given: Sequence[str]) -> None:
    """`ssh host rm *` in an empty folder arrives here as it was typed, and was hardly meant."""
    wide = next(filter(is_anything, given), None)
    if wide is None:
        return
    count = len(await ctx.cloud.access.visible(ctx.caller))
    raise Invalid(
        f"{wide[:20]!r} means all of your VMs ({count})",
        hint="Try: rm '*' --all, or first: rm '*' --all --dry-run",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    pass


@VERBS.command(
    "undo",
    help="Take back your last `rm` or `rollback`: the VMs return, running if they ran; the disk is"
    " what it was.",
    reach=Reach.VM,
    mutates=True,
    examples=("undo",),
    result={
        "undone": "the command taken back",
        "restored": "one entry per VM: `vm_name`, `former_name`, `status`, `problem`",
    },
    sometimes={"errors": "name -> why it is not back"},
)
async def undo(ctx: Context, args: Undo) -> Reply:
    trashed = await ctx.cloud.trash.last(ctx.caller)
    rolled_back = await ctx.cloud.snapshots.last_rollback(ctx.caller)
    if rolled_back is not None:
        vm, kept = rolled_back
        if not trashed or kept.created_at > (trashed[0].trashed_at or 0.0):
            return await _undo_rollback(ctx, vm, kept)
    if not trashed:
        raise NotFound(
            "there is nothing to undo", hint="Only `rm` and `rollback` can be undone, for a while"
        )
    return await _undo_rm(ctx, trashed)


async def _undo_rollback(ctx: Context, vm: VmRecord, kept: Snapshot) -> Reply:
    done = await ctx.cloud.snapshots.undo(ctx.caller, vm.label, kept, act=ctx.act)
    entry = _entry(ctx, Restored(vm=done.vm, former_name=vm.label, problem=done.problem))
    but = f", but: {done.problem}" if done.problem else ""
    return Reply(
        data={"undone": "rollback", "restored": [entry]},
        text=f"{vm.label} is as before its rollback: {entry['status']}{but}\n"
        f"what it was until now: {done.kept.name}",
        changed=(vm.label,),
    )


async def _undo_rm(ctx: Context, trashed: Sequence[VmRecord]) -> Reply:
    removed = {vm.id: vm for vm in trashed}

    async def restore(vm_id: str) -> Restored | None:
        return await ctx.cloud.trash.restore(removed[vm_id], act=ctx.act)

    done = await collected(dict.fromkeys(removed, restore))
    restored = sorted(filter(None, done.results.values()), key=lambda one: one.vm.label)
    if not restored:
        raise next(iter(done.errors.values()), None) or NotFound(
            "there is nothing to undo", hint="Try: ls"
        )
    errors = {removed[vm_id].label: error for vm_id, error in done.errors.items()}
    lines = [_told(ctx, one) for one in restored] + [str(error) for error in errors.values()]
    data: dict[str, Any] = {"undone": "rm", "restored": [_entry(ctx, one) for one in restored]}
    if errors:
        data["errors"] = {name: error.message for name, error in errors.items()}
    return Reply(
        data=data,
        text="\n".join(lines),
        exit=done.exit,
        changed=tuple(one.vm.label for one in restored),
    )


def _entry(ctx: Context, done: Restored) -> dict[str, str]:
    status = VmView.of(ctx.cloud, done.vm).status
    entry = {"vm_name": done.vm.label, "former_name": done.former_name, "status": status}
    return entry | ({"problem": done.problem} if done.problem else {})


def _told(ctx: Context, done: Restored) -> str:
    name, status = done.vm.label, VmView.of(ctx.cloud, done.vm).status
    was = "" if name == done.former_name else f" (was {done.former_name}; that name is taken)"
    but = f", but: {done.problem}" if done.problem else ""
    return f"{name} is back{was}: {status}{but}"
