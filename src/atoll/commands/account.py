"""Verbs about the caller: whoami, browser."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.commands.context import Context
from atoll.commands.key import shown
from atoll.commands.qr import Qr
from atoll.commands.registry import Nothing, Reach, Registry, flag
from atoll.commands.render import instant, table
from atoll.commands.reply import Reply
from atoll.commands.view import REGION

VERBS = Registry()
LINK_S = 600.0


@VERBS.command(
    "whoami",
    help="Show who you are to this cloud.",
    reach=Reach.ACCOUNT,
    examples=("whoami",),
    result={
        "email": "your address",
        "region": "`local`",
        "region_display": "for people",
        "ssh_keys": "one entry per key: `name`, `public_key`, `fingerprint`, `current`",
    },
)
async def whoami(ctx: Context, args: Nothing) -> Reply:
    names = {vm.id: vm.label for vm in await ctx.cloud.access.visible(ctx.caller)}
    keys = await ctx.cloud.accounts.keys(ctx.caller)
    entries = [shown(ctx, key, names) for key in keys]
    email = ctx.caller.account.email
    rows = [
        (key.name, key.fingerprint, "this one" if entry["current"] else "")
        for key, entry in zip(keys, entries, strict=True)
    ]
    text = table(("KEY", "FINGERPRINT", ""), rows, above=[email]) if rows else email
    return Reply(data={"email": email, **REGION, "ssh_keys": entries}, text=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Browser:
    qr: bool = flag("--qr", "draw it as a QR code too, for a phone's camera", default=False)


@VERBS.command(
    "browser",
    help="Print a link that signs your browser in. It works once, for ten minutes.",
    reach=Reach.ACCOUNT,
    mutates=True,
    examples=("browser", "browser --qr"),
    result={"url": "the link", "expires_at": "when it ends, UTC"},
)
async def browser(ctx: Context, args: Browser) -> Reply:
    code = await ctx.sessions.login_code(ctx.caller.account.id, seconds=LINK_S)
    url = ctx.addresses.login_url(code)
    text = Qr(url, url) if args.qr else url
    return Reply(data={"url": url, "expires_at": instant(ctx.cloud.now() + LINK_S)}, text=text)
