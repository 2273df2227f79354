"""Verbs for passkeys: passkey ls, passkey rm. One is made on the page alone, where its other half is."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.commands.context import Context
from atoll.commands.registry import Nothing, Reach, Registry, argument
from atoll.commands.render import instant, table
from atoll.commands.reply import Reply

VERBS = Registry()


@VERBS.command(
    "passkey ls",
    help="List the passkeys that sign you in. A browser makes one, on the page /keys.",
    reach=Reach.ACCOUNT,
    examples=("passkey ls",),
    result={"passkeys": "one entry per passkey: `name`, `since`, `last_used`"},
)
async def ls(ctx: Context, args: Nothing) -> Reply:
    entries = [
        {
            "name": key.name,
            "since": instant(key.created_at),
            "last_used": None if key.last_used_at is None else instant(key.last_used_at),
        }
        for key in await ctx.cloud.passkeys.of(ctx.caller.account)
    ]
    rows = [(e["name"] or "", e["since"] or "", e["last_used"] or "never") for e in entries]
    text = table(("NAME", "SINCE", "LAST USED"), rows) if rows else "No passkeys"
    return Reply(data={"passkeys": entries}, text=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    passkey: str = argument("passkey", "which, as `passkey ls` names it")


@VERBS.command(
    "passkey rm",
    help="Forget a passkey; it signs nobody in from then on. Browsers that it signed in stay so:"
    " `session rm`.",
    reach=Reach.ACCOUNT,
    mutates=True,
    examples=("passkey rm phone",),
    result={"status": "`removed`", "name": "its name"},
)
async def remove(ctx: Context, args: Remove) -> Reply:
    await ctx.cloud.passkeys.remove(ctx.caller.account, args.passkey)
    data = {"status": "removed", "name": args.passkey}
    return Reply(data=data, text=f"removed {args.passkey}")
