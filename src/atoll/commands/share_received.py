"""Verbs of those a VM is shared with, or who would like that: share ls, share accept, share ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atoll.base.errors import Invalid
from atoll.commands.context import Context
from atoll.commands.registry import Nothing, Reach, Registry, argument, flag
from atoll.commands.render import instant, table
from atoll.commands.reply import Reply
from atoll.commands.share import place_url
from atoll.domain.name import check_vm
from atoll.domain.sharing import Level

VERBS = Registry()
MESSAGE_CHARS = 200
_HEAD = ("VM", "OWNER", "LEVEL", "URL", "UNTIL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    link: str = argument("link", "the link, or what it ends in", value="LINK", secret=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    vm: str = argument("vm", "the VM, by its name or web address", value="VM")
    message: str = flag("--message", "a line for its owner", default="", value="TEXT")


@VERBS.command(
    "share ls",
    help="List the VMs of others that are shared with you.",
    reach=Reach.ACCOUNT,
    examples=("share ls",),
    result={
        "shared": "one entry per share: `vm_name`, `owner` (an address), `share_level`, `url`;"
        " `ssh_command` with level root; `expires_at` where it ends"
    },
)
async def shared_with_me(ctx: Context, args: Nothing) -> Reply:
    entries = []
    for vm, owner, grant in await ctx.cloud.sharing.with_me(ctx.caller.account):
        entry: dict[str, Any] = {
            "vm_name": vm.label,
            "owner": owner.email,
            "share_level": grant.level.value,
            "url": place_url(ctx, vm.label, grant.port, grant.path),
        }
        if grant.level is Level.ROOT:
            entry["ssh_command"] = ctx.addresses.ssh_command(vm.label)
        if grant.expires_at is not None:
            entry["expires_at"] = instant(grant.expires_at)
        entries.append(entry)
    rows = [
        (one["vm_name"], one["owner"], one["share_level"], one["url"], one.get("expires_at", ""))
        for one in entries
    ]
    text = table(_HEAD, rows) if rows else "Nothing is shared with you"
    return Reply(data={"shared": entries}, text=text)


@VERBS.command(
    "share accept",
    help="Take what a share link gives: you may open the VM's web address from then on.",
    reach=Reach.ACCOUNT,
    mutates=True,
    examples=("share accept https://atoll.localhost:8443/share/4t9x…",),
    result={
        "status": "`accepted`",
        "vm_name": "the VM",
        "url": "what you may open",
    },
    sometimes={"expires_at": "when it ends, UTC"},
)
async def accept(ctx: Context, args: Accept) -> Reply:
    token = args.link.rstrip("/").rpartition("/")[2]
    link, vm = await ctx.cloud.links.come(ctx.caller.account, token)
    url = place_url(ctx, vm.label, link.port, link.path)
    data: dict[str, Any] = {"status": "accepted", "vm_name": vm.label, "url": url}
    if link.expires_at is not None:
        data["expires_at"] = instant(link.expires_at)
    return Reply(data=data, text=url)


@VERBS.command(
    "share ask",
    help="Ask the owner of a VM to share it with you. Whether there is such a VM is not said.",
    reach=Reach.ACCOUNT,
    mutates=True,
    examples=("share ask web", "share ask web --message 'for the review on Friday'"),
    result={"status": "`asked`", "vm_name": "the name asked for"},
)
async def ask(ctx: Context, args: Ask) -> Reply:
    name = args.vm
    if "/" in name:
        target = ctx.addresses.names.target(name)
        if target is None:
            raise Invalid(f"{name[:80]!r} is no address of a VM here", hint="Try its name")
        name = target.vm_name
    check_vm(name)
    if len(args.message) > MESSAGE_CHARS:
        raise Invalid(f"--message is over {MESSAGE_CHARS} characters", hint="Try a shorter one")
    await ctx.cloud.asking.ask(ctx.caller.account, name, args.message)
    text = f"If there is a VM {name}, its owner has been asked"
    data = {"status": "asked", "vm_name": name}
    return Reply(data=data, text=text, changed=())  # nor does the record of it say so
