"""The bench of what an agent pays for a task runs, counts what was printed, and makes nothing up."""

from __future__ import annotations

import json
from pathlib import Path

from bench.agent_tax import own, reference
from bench.agent_tax.measure import RECORD, recorded, rows
from bench.agent_tax.tasks import FLEET, TASKS, text_of


def words(text: str) -> int:
    """In place of the tokenizer, which only the bench needs."""
    return len(text.split())


async def test_rows_are_of_what_was_printed(tmp_path: Path) -> None:
    ours = await own.sides(tmp_path)
    built = [task for task in TASKS if own.is_built(task)]
    assert {"list", "create", "copy", "logs", "restart", "resize", "delete"} <= set(built)
    assert list(ours["text"]) == list(ours["json"]) == built
    listed = json.loads(ours["json"]["list"][0].output)["vms"]
    assert sorted(vm["vm_name"] for vm in listed) == sorted(FLEET)
    for row in rows(ours, words):
        assert row.raw
        assert set(row.raw) <= set(built)
        mine = sum(words(cost["ours"]["text"]) for cost in row.raw.values())
        other = sum(cost["theirs"]["tokens"] for cost in row.raw.values())
        assert f"({mine} : {other};" in row.measured


async def test_the_reference_has_the_keys_our_own_answers_have(tmp_path: Path) -> None:
    """What its client reads is a part of what we print; a key that we lack was made up."""
    ours, theirs = (await own.sides(tmp_path))["json"], reference.side()
    for task in set(ours) & set(theirs) - {"logs"}:
        for mine, other in zip(ours[task], theirs[task], strict=True):
            assert json.loads(other.output).keys() <= json.loads(mine.output).keys(), task


def test_the_recording_is_of_the_same_tasks() -> None:
    record = json.loads(RECORD.read_text())
    for way in ("plain", "cut"):
        side = recorded(record[way])
        assert set(side) == set(TASKS) - {"rollback"}
        assert all(turn.command.startswith("aws ec2 ") for turns in side.values() for turn in turns)
    listed = json.loads(recorded(record["plain"])["list"][0].output)
    assert all(name in text_of(recorded(record["cut"])["list"]) for name in FLEET)
    assert sum(len(one["Instances"]) for one in listed["Reservations"]) == len(FLEET)
