"""What `compose` writes, `parse` reads as the same values, for every verb."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import AtollError, Invalid
from atoll.commands.compose import Composed, compose
from atoll.commands.parse import _Reader, parse, split
from atoll.commands.registry import Command
from atoll.commands.verbs import REGISTRY

COMMANDS = {command.name: command for command in REGISTRY}
WORDS = st.text(
    st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs", "Zl", "Zp", "Cc"]),
    min_size=1,
    max_size=20,
)


@st.composite
def filled(draw: st.DrawFn) -> tuple[Command, dict[str, list[str]], dict[str, list[str]]]:
    """A verb, values as a form sends them, and the words they mean."""
    command = draw(st.sampled_from(list(REGISTRY)))
    sent: dict[str, list[str]] = {}
    meant: dict[str, list[str]] = {}
    for parameter in command.parameters:
        if not draw(st.booleans()):
            continue
        text = draw(WORDS)
        if parameter.is_switch:
            sent[parameter.name] = [draw(st.sampled_from(["true", "false"]))]
        elif parameter.reads_stdin:
            if not any(p.reads_stdin and p.name in sent for p in command.parameters):
                sent[parameter.name], meant[parameter.name] = [text], ["-"]
        elif (parameter.is_many or parameter.is_rest) and not (
            parameter.flags or parameter.may_be_empty
        ):
            words = draw(st.lists(st.from_regex(r"[a-z0-9*]{1,9}", fullmatch=True), min_size=1))
            sent[parameter.name], meant[parameter.name] = [" ".join(words)], words
        else:
            sent[parameter.name] = meant[parameter.name] = [text]
    return command, sent, meant


@given(filled())
def test_parse_reads_what_compose_wrote(
    case: tuple[Command, dict[str, list[str]], dict[str, list[str]]],
) -> None:
    command, sent, meant = case
    words = split(compose(command, sent).line)
    assert tuple(words[: len(command.words)]) == command.words
    reader = _Reader(command, words[len(command.words) :])
    if command.places and any(p.is_rest for p in command.places):
        return  # what follows its first word is the VM's, flags and all
    gaps = [place.name not in meant for place in command.places]
    if True in gaps and False in gaps[gaps.index(True) :]:
        return  # a place without a value moves the next one up; a form has it required
    reader.read()
    assert reader._values == meant
    for name, (truth,) in ((n, v) for n, v in sent.items() if n in reader._switches):
        assert reader._switches[name] == (truth == "true")


@pytest.mark.parametrize(
    ("name", "values", "composed"),
    [
        ("new", {}, Composed(line="new")),
        ("new", {"name": [""], "tag": ["a,b"]}, Composed(line="new --tag=a,b")),
        ("new", {"comment": ["it's"]}, Composed(line="""new --comment='it'"'"'s'""")),
        (
            "new",
            {"setup_script": ["#!/bin/sh\r\ndate"], "env": ["A=1\r\nB=2 3"]},
            Composed(line="new --setup-script=- --env=A=1 --env='B=2 3'", stdin="#!/bin/sh\ndate"),
        ),
        ("comment", {"vm": ["web"], "text": [""]}, Composed(line="comment web ''")),
        ("comment", {"vm": ["web"], "text": ["a  b"]}, Composed(line="comment web 'a  b'")),
        ("pause", {"vm": ["web 'test-*'"]}, Composed(line="pause web 'test-*'")),
        ("rename", {"old": ["web"], "new": ["-x"]}, Composed(line="rename -- web -x")),
        ("tag", {"vm": ["web"], "tag": ["a b"], "delete": ["true"]},
         Composed(line="tag --delete web a b")),
    ],
)  # fmt: skip
def test_lines_are_as_one_types_them(
    name: str, values: dict[str, list[str]], composed: Composed
) -> None:
    assert compose(COMMANDS[name], values) == composed
    parse(REGISTRY, composed.line)


def test_a_dry_run_is_said() -> None:
    assert compose(COMMANDS["new"], {}, is_dry_run=True).line == "new --dry-run"


def test_what_is_no_parameter_is_refused() -> None:
    with pytest.raises(Invalid, match="takes no 'admin'"):
        compose(COMMANDS["new"], {"admin": ["true"]})


@given(st.text(max_size=50), st.sampled_from([c for c in REGISTRY if c.parameters]))
def test_no_value_becomes_another_verb(text: str, command: Command) -> None:
    """Whatever is typed into a field, the line runs this verb or is refused."""
    name = command.parameters[0].name
    try:
        line = compose(command, {name: [text]}).line
        assert parse(REGISTRY, line).command is command
    except AtollError:
        pass
