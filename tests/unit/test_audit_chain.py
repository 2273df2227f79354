"""The chain of the audit: what is done to it shows, whatever it is, as docs/audit.md says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.domain.audit import (
    ENTRY_FIELDS,
    GENESIS,
    Act,
    Damaged,
    Entry,
    Head,
    Record,
    Verifier,
    detailed,
    digest,
    fit,
    linked,
)

DOCS = Path(__file__).parents[2] / "docs" / "audit.md"
TEXT = st.text(max_size=20).map(fit)
NUMBERS = ("seq", "at_us")


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """Any."""
    maybe = st.none() | TEXT
    return Entry(
        at_us=draw(st.integers(min_value=0, max_value=1 << 60)),
        account=draw(maybe),
        who=draw(TEXT),
        credential=draw(TEXT),
        door=draw(TEXT),
        source=draw(TEXT),
        act=draw(st.sampled_from(list(Act))).value,
        what=draw(TEXT),
        vm=draw(maybe),
        vm_id=draw(maybe),
        owner=draw(maybe),
        result=draw(TEXT),
        detail=detailed(draw(st.dictionaries(st.text(max_size=5), st.integers() | st.text()))),
    )


CHAINS = st.lists(entries(), min_size=2, max_size=6)


def chain(of: list[Entry]) -> list[Record]:
    head, records = Head(), []
    for entry in of:
        records.append(linked(entry, head))
        head = records[-1].head
    return records


def damage(records: list[Record], *, anchor: str = "") -> int | None:
    """Where a verifier finds it."""
    verifier = Verifier(anchor=anchor)
    try:
        for record in records:
            verifier.take(record)
    except Damaged as damaged:
        return damaged.seq
    return None


@given(of=CHAINS)
def test_a_chain_as_it_was_written(of: list[Entry]) -> None:
    records = chain(of)
    verifier = Verifier(anchor=records[0].hash)
    for record in records:
        verifier.take(record)
    assert (verifier.first, verifier.count, verifier.anchor_seq) == (1, len(of), 1)
    assert verifier.head == records[-1].head
    assert records[0].prev == GENESIS


@given(of=CHAINS, data=st.data())
def test_any_field_that_is_changed_shows(of: list[Entry], data: st.DataObject) -> None:
    records = chain(of)
    at = data.draw(st.integers(0, len(of) - 1))
    name = data.draw(st.sampled_from(("seq", *ENTRY_FIELDS, "prev", "hash")))
    new = data.draw(st.integers(0, 1 << 60) if name in NUMBERS else st.none() | st.text())
    changed = replace(records[at], **{name: new})  # type: ignore[arg-type]
    if changed != records[at]:
        records[at] = changed
        assert damage(records) in (at + 1, at + 2)


@given(of=CHAINS, data=st.data())
def test_a_field_that_is_changed_with_its_hash_shows_in_the_next(
    of: list[Entry], data: st.DataObject
) -> None:
    records = chain(of)
    at = data.draw(st.integers(0, len(of) - 2))
    values = asdict(records[at]) | {"who": records[at].who + "x"}
    records[at] = Record(**(values | {"hash": digest(values)}))
    assert damage(records) == at + 2


@given(of=CHAINS, data=st.data())
def test_what_is_taken_out_put_in_or_moved_shows(of: list[Entry], data: st.DataObject) -> None:
    records = chain(of)
    at = data.draw(st.integers(0, len(of) - 2))
    assert damage([*records[:at], *records[at + 1 :]]) == at + 1
    assert damage([*records[: at + 1], *records[at:]]) == at + 2
    moved = [*records[:at], records[at + 1], records[at], *records[at + 2 :]]
    assert damage(moved) == at + 1


@given(of=CHAINS)
def test_what_is_cut_off_at_the_end_shows_by_a_head_kept_elsewhere_only(of: list[Entry]) -> None:
    records = chain(of)
    assert damage(records[:-1]) is None
    verifier = Verifier(anchor=records[-1].hash)
    for record in records[:-1]:
        verifier.take(record)
    assert verifier.anchor_seq is None


@given(one=st.lists(st.none() | st.text(max_size=6), min_size=13, max_size=13), data=st.data())
def test_no_two_records_are_hashed_alike(one: list[str | None], data: st.DataObject) -> None:
    """Text that moves from one field to the next is another record."""
    names = [name for name in ENTRY_FIELDS if name != "at_us"]
    at = data.draw(st.integers(0, len(names) - 2))
    values: dict[str, object] = {"seq": 1, "at_us": 2, "prev": GENESIS}
    values |= dict(zip(names, one, strict=False))
    other = dict(values)
    other[names[at]], other[names[at + 1]] = f"{values[names[at]] or ''}x", "x"
    moved = dict(other)
    moved[names[at]], moved[names[at + 1]] = values[names[at]] or "", "xx"
    assert digest(other) != digest(moved)
    assert digest(values | {names[at]: None}) != digest(values | {names[at]: ""})


@given(text=st.text(alphabet=st.characters(codec=None), max_size=400))
def test_texts_fit(text: str) -> None:
    fitted = fit(text)
    assert len(fitted) <= 254
    assert fitted.encode().decode().isprintable() or not re.search(r"[\x00-\x1f\x7f-\x9f]", fitted)


def test_a_detail_that_is_too_long_is_left_out() -> None:
    assert json.loads(detailed({"b": "\u202e", "a": 1})) == {"a": 1, "b": "\u202e"}
    assert detailed({"a": "x" * 5000}) == '{"left_out":true}'


@pytest.mark.parametrize("is_damaged", [False, True])
def test_the_program_in_the_docs_checks_an_export(tmp_path: Path, is_damaged: bool) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    entry = Entry(
        at_us=1, account=None, who="ünïcode 🐢", credential="", door="web", source="::1", act="web",
        what="a:1,b", vm=None, detail='{"a":"\\u202e"}',
    )  # fmt: skip
    records = [asdict(record) for record in chain([entry, replace(entry, vm="web"), entry])]
    if is_damaged:
        records[1]["vm"] = "wen"
    lines = [{"format": "x"}, *records]
    export = "".join(json.dumps(line) + "\n" for line in lines)
    done = subprocess.run(
        [sys.executable, "-c", program], input=export, text=True, capture_output=True, check=False
    )
    assert (done.returncode == 0) != is_damaged, done.stderr
    if not is_damaged:
        assert done.stdout.split()[-1] == records[-1]["hash"]


def test_a_known_record_has_the_hash_it_always_had() -> None:
    """What was exported once must be checked for ever."""
    entry = Entry(
        at_us=1_800_000_000_000_000, account="acct-ann", who="ann@example.com", credential="SHA256:x",
        door="ssh", source="192.0.2.1", act="command", what="new --name=web", vm="web", vm_id="vm-1",
        owner="acct-ann", detail='{"act":"act-1"}',
    )  # fmt: skip
    known = "32fc4a065a16513bf6397d682b9d98725e82bd4f7f1aba14253bbf4c56ea2597"
    assert linked(entry, Head()).hash == known
