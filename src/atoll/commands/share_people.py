"""Verbs that share a VM with a person or a team: share add, share remove."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atoll.base.errors import Invalid, NotFound
from atoll.commands import places, share_view
from atoll.commands.context import Context
from atoll.commands.letter import mailed, quoted
from atoll.commands.places import Lasting, Where
from atoll.commands.qr import Qr
from atoll.commands.receivers import WHO, receiver
from atoll.commands.registry import Reach, Registry, Source, argument, flag
from atoll.commands.render import instant
from atoll.commands.reply import Reply
from atoll.commands.share import place_url
from atoll.domain.sharing import Level, Place, Who

VERBS = Registry()
MESSAGE_CHARS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(Lasting):
    vm: str = argument("vm", "VM", source=Source.VM)
    who: str = argument("who", WHO, value="EMAIL|TEAM")
    root: bool = flag("--root", "SSH, terminals and every port too: a full shell", default=False)
    message: str = flag("--message", "a line for them", default="", value="TEXT")
    qr: bool = flag("--qr", "draw the address as a QR code too", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove(Where):
    vm: str = argument("vm", "VM", source=Source.VM)
    who: str = argument("who", WHO, value="EMAIL|TEAM")
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
        "share add web design",
    ),
    result={
        "status": "`success`; `updated` with --root",
        "vm_name": "the VM",
        "shared_with": "the address, or the team's name",
        "share_level": "`web` or `root`",
        "url": "what they can open",
        "message": "what was done",
    },
    sometimes={
        "expires_at": "when it ends, UTC",
        "team_name": "of a team: its name",
        "problem": "why no mail goes out",
    },
)
async def add(ctx: Context, args: Add) -> Reply:
    to = await receiver(ctx, args.who)
    place, until = places.place(ctx, args), places.ends_at(ctx, args)
    if args.root:
        _check_whole(place)
    if len(args.message) > MESSAGE_CHARS:
        raise Invalid(f"--message is over {MESSAGE_CHARS} characters", hint="Try a shorter one")
    level = Level.ROOT if args.root else Level.WEB
    await ctx.cloud.sharing.give(
        ctx.caller,
        args.vm,
        to.kind,
        to.who,
        place,
        called=to.name,
        level=level,
        until=until,
        act=ctx.act,
    )
    url = place_url(ctx, args.vm, place.port, place.path)
    data: dict[str, Any] = {
        "status": "updated" if args.root else "success",
        "vm_name": args.vm,
        "shared_with": to.name,
        **to.fields,
        "share_level": level.value,
        "url": url,
        "message": "Share created",
    }
    end = ""
    if until is not None:
        data["expires_at"] = instant(until)
        end = f" until {instant(until)}"
    problem = ""
    if to.kind is Who.PERSON:
        problem = await _told(ctx, to.name, args, url)
        data |= {"problem": problem} if problem else {"message": "Invitation sent"}
    what = f"{url} and: {ctx.addresses.ssh_command(args.vm)}" if args.root else url
    whom = f"team {to.name}" if to.fields else to.name
    text = f"{whom} may open {what}{end}" + (f"; {problem}" if problem else "")
    return Reply(data=data, text=Qr(text, url) if args.qr else text)


def _check_whole(place: Place | None) -> None:
    """Raises Invalid for a place that root access cannot be limited to."""
    if place not in (None, Place()):
        raise Invalid("--root is for the whole VM", hint="Leave --port and --path away")


async def _told(ctx: Context, who: str, args: Add, url: str) -> str:
    """Mail to a person; why there is none."""
    root = f"\nand log in to it:\n\n{ctx.addresses.ssh_command(args.vm)}\n" if args.root else ""
    return await mailed(
        ctx,
        to=who,
        subject=f"{ctx.caller.account.email} shares {args.vm} with you",
        text=f"{ctx.caller.account.email} shares the virtual machine {args.vm} with you.\n\n"
        + quoted(args.message)
        + f"Sign in with this address to open it:\n\n{url}\n{root}",
    )


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
        "shared_with": "the address, or the team's name",
        "message": "what they lost",
    },
    sometimes={"share_level": "with --root: `web`", "team_name": "of a team: its name"},
)
async def remove(ctx: Context, args: Remove) -> Reply:
    to = await receiver(ctx, args.who)
    who = to.name
    data: dict[str, Any] = {"vm_name": args.vm, "shared_with": who, **to.fields}
    place = places.only(ctx, args)
    if args.root:
        _check_whole(place)
        await ctx.cloud.sharing.lower(ctx.caller, args.vm, to.kind, to.who, called=who, act=ctx.act)
        text = f"{who} may open the web address of {args.vm} only"
        data |= {"status": "updated", "share_level": "web", "message": text}
        return Reply(data=data, text=text)
    taken = await ctx.cloud.sharing.take(ctx.caller, args.vm, to.kind, to.who, place, act=ctx.act)
    if not taken:
        raise NotFound(f"{args.vm} is not shared so with {who}", hint=f"Try: share show {args.vm}")
    text = f"{who} lost: {share_view.listed(taken)}"
    return Reply(data={"status": "success", **data, "message": text}, text=text)
