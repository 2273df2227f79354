"""Verbs for what a VM is called: rename, tag, comment."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.commands.context import Context
from atoll.commands.registry import Reach, Registry, Source, argument, flag
from atoll.commands.reply import Reply
from atoll.commands.several import on_each

VERBS = Registry()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rename:
    vm: str = argument("old", "VM to rename", source=Source.VM)
    new: str = argument("new", "its new name")


@VERBS.command(
    "rename",
    help="Rename a VM. Its address, its host name and its certificate follow.",
    reach=Reach.VM,
    mutates=True,
    examples=("rename web web-old",),
    result={
        "status": "`renamed`",
        "old_name": "before",
        "new_name": "now",
        "vm_name": "now",
        "ssh_dest": "user@host for ssh",
        "https_url": "its web address",
        "problem": "what inside the VM does not follow yet",
    },
)
async def rename(ctx: Context, args: Rename) -> Reply:
    vm, problem = await ctx.cloud.settings.rename(ctx.caller, args.vm, args.new, act=ctx.act)
    name = vm.label
    data = {
        "status": "renamed",
        "old_name": args.vm,
        "new_name": name,
        "vm_name": name,
        "ssh_dest": ctx.addresses.ssh_dest(name),
        "https_url": ctx.addresses.https_url(name),
    } | ({"problem": problem} if problem else {})
    text = f"{args.vm} is now {name}" + (f"; {problem}" if problem else "")
    return Reply(data=data, text=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    vm: str = argument("vm", "VM, or a pattern with * and ? for several", source=Source.VM)
    tags: tuple[str, ...] = argument("tag", "tags; none: show them", many=True, source=Source.TAG)
    delete: bool = flag("-d --delete", "take these tags away", default=False)


@VERBS.command(
    "tag",
    help="Tag a VM, take tags away, or show them.",
    reach=Reach.VM,
    mutates=True,
    examples=("tag web prod", "tag -d web prod", "tag 'web*' prod"),
    result={
        "vm_name": "the VM",
        "tags": "all its tags now",
    },
    sometimes={
        "vms": "of a pattern: one entry per VM with the keys above",
        "failed": "then also: names that failed",
        "not_found": "those of them that do not exist any more",
        "errors": "name -> why it failed",
    },
)
async def tag(ctx: Context, args: Tag) -> Reply:
    tags = split_tags(args.tags)
    add, remove = ((), tags) if args.delete else (tags, ())

    async def one(name: str) -> Reply:
        if tags:
            vm = await ctx.cloud.settings.set_tags(ctx.caller, name, add=add, remove=remove)
        else:
            vm = await ctx.cloud.access.find(ctx.caller, name)
        return Reply(
            data={"vm_name": name, "tags": list(vm.tags)},
            text=f"{name}: {', '.join(vm.tags) or 'no tags'}",
            changed=None if tags else (),
        )

    return await on_each(ctx, (args.vm,), one)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    vm: str = argument("vm", "VM", source=Source.VM)
    text: tuple[str, ...] = argument(
        "text", 'the note; "" clears it', many=True, required=True, empty=True
    )


@VERBS.command(
    "comment",
    help="Note something about a VM.",
    reach=Reach.VM,
    mutates=True,
    examples=("comment web 'the shop, since May'", 'comment web ""'),
    result={"vm_name": "the VM", "comment": "the note now"},
)
async def comment(ctx: Context, args: Comment) -> Reply:
    vm = await ctx.cloud.settings.set_comment(ctx.caller, args.vm, " ".join(args.text))
    return Reply(
        data={"vm_name": args.vm, "comment": vm.comment},
        text=f"{args.vm}: {vm.comment or 'no comment'}",
    )


def split_tags(given: tuple[str, ...]) -> tuple[str, ...]:
    """`--tag a,b --tag c` is a, b and c."""
    return tuple(tag for text in given for tag in text.split(",") if tag)
