"""Verbs that share a VM with somebody: share add, share remove."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atoll.base.errors import Invalid, NotFound
from atoll.commands import places, share_view
from atoll.commands.context import Context
from atoll.commands.places import Lasting, Where
from atoll.commands.qr import Qr
from atoll.commands.registry import Reach, Registry, Source, argument, flag
from atoll.commands.render import instant
from atoll.commands.reply import Reply
from atoll.commands.share import place_url
from atoll.domain.address import check_email
from atoll.domain.sharing import Level, Place, Who

VERBS = Registry()
MESSAGE_CHARS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(Lasting):
    vm: str = argument("vm", "VM", source=Source.VM)
    who: str = argument("who", "an e-mail address", value="EMAIL")
    root: bool = flag("--root", "SSH, terminals and every port too: a full shell", default=False)
    message: str = flag("--message", "a line for them", default="", value="TEXT")
    qr: bool = flag("--qr", "draw the address as a QR code too", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove(Where):
    vm: str = argument("vm", "VM", source=Source.VM)
    who: str = argument("who", "an e-mail address", value="EMAIL")
    root: bool = flag("--root", "take only root access away, and leave the web", default=False)


@VERBS.command(
    "share add",
    help="Let somebody open a VM's web address, one port, or what is below a path.",
    reach=Reach.VM,
    mutates=True,
    examples=(
        "share add web bob@example.com",
        "share add web bob@example.com --for 2h",
        "share add web bob@example.com --port 3000 --path /docs",
        "share add web bob@example.com --root",
    ),
    result={
        "status": "`success`; `updated` with --root",
        "vm_name": "the VM",
        "shared_with": "the address",
        "share_level": "`web` or `root`",
        "url": "what they can open",
        "message": "what was done",
    },
    sometimes={"expires_at": "when it ends, UTC"},
)
async def add(ctx: Context, args: Add) -> Reply:
    who, place, until = check_email(args.who), places.place(ctx, args), places.ends_at(ctx, args)
    if args.root and place != Place():
        raise Invalid("--root is for the whole VM", hint="Leave --port and --path away")
    if len(args.message) > MESSAGE_CHARS:
        raise Invalid(f"--message is over {MESSAGE_CHARS} characters", hint="Try a shorter one")
    level = Level.ROOT if args.root else Level.WEB
    await ctx.cloud.sharing.give(
        ctx.caller, args.vm, Who.PERSON, who, place, level=level, until=until, act=ctx.act
    )
    url = place_url(ctx, args.vm, place.port, place.path)
    data: dict[str, Any] = {
        "status": "updated" if args.root else "success",
        "vm_name": args.vm,
        "shared_with": who,
        "share_level": level.value,
        "url": url,
        "message": "Share created",
    }
    end = ""
    if until is not None:
        data["expires_at"] = instant(until)
        end = f" until {instant(until)}"
    what = f"{url} and: {ctx.addresses.ssh_command(args.vm)}" if args.root else url
    text = f"{who} may open {what}{end}"
    return Reply(data=data, text=Qr(text, url) if args.qr else text)


@VERBS.command(
    "share remove",
    help="Take access away from somebody; what they have open ends at once.",
    reach=Reach.VM,
    mutates=True,
    examples=(
        "share remove web bob@example.com",
        "share remove web bob@example.com --root",
        "share remove web bob@example.com --port 3000",
    ),
    result={
        "status": "`success`; `updated` with --root",
        "vm_name": "the VM",
        "shared_with": "the address",
        "message": "what they lost",
    },
    sometimes={"share_level": "with --root: `web`"},
)
async def remove(ctx: Context, args: Remove) -> Reply:
    who = check_email(args.who)
    data: dict[str, Any] = {"vm_name": args.vm, "shared_with": who}
    place = places.place(ctx, args)
    if args.root:
        if place != Place():
            raise Invalid("--root is for the whole VM", hint="Leave --port and --path away")
        await ctx.cloud.sharing.lower(ctx.caller, args.vm, Who.PERSON, who, act=ctx.act)
        text = f"{who} may open the web address of {args.vm} only"
        data |= {"status": "updated", "share_level": "web", "message": text}
        return Reply(data=data, text=text)
    taken = await ctx.cloud.sharing.take(
        ctx.caller, args.vm, Who.PERSON, who, None if place == Place() else place, act=ctx.act
    )
    if not taken:
        raise NotFound(f"{args.vm} is not shared so with {who}", hint=f"Try: share show {args.vm}")
    text = f"{who} lost: {share_view.listed(taken)}"
    return Reply(data={"status": "success", **data, "message": text}, text=text)
