"""Verbs for names of their own: domain add, ls, rm."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from atoll.base.errors import Invalid
from atoll.commands.context import Context
from atoll.commands.registry import Reach, Registry, Source, argument, flag
from atoll.commands.render import instant, table
from atoll.commands.reply import Reply
from atoll.services.domains import Served

VERBS = Registry()
_NAMED = {"vm_name": "the VM", "domain": "the name, as DNS spells it", "wildcard": "false"}
_PROBLEM = {
    "error": "what DNS says wrong; it is looked at again by itself",
    "expected": "the record that is needed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class One:
    vm: str = argument("vm", "VM", source=Source.VM)
    domain: str = argument("domain", "the name: www.example.com")


@dataclass(frozen=True, slots=True, kw_only=True)
class Add:
    vm: str = argument("vm", "VM", source=Source.VM)
    domain: str = argument("domain", "the name: www.example.com")
    wildcard: bool = flag("--wildcard", "every name below it: not offered", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ls:
    vm: str | None = argument("vm", "VM; all if not given", default=None, source=Source.VM)
    everything: bool = flag("-a --all", "of all VMs", default=False)


@VERBS.command(
    "domain add",
    help="Let a VM answer at a name of your own; DNS must lead it here, and is looked at.",
    reach=Reach.VM,
    mutates=True,
    examples=("domain add web www.example.com",),
    result=_NAMED,
    sometimes={**_PROBLEM, "certificate": "why HTTPS has no certificate for it yet"},
)
async def add(ctx: Context, args: Add) -> Reply:
    if args.wildcard:
        raise Invalid(
            "wildcards of custom domains are not offered: their proof needs your DNS",
            hint=f"Add each name by itself: domain add {args.vm} www.{args.domain}"[:200],
        )
    row = await ctx.cloud.domains.add(ctx.caller, args.vm, args.domain)
    data: dict[str, Any] = {"vm_name": args.vm, "domain": row.domain, "wildcard": False}
    if row.problem:
        data |= {"error": row.problem, "expected": row.expected}
        text = f"{row.domain} waits for DNS: {row.problem}\nexpected: {row.expected}"
        return Reply(data=data, text=text)
    lines = [f"{ctx.addresses.domain_url(row.domain)} leads to {args.vm}"]
    _, lack = await asyncio.to_thread(ctx.cloud.certificate, row.domain)
    if lack:
        data["certificate"] = lack
        lines.append(f"certificate: {lack}")
    return Reply(data=data, text="\n".join(lines))


@VERBS.command(
    "domain ls",
    help="List the names of your own that lead to a VM, or to any of yours.",
    reach=Reach.VM,
    examples=("domain ls", "domain ls web"),
    result={
        "domains": "one entry per name: `domain`, `vm_name`, `wildcard`, `status` (`active` or"
        " `pending`), `url`, `created_at`, `checked_at`, with a problem `error`,"
        " `expected` and `next_check_at`,"
        " without a certificate `certificate`, else `certificate_until`"
    },
)
async def ls(ctx: Context, args: Ls) -> Reply:
    if args.vm is not None and args.everything:
        raise Invalid("either a VM or --all", hint=f"Try: domain ls {args.vm[:60]}")
    served = await ctx.cloud.domains.of(ctx.caller, args.vm)
    entries = await asyncio.to_thread(lambda: [_entry(ctx, one) for one in served])
    rows = [
        (
            entry["domain"],
            entry["vm_name"],
            entry["status"],
            entry.get("certificate_until", "none")[:10],
            "; ".join(filter(None, (entry.get("error"), entry.get("certificate")))),
        )
        for entry in entries
    ]
    head = ("DOMAIN", "VM", "STATUS", "CERTIFICATE", "PROBLEM")
    return Reply(
        data={"domains": entries}, text=table(head, rows) if rows else "No names of your own"
    )


@VERBS.command(
    "domain rm",
    help="Let a name of your own lead to the VM no more; its certificate is deleted.",
    reach=Reach.VM,
    mutates=True,
    examples=("domain rm web www.example.com",),
    result={"vm_name": "the VM", "domain": "the name", "status": "`removed`", "removed": "true"},
)
async def rm(ctx: Context, args: One) -> Reply:
    domain = await ctx.cloud.domains.remove(ctx.caller, args.vm, args.domain)
    data = {"vm_name": args.vm, "domain": domain, "status": "removed", "removed": True}
    return Reply(data=data, text=f"{domain} does not lead to {args.vm} any more")


def _entry(ctx: Context, one: Served) -> dict[str, Any]:
    """One name. Reads the files of its certificate."""
    row = one.row
    entry: dict[str, Any] = {
        "domain": row.domain,
        "vm_name": one.vm.label,
        "wildcard": False,
        "status": "pending" if row.proven_at is None else "active",
        "url": ctx.addresses.domain_url(row.domain),
        "created_at": instant(row.created_at),
        "checked_at": instant(row.checked_at),
    }
    if row.problem:
        entry |= {
            "error": row.problem,
            "expected": row.expected,
            "next_check_at": instant(row.next_check_at),
        }
    kept, lack = ctx.cloud.certificate(row.domain)
    if kept is not None:
        entry["certificate_until"] = instant(kept.end)
    if lack:
        entry["certificate"] = lack
    return entry
