"""Verbs of a VM's web address and who may open it: share show, port, set-public, set-private."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from atoll.base.errors import Conflict, Invalid
from atoll.commands import places, share_view
from atoll.commands.context import Context
from atoll.commands.places import Lasting, Where
from atoll.commands.qr import Qr
from atoll.commands.registry import Reach, Registry, Source, argument, flag, whole_number
from atoll.commands.render import instant
from atoll.commands.reply import Reply
from atoll.commands.view import share_word
from atoll.domain.email import check_email
from atoll.domain.sharing import DEFAULT_PORT, WHOLE, Link, Who
from atoll.domain.vm import VmRecord

VERBS = Registry()
_RESULT = {"vm_name": "the VM", "port": "port inside", "share": "`public` or `private`"}
_UPDATED = {"status": "`updated`", **_RESULT}
_PLACES = {"path": "below which", "expires_at": "when it ends, UTC"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    vm: str = argument("vm", "VM", source=Source.VM)
    url: str = flag(
        "--url", "say why this address of the VM can or cannot be opened", default="", value="URL"
    )
    who: str = flag(
        "--who", "by whom; without it by somebody not signed in", default="", value="EMAIL"
    )
    qr: bool = flag("--qr", "draw the address as a QR code too", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    vm: str = argument("vm", "VM", source=Source.VM)
    port: int | None = argument(
        "port", "port inside; none: show it", default=None, convert=whole_number("port")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPublic(Lasting):
    vm: str = argument("vm", "VM", source=Source.VM)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPrivate(Where):
    vm: str = argument("vm", "VM", source=Source.VM)


@VERBS.command(
    "share show",
    help="Show who may open a VM: people, teams, links, what is public, and who asks.",
    reach=Reach.VM,
    examples=(
        "share show web",
        "share show web --qr",
        "share show web --who bob@example.com --url https://web.atoll.localhost:8443/docs",
    ),
    result={
        "vm_name": "the VM",
        "status": "`public` or `private`: the whole web address",
        "port": "port inside that answers at the address",
        "url": "the address",
        "users": "people: `email`, `status` (`active`, or `pending` until there is an account),"
        " `share_level` (`web`, `root`), `invited_at`; `port`, `path`, `expires_at` where it is limited;"
        " `via` the link they came by, `last_opened_at` when they last came",
        "links": "open links: `id`, `token`, `url`, `use_count`, `last_used_at`, and limits as above",
        "teams": "teams: `team_id`, `team_name`, `share_level`, and limits as above",
        "public": "what everybody may open",
        "requests": "who asks for access",
    },
    sometimes={"explanation": "with --url: `who`, `url`, `port`, `path`, `allowed`, `because`"},
)
async def show(ctx: Context, args: Show) -> Reply:
    shared = await ctx.cloud.sharing.of(ctx.caller, args.vm)
    url = ctx.addresses.https_url(args.vm)
    if args.who and not args.url:
        raise Invalid("--who needs the address that they would open", hint=f"Try: --url {url}")
    opened = await ctx.cloud.visits.last_opened(shared.vm.id)
    data = share_view.data(shared, url, lambda link: link_url(ctx, link), opened)
    if args.url:
        data["explanation"] = await _explained(ctx, shared.vm, args)
        return Reply(data=data, text=share_view.told(data["explanation"]))
    if args.qr:  # which has to fit on a screen with its address
        return Reply(data=data, text=Qr(share_view.address(shared, url), url))
    text = share_view.text(shared, url, lambda link: link_url(ctx, link), opened)
    return Reply(data=data, text=text)


async def _explained(ctx: Context, vm: VmRecord, args: Show) -> dict[str, Any]:
    target = ctx.addresses.names.target(args.url)
    if target is None or target.vm_name != vm.label:
        raise Invalid(
            f"{args.url[:80]!r} is no address of {vm.title}",
            hint=f"Try: --url {ctx.addresses.https_url(vm.label)}",
        )
    who = check_email(args.who) if args.who else ""
    published = await ctx.cloud.publishing.named(vm.label)
    if published is None:
        raise Conflict(f"{vm.title} is being made or removed", hint="Try again in a moment")
    return share_view.explained(
        published,
        await ctx.cloud.accounts.of_address(who) if who else None,
        who,
        url=args.url,
        port=target.port or vm.port,
        path=urlsplit(args.url).path or "/",
        now=ctx.cloud.now(),
    )


@VERBS.command(
    "share port",
    help="Choose the port inside that answers at the VM's web address, or show it. Until one is chosen,"
    " the address of a VM that nobody else may open follows what listens inside.",
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
    help="Open the VM's web address, another port, or what is below a path to everybody.",
    reach=Reach.VM,
    mutates=True,
    examples=(
        "share set-public web",
        "share set-public web --for 2h",
        "share set-public web --path /hooks",
        "share set-public web --port 3000",
    ),
    result=_UPDATED,
    sometimes=_PLACES,
)
async def set_public(ctx: Context, args: SetPublic) -> Reply:
    place, until = places.place(ctx, args), places.ends_at(ctx, args)
    await ctx.cloud.sharing.give(
        ctx.caller, args.vm, Who.PUBLIC, "", place, until=until, act=ctx.act
    )
    vm = await ctx.cloud.access.find(ctx.caller, args.vm)
    url = place_url(ctx, args.vm, place.port, place.path)
    end = {} if until is None else {"expires_at": instant(until)}
    limits = {} if place.path == WHOLE else {"path": place.path}
    data = {"status": "updated", **_data(vm), **limits, **end}
    if place.port != DEFAULT_PORT:
        data["port"] = place.port
    return Reply(data=data, text=f"{url} is public" + (f" until {instant(until)}" if until else ""))


@VERBS.command(
    "share set-private",
    help="Put the VM's web address behind the sign-in: all that is public, or one port or path.",
    reach=Reach.VM,
    mutates=True,
    examples=("share set-private web", "share set-private web --path /hooks"),
    result=_UPDATED,
)
async def set_private(ctx: Context, args: SetPrivate) -> Reply:
    place = places.only(ctx, args)
    await ctx.cloud.sharing.take(ctx.caller, args.vm, Who.PUBLIC, "", place, act=ctx.act)
    return _updated(ctx, await ctx.cloud.access.find(ctx.caller, args.vm))


def place_url(ctx: Context, name: str, port: int, path: str) -> str:
    """Where a place of a VM answers."""
    url = ctx.addresses.https_url(name)
    if port != DEFAULT_PORT:
        url = ctx.addresses.names.port_url(name, port) or url
    return url.rstrip("/") + path


def link_url(ctx: Context, link: Link) -> str:
    """What is sent round."""
    return ctx.addresses.cloud_url(f"share/{ctx.cloud.links.token(link)}")


def _data(vm: VmRecord) -> dict[str, Any]:
    return {"vm_name": vm.label, "port": vm.port, "share": share_word(vm)}


def _updated(ctx: Context, vm: VmRecord) -> Reply:
    url = ctx.addresses.https_url(vm.label)
    return Reply(
        data={"status": "updated", **_data(vm)}, text=f"{url} is {share_word(vm)}, port {vm.port}"
    )
