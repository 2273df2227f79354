"""The verb that says what happened: events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from atoll.commands.columns import Columns
from atoll.commands.context import Context
from atoll.commands.registry import Reach, Registry, Source, argument, flag, whole_number
from atoll.commands.render import instant, table
from atoll.commands.reply import Piece, Reply
from atoll.commands.several import is_pattern, matching
from atoll.services.changes import Mark
from atoll.services.events import About
from atoll.store.events import Happened

VERBS = Registry()
MOST = 1000
_HEAD = ("WHEN", "VM", "EVENT", "DOOR", "BY", "PROBLEM")
_WIDTHS = (20, 8, 8, 5, 8)  # what most need; the last column ends the line


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    vm: str | None = argument(
        "vm",
        "VM, by its name now or then, or a pattern with * and ?; without it the whole account",
        default=None,
        source=Source.VM,
    )
    last: int = flag(
        "-n --last", f"how many, at most {MOST}", default=20, value="N", shown="20",
        convert=whole_number("--last", most=MOST),
    )  # fmt: skip
    follow: bool = flag(
        "-f --follow", "go on, and print what happens from now on", default=False, endless=True
    )


@VERBS.command(
    "events",
    help="Show what happened to your VMs and your account, newest last.",
    reach=Reach.VM,
    examples=("events", "events web", "events 'web*' -n 100", "events --follow"),
    result={
        "events": "one entry per event: `at`, `event` (the command; without one `powered-off`, `crashed`,"
        " `lost`, `started`, `purged`, `received`, `thinned`, `port-moved`), `vm_name` as it was then,"
        " null for the account; `door`, `by` (a key's or token's fingerprint), `by_name`, `source` (an"
        " address), `problem`; what is not known is not there",
    },
)
async def events(ctx: Context, args: Events) -> Reply:
    about = await _about(ctx, args.vm)
    happened, mark = await ctx.cloud.events.latest(ctx.caller.account, limit=args.last, about=about)
    if not happened and args.vm is not None and not is_pattern(args.vm):
        await ctx.cloud.access.find(ctx.caller, args.vm)  # NotFound: it never was
    entries = await _entries(ctx, happened)
    if args.follow:
        columns = Columns(_WIDTHS)
        text = columns.lines([_HEAD, *map(_row, entries)])
        more = _following(ctx, args.vm, mark, about, columns)
        return Reply(data={"events": entries}, text=text, more=more)
    text = table(_HEAD, list(map(_row, entries))) if entries else "No events"
    return Reply(data={"events": entries}, text=text)


async def _following(
    ctx: Context, given: str | None, mark: Mark, meant: About | None, columns: Columns
) -> AsyncGenerator[Piece, None]:
    """What is written down from now on, as far as it may be seen when it is read."""
    async with aclosing(ctx.cloud.events.after(ctx.caller.account, mark)) as batches:
        async for happened in batches:
            about = await _about(ctx, given, also=meant.vms if meant is not None else ())
            seen = [event for event in happened if about is None or about.covers(event)]
            if seen:
                entries = await _entries(ctx, seen)
                yield Piece(data={"events": entries}, text=columns.lines(map(_row, entries)))


async def _about(ctx: Context, given: str | None, *, also: Collection[str] = ()) -> About | None:
    """Which events are meant and may be seen; None: all of the account.

    Whoever is limited to some VMs sees events of those very VMs: names alone tell no two apart. The VMs
    `also` (ids) are meant whatever they are called now.
    """
    is_whole = ctx.caller.scope.is_whole
    if given is None and is_whole:
        return None
    known = await ctx.cloud.access.ever(ctx.caller)
    found = [vm for vm in known if given is None or vm.id in also or matching([vm.label], given)]
    names = {given, *(vm.label for vm in found)} if is_whole and given else ()
    return About(vms={vm.id for vm in found}, names=names)


async def _entries(ctx: Context, happened: Sequence[Happened]) -> list[dict[str, Any]]:
    is_whole = ctx.caller.scope.is_whole
    names = await _credentials(ctx) if is_whole and happened else {}
    return [_entry(event, names, with_source=is_whole) for event in happened]


async def _credentials(ctx: Context) -> dict[str, str]:
    """What the account's keys and tokens are called."""
    keys = await ctx.cloud.accounts.keys(ctx.caller)
    tokens = await ctx.cloud.tokens.of(ctx.caller.account)
    return {key.fingerprint: key.name for key in keys} | {
        token.fingerprint: token.label for token in tokens
    }


def _entry(event: Happened, names: Mapping[str, str], *, with_source: bool) -> dict[str, Any]:
    by = str(event.detail.get("by", ""))
    more = {
        "door": event.door,
        "by": by,
        "by_name": names.get(by, ""),
        "source": str(event.detail.get("source", "")) if with_source else "",
        "problem": str(event.detail.get("problem", "")),
    }
    return {
        "at": instant(event.at),
        "event": event.kind,
        "vm_name": event.vm,
        **{key: value for key, value in more.items() if value},
    }


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    by = entry.get("by_name") or entry.get("by", "")
    return (
        entry["at"],
        entry["vm_name"] or "",
        entry["event"],
        entry.get("door", ""),
        by,
        entry.get("problem", ""),
    )
