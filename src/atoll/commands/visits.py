"""The verb that says who opened a VM's web address: share log."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from atoll.base.errors import NotFound
from atoll.base.units import show_size
from atoll.commands.columns import Columns
from atoll.commands.context import Context
from atoll.commands.registry import Reach, Registry, Source, argument, flag, whole_number
from atoll.commands.render import instant, table
from atoll.commands.reply import Piece, Reply
from atoll.services.changes import Mark
from atoll.store.visits import Seen

VERBS = Registry()
MOST = 1000
ANONYMOUS = "anonymous"
_HEAD = ("WHEN", "WHO", "FROM", "REQUEST", "STATUS", "BYTES", "MS", "COUNT")
_WIDTHS = (20, 20, 15, 40, 6, 9, 6)  # what most need while rows come one after the other


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    vm: str = argument("vm", "VM", source=Source.VM)
    last: int = flag(
        "-n --last", f"how many rows, at most {MOST}", default=20, value="N", shown="20",
        convert=whole_number("-n", most=MOST),
    )  # fmt: skip
    who: str | None = flag("--who", f"only this person's, or of the `{ANONYMOUS}`", value="EMAIL")
    follow: bool = flag(
        "-f --follow", "go on, and print who comes from now on", default=False, endless=True
    )


@VERBS.command(
    "share log",
    help="Show who opened your VM's web address, newest last. Nobody but its owner sees this.",
    reach=Reach.VM,
    examples=(
        "share log web",
        "share log web -n 100 --who bob@example.com",
        "share log web --follow",
    ),
    result={
        "vm_name": "the VM",
        "visits": "one entry per request, or for several alike in one second: `at`, `who` (an e-mail"
        " address or `anonymous`), `by` (`cookie` or `token`), `source` (an address), `method`, `port`,"
        " `path` (without its query), `status`, `bytes`, `ms`, `count`, `let_in` (false: it was refused)."
        " `*` stands for what differed in a flood, counted by a part of it; what is not"
        " known is not there",
    },
)
async def log(ctx: Context, args: Log) -> Reply:
    vm = await ctx.cloud.access.find(ctx.caller, args.vm)
    who = "" if args.who == ANONYMOUS else args.who and args.who.lower()
    visits = ctx.cloud.visits
    seen, mark = await visits.latest(vm.id, limit=args.last, who=who)
    entries = list(map(_entry, seen))
    data = {"vm_name": args.vm, "visits": entries}
    if args.follow:
        columns = Columns(_WIDTHS)
        text = columns.lines([_HEAD, *map(_row, entries)])
        more = _following(ctx, args.vm, vm.id, mark, who, columns)
        return Reply(data=data, text=text, more=more)
    text = table(_HEAD, list(map(_row, entries))) if entries else f"Nobody opened {args.vm} yet"
    return Reply(data=data, text=text)


async def _following(
    ctx: Context, name: str, vm: str, mark: Mark, who: str | None, columns: Columns
) -> AsyncGenerator[Piece, None]:
    """Visits from now on, while the caller may see them."""
    async with aclosing(ctx.cloud.visits.after(vm, mark, who=who)) as batches:
        async for seen in batches:
            if all(vm != own.id for own in await ctx.cloud.access.visible(ctx.caller)):
                raise NotFound(f"{name} is not yours any more", hint="Try: ls")
            entries = list(map(_entry, seen))
            data = {"vm_name": name, "visits": entries}
            yield Piece(data=data, text=columns.lines(map(_row, entries)))


def _entry(seen: Seen) -> dict[str, Any]:
    visit = seen.visit
    who = (seen.email or visit.account) if visit.account else ANONYMOUS
    more = {"by": visit.by, "port": visit.port, "status": visit.status}
    return {
        "at": instant(visit.at),
        "who": who,
        "source": visit.source,
        "method": visit.method,
        "path": visit.path,
        "bytes": visit.bytes,
        "ms": visit.ms,
        "count": visit.count,
        "let_in": visit.is_let_in,
        **{key: value for key, value in more.items() if value},
    }


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        entry["at"],
        entry["who"],
        entry["source"],
        f"{entry['method']} {entry['path']}",
        str(entry.get("status", "*")),
        show_size(entry["bytes"]),
        str(entry["ms"]),
        str(entry["count"]),
    )
