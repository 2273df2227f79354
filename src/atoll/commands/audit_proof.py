"""The verbs that prove the audit: audit verify, audit export."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any

from atoll.base.errors import Conflict, Invalid
from atoll.base.text import json_escape
from atoll.commands.audit import EVERYBODYS, account_of, ago, check_everybodys, since_us
from atoll.commands.context import Context
from atoll.commands.registry import Reach, Registry, flag
from atoll.commands.render import facts
from atoll.commands.reply import Piece, Reply
from atoll.domain.audit import VERSION, Damaged, Verifier
from atoll.store.audit import Which

VERBS = Registry()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify:
    head: str = flag(
        "--head", "a head hash noted earlier: is it in the chain?", default="", value="HASH"
    )


@VERBS.command(
    "audit verify",
    help="Check that no record of the audit was changed, taken out or put in; for admins of this machine."
    " That the newest were cut off shows by --head alone.",
    reach=Reach.ACCOUNT,
    examples=("audit verify", f"audit verify --head {'0f' * 32}"),
    result={
        "verified": "whether the whole chain is as it was written, and holds the hash of --head",
        "records": "how many were checked",
        "first": "number of the first of them",
        "last": "number of the last",
        "head": "hash of the last; keep it elsewhere, for --head",
        "refused_keys": "how many SSH keys that nobody knows were offered since control started; no"
        " records are made of them",
    },
    sometimes={
        "damaged": "number of the first record that is wrong",
        "problem": "what is wrong",
        "head_seq": "number of the record with the hash of --head",
    },
)
async def verify(ctx: Context, args: Verify) -> Reply:
    check_everybodys(ctx, hint="For yours: audit export")
    if args.head and not re.fullmatch("[0-9a-f]{64}", args.head):
        raise Invalid("--head is no hash of a record", hint="Try: audit verify, which prints one")
    verifier = Verifier(anchor=args.head)
    found: dict[str, Any] = {}
    try:
        await ctx.cloud.records.verify(verifier)
    except Damaged as damaged:
        found = {"damaged": damaged.seq, "problem": str(damaged)}
    if verifier.anchor_seq is not None:
        found["head_seq"] = verifier.anchor_seq
    elif args.head and not found:
        found["problem"] = "no record has the hash of --head: the chain was cut or made anew"
    problem = str(found.get("problem", ""))
    data = {
        "verified": not problem,
        "records": verifier.count,
        "first": verifier.first,
        "last": verifier.head.seq,
        "head": verifier.head.hash,
        "refused_keys": ctx.cloud.audit.refused_keys,
        **found,
    }
    rows = [(key, str(value)) for key, value in data.items() if key != "verified"]
    text = facts([("verified", "no" if problem else "yes"), *rows])
    return Reply(data=data, text=text, exit=Conflict.exit if problem else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    since: int | None = flag("--since", "of the last 15m, 24h, 7d", value="TIME", convert=ago)
    everybody: bool = flag("--all", EVERYBODYS, default=False)


@VERBS.command(
    "audit export",
    help="Print the audit in lines of JSON, oldest first, with the hashes that prove it.",
    reach=Reach.ACCOUNT,
    examples=("audit export", "audit export --since 7d", "audit export --all"),
    result={
        "format": "how the hashes were made; every further line is a record, with all its fields",
        "of": "an e-mail address, or `everybody`",
    },
)
async def export(ctx: Context, args: Export) -> Reply:
    account = account_of(ctx, everybody=args.everybody)
    which = Which(account=account, since_us=since_us(ctx, args.since))
    data = {"format": VERSION, "of": ctx.caller.account.email if account else "everybody"}
    return Reply(data=data, text=_line(data), more=_exported(ctx, which))


async def _exported(ctx: Context, which: Which) -> AsyncGenerator[Piece, None]:
    async with aclosing(ctx.cloud.records.all(which)) as pages:
        async for records in pages:
            for record in records:
                data = asdict(record)
                yield Piece(data=data, text=_line(data))


def _line(data: Mapping[str, Any]) -> str:
    return json_escape(json.dumps(data, ensure_ascii=False))
