"""The parser: quoting, flags anywhere, clear errors, nothing that crashes it."""

from __future__ import annotations

import shlex
from dataclasses import asdict

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atoll.base.errors import AtollError, Invalid
from atoll.commands.parse import LINE_BYTES, parse, split
from atoll.commands.registry import UnknownCommand
from atoll.commands.verbs import REGISTRY


def arguments(line: str) -> dict[str, object]:
    """What the verb of `line` is given."""
    return asdict(parse(REGISTRY, line).arguments)


def check_error(line: str) -> None:
    """A line is parsed, or refused with a short error; nothing else happens."""
    error: AtollError | None = None
    try:
        parse(REGISTRY, line)
    except AtollError as caught:
        error = caught
    if error is not None:
        assert error.http in (400, 404)
        assert len(str(error)) < 1500


SHARE = (
    "Try: share show, share port, share set-public, share set-private, share add, share remove,"
    " share add-link, share remove-link, share ls, share accept, share ask, share log"
)


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("new", {"name": None, "tags": (), "comment": ""}),
        ("new --name web --tag a,b --tag c", {"name": "web", "tags": ("a,b", "c")}),
        ("new --name=web --cpu=4", {"name": "web", "cpus": 4}),
        ("new --comment='--x'", {"comment": "--x"}),
        ("new --comment 'it''s'", {"comment": "its"}),
        ('new --comment "a \\"b\\" \'c\'"', {"comment": "a \"b\" 'c'"}),
        ("cp web", {"vm": "web", "name": None, "copy_tags": True}),
        ("cp --copy-tags=false web next", {"vm": "web", "name": "next", "copy_tags": False}),
        ("cp web next --copy-tags", {"name": "next", "copy_tags": True}),
        ("rm a b c", {"vms": ("a", "b", "c")}),
        ("tag -d web a", {"vm": "web", "tags": ("a",), "delete": True}),
        ("tag web a --delete", {"tags": ("a",), "delete": True}),
        ('comment web ""', {"vm": "web", "text": ("",)}),
        ("comment web -- --json", {"text": ("--json",)}),
        ("share port web 3000", {"vm": "web", "port": 3000}),
        ("share port web", {"port": None}),
        ("ls -l 'web*'", {"long": True, "pattern": "web*"}),
        (
            "ssh web ls -la --json | wc",
            {"vm": "web", "command": ("ls", "-la", "--json", "|", "wc")},
        ),
        ("ssh web", {"command": ()}),
        ("ssh web -- ls", {"command": ("--", "ls")}),
        ("--json new --name web", {"name": "web"}),
    ],
)
def test_lines(line: str, some: dict[str, object]) -> None:
    assert arguments(line).items() >= some.items()


@pytest.mark.parametrize(
    ("line", "wants_json", "wants_help"),
    [
        ("ls", False, False),
        ("ls --json", True, False),
        ("--json ls", True, False),
        ("rm --help", False, True),
        ("rm --json --help", True, True),
        ("--help rm", False, True),
        ("--help", False, True),
        ("ssh web ls --json", False, False),
        ("ssh --json web ls", True, False),
        ("ls --dry-run --help", False, True),
    ],
)
def test_global_flags(line: str, wants_json: bool, wants_help: bool) -> None:
    parsed = parse(REGISTRY, line)
    assert (parsed.wants_json, parsed.wants_help) == (wants_json, wants_help)


@pytest.mark.parametrize("line", ["rm a --dry-run", "--dry-run rm a", "rm --dry-run --json a b"])
def test_a_dry_run_is_asked_for_anywhere(line: str) -> None:
    assert parse(REGISTRY, line).is_dry_run
    assert not parse(REGISTRY, "rm -- --dry-run").is_dry_run


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("", "no command was given. Try: help"),
        ("  \n ", "no command was given. Try: help"),
        ("--json", "no command was given. Try: help"),
        ("new 'a", "a quote is not closed."),
        ("new a\\", "a `\\` ends the line."),
        ("new\0", "a line cannot contain a NUL"),
        ("new web", "`new` does not take 'web'. Usage: new [--name NAME]"),
        ("new --nmae web", "`new` has no flag '--nmae'. Did you mean --name?"),
        ("new -5", "`new` has no flag '-5'. Try: new --help"),
        ("new --name", "--name needs a value. Try: --name NAME"),
        ("new --name --cpu 2", "--name needs a value."),
        ("new --name a --name b", "--name is given twice"),
        ("new --cpu -1", "--cpu '-1' is not a whole number. Try: --cpu 2"),
        ("new --cpu 1e9", "--cpu '1e9' is not a whole number."),
        ("new --cpu ٣", "--cpu '٣' is not a whole number."),
        ("new --cpu 99999999999999999999", "is not a whole number."),
        ("cp --copy-tags=maybe web", "--copy-tags is true or false, not 'maybe'"),
        ("rm", "`rm` needs <vm>. Usage: rm [--all] <vm…>"),
        ("rename web", "`rename` needs <new>."),
        ("share port web x", "port 'x' is not a whole number."),
        ("new --name=a\udcff", r"a line is UTF-8, and '\udcff' at 13 is not. Inside a VM any"),
        ("comment web \ud800", "a line is UTF-8, and "),
        ("ssh web cat \udc80", "a line is UTF-8, and "),
        ("\udcff", "a line is UTF-8, and "),
    ],
)
def test_errors_say_what_to_type(line: str, error: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(REGISTRY, line)
    assert error in str(caught.value)


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("nwe", "Did you mean new?"),
        ("list", "Did you mean ls?"),
        ("frobnicate", "Try: help"),
        ("rmm web", "Did you mean rm?"),
        ("share", SHARE),
        ("share shw web", SHARE),
        ("sshkey list", "Did you mean ssh-key list?"),
        ("NEW", "Try: help"),
        ("'' x", "Try: help"),
    ],
)
def test_unknown_verbs_name_the_nearest(line: str, hint: str) -> None:
    with pytest.raises(UnknownCommand) as caught:
        parse(REGISTRY, line)
    assert (caught.value.hint, caught.value.http) == (hint, 404)


def test_a_line_has_a_limit() -> None:
    with pytest.raises(Invalid, match="at most 64 KiB"):
        split("x" * (LINE_BYTES + 1))


@given(st.lists(st.text(), min_size=1))
def test_any_words_survive_shell_quoting(words: list[str]) -> None:
    words = [word.replace("\0", "") for word in words]
    assert split(shlex.join(words)) == words


@given(st.text(max_size=200))
@example("new --name=\ud800")
@example("'\\")
@example("ssh \x1b]0;x\x07")
def test_no_line_breaks_the_parser(line: str) -> None:
    check_error(line)


@given(
    st.sampled_from([command.name for command in REGISTRY]),
    st.lists(
        st.one_of(
            st.text(max_size=20), st.sampled_from(["--json", "--dry-run", "--name", "-d", "-l"])
        )
    ),
)
def test_no_arguments_break_a_verb(name: str, words: list[str]) -> None:
    check_error(f"{name} {shlex.join(words)}")
