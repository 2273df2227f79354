"""Verbs of links that give access: share add-link, share remove-link."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atoll.commands import places
from atoll.commands.context import Context
from atoll.commands.places import Lasting
from atoll.commands.qr import Qr
from atoll.commands.registry import Reach, Registry, Source, argument, flag
from atoll.commands.render import instant
from atoll.commands.reply import Reply
from atoll.commands.share import link_url

VERBS = Registry()


@dataclass(frozen=True, slots=True, kw_only=True)
class AddLink(Lasting):
    vm: str = argument("vm", "VM", source=Source.VM)
    qr: bool = flag("--qr", "draw the link as a QR code too", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveLink:
    vm: str = argument("vm", "VM", source=Source.VM)
    link: str = argument(
        "link", "the link, its token or its id, see: share show", value="LINK", secret=True
    )
    evict: bool = flag("--evict", "also take access from who came by it", default=False)


@VERBS.command(
    "share add-link",
    help="Make a link: whoever opens it and signs in may open the VM's web address.",
    reach=Reach.VM,
    mutates=True,
    aliases=("share add-share-link",),
    examples=(
        "share add-link web",
        "share add-link web --for 7d --path /docs",
        "share add-link web --qr",
    ),
    result={
        "status": "`success`",
        "vm_name": "the VM",
        "token": "what the link ends in",
        "url": "the link",
    },
    sometimes={"expires_at": "when it and what it gave end, UTC"},
)
async def add_link(ctx: Context, args: AddLink) -> Reply:
    place, until = places.place(ctx, args), places.ends_at(ctx, args)
    link = await ctx.cloud.links.add(ctx.caller, args.vm, place, until=until)
    url = link_url(ctx, link)
    data: dict[str, Any] = {
        "status": "success",
        "vm_name": args.vm,
        "token": ctx.cloud.links.token(link),
        "url": url,
    }
    if until is not None:
        data["expires_at"] = instant(until)
    return Reply(data=data, text=Qr(url, url) if args.qr else url)


@VERBS.command(
    "share remove-link",
    help="End a link. Who came by it stays, unless --evict.",
    reach=Reach.VM,
    mutates=True,
    aliases=("share remove-share-link",),
    examples=("share remove-link web link-4t9x…", "share remove-link web link-4t9x… --evict"),
    result={
        "status": "`success`",
        "vm_name": "the VM",
        "token": "what the link ended in",
        "evicted": "addresses that lost access",
        "message": "what was done",
    },
)
async def remove_link(ctx: Context, args: RemoveLink) -> Reply:
    which = args.link.rstrip("/").rpartition("/")[2]
    link, out = await ctx.cloud.links.remove(
        ctx.caller, args.vm, which, evict=args.evict, act=ctx.act
    )
    evicted = [grant.who for grant in out]
    data = {
        "status": "success",
        "vm_name": args.vm,
        "token": ctx.cloud.links.token(link),
        "evicted": evicted,
    }
    text = f"{link.id} is over" + (f"; lost access: {', '.join(evicted)}" if evicted else "")
    return Reply(data={**data, "message": text}, text=text)
