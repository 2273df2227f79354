"""Verbs that keep a VM as it is and go back to it: snap, snap ls, snap rm, snap history, rollback."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from atoll.base.units import show_size
from atoll.commands.context import Context
from atoll.commands.registry import Reach, Registry, Source, argument, flag
from atoll.commands.render import instant, table
from atoll.commands.reply import Reply
from atoll.commands.view import VmView
from atoll.domain.retention import DEFAULT, show
from atoll.domain.snapshot import Snapshot

VERBS = Registry()
CLEAN, CRASH = "clean", "crash-consistent"
_CONSISTENCY = (
    f"`{CLEAN}`, or `{CRASH}`: its file systems were not held still, as after a power cut"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snap:
    vm: str = argument("vm", "VM", source=Source.VM)
    name: str | None = argument("name", "its name; the time in UTC if not given", default=None)
    live: bool = flag(
        "--live", "with its memory: going back to it resumes the very processes", default=False
    )


@VERBS.command(
    "snap",
    help="Keep a VM's disk as it is now, under a name; with --live also its memory. The VM goes on: its"
    " file systems are held still for an instant.",
    reach=Reach.VM,
    mutates=True,
    examples=("snap web", "snap web before-upgrade", "snap web mid-run --live"),
    result={
        "vm_name": "the VM",
        "snapshot": "its name",
        "created_at": "when, UTC",
        "consistency": _CONSISTENCY,
        "live": "whether its memory is kept",
    },
)
async def snap(ctx: Context, args: Snap) -> Reply:
    one = await ctx.cloud.snapshots.take(
        ctx.caller, args.vm, args.name, live=args.live, act=ctx.act
    )
    data = {
        "vm_name": args.vm,
        "snapshot": one.name,
        "created_at": instant(one.created_at),
        "consistency": _consistency(one),
        "live": one.has_memory,
    }
    what = " with its memory" if one.has_memory else ""
    disk = "its disk alone is " if one.has_memory else ""
    but = "" if one.is_clean else f", {disk}{CRASH}: its file systems were not held still"
    return Reply(data=data, text=f"{args.vm} is kept{what} as {one.name}{but}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ls:
    vm: str | None = argument("vm", "VM; all if not given", default=None, source=Source.VM)


@VERBS.command(
    "snap ls",
    help="List the snapshots of a VM, or of all of yours, oldest first.",
    reach=Reach.VM,
    examples=("snap ls", "snap ls web"),
    result={
        "snapshots": "one entry per snapshot: `vm_name`, `snapshot`, `created_at`, `consistency`,"
        " `live`: whether it has memory, `reason` (`taken`; `history`: by the VM's policy, which lets it"
        " go, too; `rollback`: what a rollback replaced; `undo`: what one was undone with),"
        " `alone_bytes`: what removing it gives back at once"
    },
)
async def ls(ctx: Context, args: Ls) -> Reply:
    found = await ctx.cloud.snapshots.of(ctx.caller, args.vm)
    entries = [
        {
            "vm_name": held.vm.label,
            "snapshot": held.snapshot.name,
            "created_at": instant(held.snapshot.created_at),
            "consistency": _consistency(held.snapshot),
            "live": held.snapshot.has_memory,
            "reason": held.snapshot.reason.value,
            "alone_bytes": held.alone_bytes,
        }
        for held in found
    ]
    rows = [
        (
            *(str(entry[key]) for key in ("vm_name", "snapshot", "created_at", "consistency")),
            "disk, memory" if held.snapshot.has_memory else "disk",
            str(entry["reason"]),
            "" if held.alone_bytes is None else show_size(held.alone_bytes),
        )
        for held, entry in zip(found, entries, strict=True)
    ]
    head = ("VM", "SNAPSHOT", "SINCE", "STATE", "KEEPS", "REASON", "ALONE")
    text = table(head, rows) if rows else "No snapshots"
    return Reply(data={"snapshots": entries}, text=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rm:
    vm: str = argument("vm", "VM", source=Source.VM)
    name: str = argument("name", "which, as `snap ls` names it")


@VERBS.command(
    "snap rm",
    help="Let go of a snapshot, for ever. The VM and its other snapshots stay as they are.",
    reach=Reach.VM,
    mutates=True,
    examples=("snap rm web before-upgrade",),
    result={"vm_name": "the VM", "snapshot": "its name", "status": "`removed`"},
)
async def rm(ctx: Context, args: Rm) -> Reply:
    await ctx.cloud.snapshots.remove(ctx.caller, args.vm, args.name, act=ctx.act)
    data = {"vm_name": args.vm, "snapshot": args.name, "status": "removed"}
    return Reply(data=data, text=f"removed {args.name} of {args.vm}")


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    vm: str = argument("vm", "VM", source=Source.VM)
    policy: str | None = argument(
        "policy",
        "every:for rules, as 15m:2h,1h:1d; off: none is taken, and what there is stays; default",
        default=None,
    )


@VERBS.command(
    "snap history",
    help="Show how often a VM's disk is kept by itself, and for how long; or change that. None"
    f" is taken while nothing changes, or the pool is nearly full. The default: {show(DEFAULT)}.",
    reach=Reach.VM,
    mutates=True,
    examples=("snap history web", "snap history web 1h:1d,1d:30d", "snap history web off"),
    result={
        "vm_name": "the VM",
        "policy": "rules as `every:for`, or `off`",
        "points": "how many snapshots of it there are",
        "oldest_at": "when the oldest was taken, UTC; null: there is none",
        "next_at": "when it is looked whether one is due, UTC; null: never",
    },
    sometimes={"problem": "why none is taken now"},
)
async def history(ctx: Context, args: History) -> Reply:
    if args.policy is not None:
        await ctx.cloud.settings.set_history(ctx.caller, args.vm, args.policy)
    it = await ctx.cloud.retention.of(ctx.caller, args.vm)
    data: dict[str, Any] = {
        "vm_name": args.vm,
        "policy": show(it.policy),
        "points": it.points,
        "oldest_at": None if it.oldest_at is None else instant(it.oldest_at),
        "next_at": None if it.next_at is None else instant(it.next_at),
    }
    count = f"{it.points} snapshot{'' if it.points == 1 else 's'}"
    since = "" if it.oldest_at is None else f", the oldest of {instant(it.oldest_at)}"
    then = "none is taken" if it.next_at is None else f"next at {instant(it.next_at)}"
    lines = [f"{args.vm}: {show(it.policy)}", f"{count}{since}; {then}"]
    if it.problem:
        data["problem"] = it.problem
        lines.append(f"none is taken now: {it.problem}")
    changed = () if args.policy is None else None
    return Reply(data=data, text="\n".join(lines), changed=changed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    vm: str = argument("vm", "VM", source=Source.VM)
    name: str | None = argument(
        "name", "snapshot; the newest taken if not given, else of the history", default=None
    )
    cold: bool = flag("--cold", "boot from its disk, though it has memory", default=False)


@VERBS.command(
    "rollback",
    help="Make a VM what it was at a snapshot: one with memory runs on from there, else the disk is what"
    " it was, and it boots if it ran. What it is now is kept as a snapshot first, so that this can be"
    " undone.",
    reach=Reach.VM,
    mutates=True,
    examples=("rollback web", "rollback web before-upgrade", "rollback web mid-run --cold"),
    result={
        "vm_name": "the VM",
        "snapshot": "what it is as again",
        "kept": "the snapshot of what it was before",
        "kept_consistency": _CONSISTENCY,
        "kept_live": "whether its memory is kept, too",
        "booted": "whether it booted; else it goes on from memory, or does not run",
        "status": "the VM's state now",
        "elapsed_s": "seconds from command to answer",
    },
    sometimes={"problem": "why it does not run although it did"},
)
async def rollback(ctx: Context, args: Rollback) -> Reply:
    started = time.monotonic()
    done = await ctx.cloud.snapshots.roll_back(
        ctx.caller, args.vm, args.name, cold=args.cold, act=ctx.act
    )
    elapsed_s = time.monotonic() - started
    status = VmView.of(ctx.cloud, done.vm).status
    data: dict[str, Any] = {
        "vm_name": args.vm,
        "snapshot": done.to.name,
        "kept": done.kept.name,
        "kept_consistency": _consistency(done.kept),
        "kept_live": done.kept.has_memory,
        "booted": done.outcome.cold_booted,
        "status": status,
        "elapsed_s": round(elapsed_s, 3),
    }
    lines = [
        f"{args.vm} is as {done.to.name} again, and {status} ({elapsed_s:.2f} s)",
        f"to undo: rollback {args.vm} {done.kept.name}",
    ]
    if done.is_cold and not args.cold:
        lines.insert(1, "it booted: its memory could not be used")
    if done.problem:
        data["problem"] = done.problem
        lines.insert(1, f"it does not run: {done.problem}")
    return Reply(data=data, text="\n".join(lines))


def _consistency(one: Snapshot) -> str:
    return CLEAN if one.is_clean else CRASH
