"""The verb that reads the audit: who did what, from where, and what came of it.

Everybody reads what they did themselves and what anybody did with their VMs; admins read all. A key or
token that is limited to some VMs reads of those alone, and neither people nor whole lines.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from atoll.base.errors import Denied, Invalid
from atoll.commands.columns import Columns
from atoll.commands.context import Context
from atoll.commands.registry import (
    Reach,
    Registry,
    Source,
    argument,
    flag,
    one_of,
    whole_number,
)
from atoll.commands.render import instant, table
from atoll.commands.reply import Piece, Reply
from atoll.commands.several import is_pattern, matching
from atoll.domain.audit import Act, Record
from atoll.services.records import Mark
from atoll.store.audit import Which

VERBS = Registry()
MOST = 1000
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_HEAD = ("WHEN", "WHO", "FROM", "ACT", "VM", "RESULT", "WHAT")
_WIDTHS = (20, 16, 12, 8, 8, 6)
EVERYBODYS = "everybody's; for admins of this machine"


def ago(text: str) -> int:
    """Seconds in `24h`; raises Invalid."""
    match = re.fullmatch(r"([0-9]{1,6})([smhdw])", text)
    if match is None:
        raise Invalid(f"--since {text[:20]!r} is not a time", hint="Try: 15m, 24h or 7d")
    return int(match[1]) * _SECONDS[match[2]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    vm: str | None = argument(
        "vm",
        "VM, by its name now or then, or a pattern with * and ?; without it the whole account",
        default=None,
        source=Source.VM,
    )
    last: int = flag(
        "-n --last", f"how many, at most {MOST}", default=20, value="N", shown="20",
        convert=whole_number("--last", most=MOST, hint="For all of them: audit export"),
    )  # fmt: skip
    who: str | None = flag("--who", "what this person did", value="EMAIL", convert=str.lower)
    act: str | None = flag(
        "--act", f"one of {', '.join(Act)}", value="ACT", convert=one_of("--act", list(Act))
    )
    since: int | None = flag("--since", "of the last 15m, 24h, 7d", value="TIME", convert=ago)
    everybody: bool = flag("--all", EVERYBODYS, default=False)
    follow: bool = flag(
        "-f --follow", "go on, and print what is done from now on", default=False, endless=True
    )


@VERBS.command(
    "audit",
    help="Show what you did and what anybody did with your VMs, newest last: every command, sign-in and"
    " way into a VM, refused ones as well.",
    reach=Reach.VM,
    examples=(
        "audit",
        "audit web --act root",
        "audit --who bob@example.com --since 24h",
        "audit --follow",
    ),
    result={
        "records": "one entry per record: `seq`, `at`, `act`, `who` (an e-mail address), `what` (the"
        " command, `***` for what may be secret), `vm_name` as it was then, `door`, `by` (a key's or"
        " token's fingerprint), `source` (an address), `result` (`ok` or the error's code)"
    },
)
async def audit(ctx: Context, args: Audit) -> Reply:
    which = await _which(ctx, args)
    records, mark = await ctx.cloud.records.latest(which, limit=args.last)
    entries = [_entry(ctx, record) for record in records]
    if args.follow:
        columns = Columns(_WIDTHS)
        text = columns.lines([_HEAD, *map(_row, entries)])
        more = _following(ctx, args, which, mark, columns)
        return Reply(data={"records": entries}, text=text, more=more)
    text = table(_HEAD, list(map(_row, entries))) if entries else "No records"
    return Reply(data={"records": entries}, text=text)


async def _following(
    ctx: Context, args: Audit, meant: Which, mark: Mark, columns: Columns
) -> AsyncGenerator[Piece, None]:
    """What is recorded from now on, as far as it may be seen when it is read."""

    async def which() -> Which:
        return await _which(ctx, args, also=meant.vms or ())

    async with aclosing(ctx.cloud.records.after(which, mark)) as batches:
        async for records in batches:
            entries = [_entry(ctx, record) for record in records]
            yield Piece(data={"records": entries}, text=columns.lines(map(_row, entries)))


async def _which(ctx: Context, args: Audit, also: Collection[str] = ()) -> Which:
    """The records that are meant and may be seen; VMs `also` (ids) are meant whatever they are called."""
    account = account_of(ctx, everybody=args.everybody)
    since = since_us(ctx, args.since)
    is_whole = ctx.caller.scope.is_whole
    if args.who is not None and not is_whole:
        raise Denied("this key or token is for some VMs; it does not read what people did")
    about: Collection[str] | None = None
    names: Collection[str] = ()
    if account is None and args.vm is not None:
        about, names = (), (args.vm,)
    elif args.vm is not None or not is_whole:
        known = await ctx.cloud.access.ever(ctx.caller)
        found = [
            v for v in known if args.vm is None or v.id in also or matching([v.label], args.vm)
        ]
        if not found and not is_whole and args.vm is not None and not is_pattern(args.vm):
            await ctx.cloud.access.find(ctx.caller, args.vm)  # NotFound
        about = {vm.id for vm in found}
        names = {args.vm, *(vm.label for vm in found)} if is_whole and args.vm else ()
    return Which(
        account=account,
        vms=about,
        names=names,
        is_limited=not is_whole,
        with_own=args.who in (None, ctx.caller.account.email.lower()),
        who=args.who,
        act=args.act,
        since_us=since,
    )


def account_of(ctx: Context, *, everybody: bool) -> str | None:
    """Whose audit it is; None: everybody's. Raises Denied."""
    if not everybody:
        return ctx.caller.account.id
    check_everybodys(ctx, hint="Leave --all away")
    return None


def check_everybodys(ctx: Context, *, hint: str) -> None:
    """Raises Denied for whom everybody's audit is not."""
    if not (ctx.caller.account.is_admin and ctx.caller.scope.is_whole):
        raise Denied("everybody's audit is for admins of this machine", hint=hint)


def since_us(ctx: Context, seconds: int | None) -> int | None:
    """The time so many seconds ago, as records have it."""
    return None if seconds is None else ctx.cloud.audit.now_us() - seconds * 1_000_000


def _entry(ctx: Context, record: Record) -> dict[str, Any]:
    by = {"by": record.credential} if record.credential else {}
    told = {"door": record.door, **by, "result": record.result}
    when = {"at": instant(record.at_us / 1e6), "act": record.act}
    if not ctx.caller.scope.is_whole:  # lines may name other VMs
        return {**when, "vm_name": record.vm, **told}
    return {
        "seq": record.seq,
        **when,
        "who": record.who,
        "what": record.what,
        "vm_name": record.vm,
        **told,
        "source": record.source,
    }


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        entry["at"],
        entry.get("who", ""),
        entry.get("source", ""),
        entry["act"],
        entry["vm_name"] or "",
        entry["result"],
        entry.get("what", ""),
    )
