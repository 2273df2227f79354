"""Verbs for the browsers that are signed in: session ls, session rm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from atoll.base.errors import Invalid, NotFound
from atoll.commands.context import Context
from atoll.commands.registry import Nothing, Reach, Registry, argument, flag
from atoll.commands.render import instant, table
from atoll.commands.reply import Reply
from atoll.domain.account import Caller
from atoll.domain.browser import browser_of
from atoll.services.sessions import ID_CHARS, Browser, credential

VERBS = Registry()
_LEAST = 4  # characters of an id that are enough, when they name one
_HOW = {
    "link": "link from SSH",
    "mail": "link by mail",
    "passkey": "passkey",
}


@VERBS.command(
    "session ls",
    help="List the browsers that you are signed in with.",
    reach=Reach.ACCOUNT,
    examples=("session ls",),
    result={
        "sessions": "one entry per browser: `id`, `browser`, `source` (its address), `how` (it signed"
        " in), `since`, `last_seen` (to ten minutes), `expires_at`, `current`"
    },
)
async def ls(ctx: Context, args: Nothing) -> Reply:
    found = await ctx.sessions.of(ctx.caller.account.id)
    entries = [_entry(ctx.caller, each) for each in found]
    rows = [
        (
            str(entry["id"]),
            str(entry["browser"]),
            str(entry["source"] or ""),
            _HOW.get(str(entry["how"]), str(entry["how"] or "")),
            str(entry["since"]),
            str(entry["last_seen"] or ""),
            "this one" if entry["current"] else "",
        )
        for entry in entries
    ]
    head = ("ID", "BROWSER", "FROM", "SIGNED IN BY", "SINCE", "LAST SEEN", "NOTE")
    return Reply(data={"sessions": entries}, text=table(head, rows) if rows else "No browser")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    ids: tuple[str, ...] = argument(
        "id", f"which, as `session ls` names them; the first {_LEAST} letters will do", many=True
    )
    others: bool = flag("--others", "all but the one you use now", default=False)
    all: bool = flag("--all", "every one", default=False)


@VERBS.command(
    "session rm",
    help="Sign browsers out, at once: pages, terminals and VMs' sites that they have open too.",
    reach=Reach.ACCOUNT,
    mutates=True,
    examples=("session rm 3f9a", "session rm --others", "session rm --all"),
    result={"status": "`removed`", "ids": "of those that were signed out"},
)
async def remove(ctx: Context, args: Remove) -> Reply:
    if bool(args.ids) + args.others + args.all != 1:
        raise Invalid("say which: an id, --others or --all", hint="Try: session ls")
    account = ctx.caller.account.id
    found = await ctx.sessions.of(account)
    if args.ids:
        chosen = [_chosen(found, id_) for id_ in args.ids]
    else:
        chosen = [one for one in found if args.all or not _is_current(ctx.caller, one)]
    if chosen:
        await ctx.sessions.end(account, [each.key for each in chosen])
    ids = [each.key[:ID_CHARS] for each in chosen]
    count = f"{len(ids)} browser{'' if len(ids) == 1 else 's'}"
    return Reply(data={"status": "removed", "ids": ids}, text=f"signed {count} out")


def _chosen(found: Sequence[Browser], id_: str) -> Browser:
    matching = [each for each in found if len(id_) >= _LEAST and each.key.startswith(id_)]
    if len(matching) == 1:
        return matching[0]
    several = "names several browsers" if matching else "is no browser of yours"
    raise NotFound(f"{id_[:40]!r} {several}", hint="Try: session ls")


def _entry(caller: Caller, one: Browser) -> dict[str, str | bool | None]:
    return {
        "id": one.key[:ID_CHARS],
        "browser": browser_of(one.user_agent),
        "source": one.source or None,
        "how": one.how or None,
        "since": instant(one.created_at),
        "last_seen": None if one.last_seen_at is None else instant(one.last_seen_at),
        "expires_at": instant(one.expires_at),
        "current": _is_current(caller, one),
    }


def _is_current(caller: Caller, one: Browser) -> bool:
    return caller.token == credential(one.key)
