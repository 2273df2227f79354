"""Verbs for who may open a VM's web port: share show, port, set-public, set-private."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atoll.commands.context import Context
from atoll.commands.qr import Qr
from atoll.commands.registry import Reach, Registry, Source, argument, flag, whole_number
from atoll.commands.render import facts
from atoll.commands.reply import Reply
from atoll.commands.view import share_word
from atoll.domain.vm import VmRecord

VERBS = Registry()
_RESULT = {"vm_name": "the VM", "port": "port inside", "share": "`public` or `private`"}
_UPDATED = {"status": "`updated`", **_RESULT}


@dataclass(frozen=True, slots=True, kw_only=True)
class OneVm:
    vm: str = argument("vm", "VM", source=Source.VM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    vm: str = argument("vm", "VM", source=Source.VM)
    qr: bool = flag("--qr", "draw the address as a QR code too", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    vm: str = argument("vm", "VM", source=Source.VM)
    port: int | None = argument(
        "port", "port inside; none: show it", default=None, convert=whole_number("port")
    )


@VERBS.command(
    "share show",
    help="Show who may open a VM's web address.",
    reach=Reach.VM,
    examples=("share show web", "share show web --qr"),
    result={
        "vm_name": "the VM",
        "status": "`public` or `private`",
        "port": "port inside that answers at the address",
        "url": "the address",
        "users": "people invited",
        "links": "open links",
        "teams": "teams",
    },
)
async def show(ctx: Context, args: Show) -> Reply:
    vm = await ctx.cloud.access.find(ctx.caller, args.vm)
    url = ctx.addresses.https_url(args.vm)
    data: dict[str, Any] = {
        "vm_name": args.vm,
        "status": share_word(vm),
        "port": vm.port,
        "url": url,
        "users": [],
        "links": [],
        "teams": [],
    }
    who = "anybody" if vm.is_public else "you, signed in"
    text = facts(
        (("url", url), ("port", str(vm.port)), ("share", share_word(vm)), ("open to", who))
    )
    return Reply(data=data, text=Qr(text, url) if args.qr else text)


@VERBS.command(
    "share port",
    help="Choose the port inside that answers at the VM's web address, or show it.",
    reach=Reach.VM,
    mutates=True,
    examples=("share port web 3000", "share port web"),
    result=_UPDATED,
)
async def port(ctx: Context, args: Port) -> Reply:
    if args.port is None:
        vm = await ctx.cloud.access.find(ctx.caller, args.vm)
        return Reply(data=_data(vm), text=str(vm.port), changed=())
    return _updated(ctx, await ctx.cloud.settings.set_port(ctx.caller, args.vm, args.port))


@VERBS.command(
    "share set-public",
    help="Open the VM's web address to everybody. Other ports stay behind the sign-in.",
    reach=Reach.VM,
    mutates=True,
    examples=("share set-public web",),
    result=_UPDATED,
)
async def set_public(ctx: Context, args: OneVm) -> Reply:
    return _updated(ctx, await ctx.cloud.settings.set_public(ctx.caller, args.vm, True))


@VERBS.command(
    "share set-private",
    help="Put the VM's web address behind the sign-in.",
    reach=Reach.VM,
    mutates=True,
    examples=("share set-private web",),
    result=_UPDATED,
)
async def set_private(ctx: Context, args: OneVm) -> Reply:
    return _updated(ctx, await ctx.cloud.settings.set_public(ctx.caller, args.vm, False))


def _data(vm: VmRecord) -> dict[str, Any]:
    return {"vm_name": vm.label, "port": vm.port, "share": share_word(vm)}


def _updated(ctx: Context, vm: VmRecord) -> Reply:
    url = ctx.addresses.https_url(vm.label)
    return Reply(
        data={"status": "updated", **_data(vm)}, text=f"{url} is {share_word(vm)}, port {vm.port}"
    )
