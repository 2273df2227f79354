"""Verbs for what new VMs get unless `new` says otherwise: defaults read, write, delete."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.base.errors import NotFound
from atoll.commands import first_boot
from atoll.commands.context import Context
from atoll.commands.registry import Reach, Registry, argument
from atoll.commands.reply import Reply
from atoll.services.defaults import KEYS

VERBS = Registry()
DOMAIN = "atoll"
DOMAINS = (DOMAIN, "dev.exe")  # the latter is the reference product's, whose scripts say so
_KEY = f"what: {', '.join(KEYS)}"
_RESULT = {"domain": "`atoll`", "key": "which"}


def _domain(text: str) -> str:
    if text not in DOMAINS:
        raise NotFound(f"there is no domain {text[:40]!r}", hint=f"Domains: {', '.join(DOMAINS)}")
    return DOMAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    domain: str = argument("domain", f"{DOMAIN}; dev.exe is the same", convert=_domain)
    key: str | None = argument("key", f"{_KEY}; all that are set if not given", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    domain: str = argument("domain", f"{DOMAIN}; dev.exe is the same", convert=_domain)
    key: str = argument("key", _KEY)
    value: str = argument(
        "value", "text as `new --setup-script` takes it; - reads stdin", secret=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    domain: str = argument("domain", f"{DOMAIN}; dev.exe is the same", convert=_domain)
    key: str = argument("key", _KEY)


@VERBS.command(
    "defaults read",
    help="Print what your new VMs get unless `new` says otherwise.",
    reach=Reach.ACCOUNT,
    examples=("defaults read atoll new.setup-script", "defaults read atoll"),
    result={"domain": "`atoll`"},
    sometimes={
        "key": "which, when one was asked for",
        "value": "its text",
        "values": "else: all, by key",
    },
)
async def read(ctx: Context, args: Read) -> Reply:
    data: dict[str, object] = {"domain": args.domain}
    if args.key is not None:
        value = await ctx.cloud.defaults.read(ctx.caller, args.key)
        return Reply(data=data | {"key": args.key, "value": value}, text=value)
    values = await ctx.cloud.defaults.all(ctx.caller)
    parts = [f"{key}:\n{value}" for key, value in values.items()]
    return Reply(data=data | {"values": values}, text="\n\n".join(parts) or "No defaults are set")


@VERBS.command(
    "defaults write",
    help="Set what your new VMs get: a setup script, unless `new --setup-script` gives one or ''.",
    reach=Reach.ACCOUNT,
    mutates=True,
    examples=(
        r"defaults write atoll new.setup-script '#!/bin/sh\napt-get install -y tig'",
        "defaults write atoll new.setup-script - < setup.sh",
    ),
    result={**_RESULT, "status": "`written`"},
)
async def write(ctx: Context, args: Write) -> Reply:
    await ctx.cloud.defaults.write(ctx.caller, args.key, first_boot.script_of(ctx, args.value))
    data = {"domain": args.domain, "key": args.key, "status": "written"}
    return Reply(data=data, text=f"{args.key} is set for VMs made from now on")


@VERBS.command(
    "defaults delete",
    help="Let your new VMs get nothing of their own again.",
    reach=Reach.ACCOUNT,
    mutates=True,
    examples=("defaults delete atoll new.setup-script",),
    result={**_RESULT, "status": "`deleted`"},
)
async def delete(ctx: Context, args: Delete) -> Reply:
    await ctx.cloud.defaults.delete(ctx.caller, args.key)
    data = {"domain": args.domain, "key": args.key, "status": "deleted"}
    return Reply(data=data, text=f"{args.key} is not set any more")
