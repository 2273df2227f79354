"""The verb that lists VMs: ls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from atoll.base.errors import NotFound
from atoll.commands.context import Context
from atoll.commands.registry import Reach, Registry, Source, argument, flag, one_of
from atoll.commands.render import table
from atoll.commands.reply import Piece, Reply
from atoll.commands.several import is_pattern, matching
from atoll.commands.view import REGION, VmView, head

VERBS = Registry()
GROUPS = ("none", "tag", "status", "region")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ls:
    pattern: str = argument(
        "name", "name, or a pattern with * and ?", default="*", source=Source.VM
    )
    long: bool = flag("-l --long", "more columns: image, sizes, age, sharing", default=False)
    group: str = flag(
        "--group",
        "in groups; a VM is in the group of each of its tags",
        default="none",
        value="|".join(GROUPS),
        convert=one_of("--group", GROUPS),
        shown="none",
    )
    watch: bool = flag(
        "-w --watch", "go on, and show the list anew when it changed", default=False, endless=True
    )


@VERBS.command(
    "ls",
    help="List your VMs.",
    reach=Reach.VM,
    examples=("ls", "ls -l 'web*'", "ls --group=tag", "ls --watch"),
    result={
        "vms": "one entry per VM: `vm_name`, `ssh_dest`, `ssh_host`, `ssh_user`, `ssh_port`,"
        " `https_url`, `status`, `region`, `region_display`, `tags`, `comment`, `created_at`,"
        " `egress_policy`, `problem`; with -l also `image`, `cpus`, `memory_bytes`, `disk_bytes`,"
        " `proxy_port`, `share`",
    },
    sometimes={"groups": "with --group: one entry per group: `group` and the names of its `vms`"},
)
async def ls(ctx: Context, args: Ls) -> Reply:
    version = ctx.cloud.news.version
    reply = await _listed(ctx, args)
    if args.watch and reply.exit == 0:
        return replace(reply, more=_watching(ctx, args, version, reply), is_redrawn=True)
    return reply


async def _watching(
    ctx: Context, args: Ls, version: int, shown: Reply
) -> AsyncGenerator[Piece, None]:
    """The list whenever it is another one than was shown last."""
    async with aclosing(ctx.cloud.news.looks(version)) as looks:
        async for _ in looks:
            now = await _listed(ctx, args)
            if now.data != shown.data:
                shown = now
                yield Piece(data=now.data, text=now.text)


async def _listed(ctx: Context, args: Ls) -> Reply:
    visible = {vm.label: vm for vm in await ctx.cloud.access.visible(ctx.caller)}
    views = [VmView.of(ctx.cloud, visible[name]) for name in matching(visible, args.pattern)]
    data: dict[str, Any] = {"vms": [view.listed(long=args.long) for view in views]}
    if not views:
        return await _none(ctx, args.pattern, data)
    titles = head(long=args.long)
    if args.group == "none":
        return Reply(data=data, text=table(titles, [v.row(long=args.long) for v in views]))
    groups = _grouped(views, args.group)
    data["groups"] = [
        {"group": name, "vms": [view.record.label for view in members]}
        for name, members in groups.items()
    ]
    rows = [(name or "-", *v.row(long=args.long)) for name, some in groups.items() for v in some]
    return Reply(data=data, text=table(("GROUP", *titles), rows))


async def _none(ctx: Context, pattern: str, data: dict[str, Any]) -> Reply:
    """An empty list; for a name also an exit code, and the nearest name in words."""
    if is_pattern(pattern):
        return Reply(data=data, text="No VMs. Try: new" if pattern == "*" else "No such VM")
    try:
        await ctx.cloud.access.find(ctx.caller, pattern)
    except NotFound as error:
        return Reply(data=data, text=str(error), exit=error.exit)
    return Reply(data=data, text="No such VM")  # it came this very moment


def _grouped(views: Sequence[VmView], by: str) -> dict[str, list[VmView]]:
    """VMs by tag, status or region, in order; those without a tag come last, under an empty one."""
    groups: dict[str, list[VmView]] = defaultdict(list)
    for view in views:
        names = {
            "tag": view.record.tags or ("",),
            "status": (view.status,),
            "region": (REGION["region"],),
        }[by]
        for name in names:
            groups[name].append(view)
    return {name: groups[name] for name in sorted(groups, key=lambda name: (not name, name))}
