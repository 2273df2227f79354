"""Tables that fit the terminal, and their colours."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.text import width
from atoll.commands.colour import is_wanted
from atoll.commands.table import Table

HEAD = ("NAME", "STATUS", "URL", "TAGS", "COMMENT")
ROWS = (
    ("web", "running", "https://web.atoll.localhost:8443/", "", "the shop, since May 日本語"),
    ("web-next", "failed: the engine does not have it", "https://web-next.atoll/", "", ""),
)


def test_the_text_is_whole() -> None:
    assert Table(HEAD, ROWS).splitlines() == [
        "NAME      STATUS                               URL                                COMMENT",
        "web       running                              https://web.atoll.localhost:8443/"
        "  the shop, since May 日本語",
        "web-next  failed: the engine does not have it  https://web-next.atoll/",
    ]
    assert Table(("A",), ()) == ""
    assert Table((), ()) == ""


@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        (90, [f"NAME      STATUS{' ' * 31}URL{' ' * 32}COMMENT",
              f"web       running{' ' * 30}https://web.atoll.localhost:8443/  the sho…",
              "web-next  failed: the engine does not have it  https://web-next.atoll/"]),
        (70, ["NAME      STATUS                               URL            COMMENT",
              "web       running                              https://web.…  the sho…",
              "web-next  failed: the engine does not have it  https://web-…"]),
        (40, ["NAME      STATUS      URL       COMMENT",
              "web       running     https:/…  the sho…",
              "web-next  failed: t…  https:/…"]),
        (31, ["NAME      STATUS    URL       …",
              "web       running   https:/…  …",
              "web-next  failed:…  https:/…  …"]),
        (22, ["NAME      STATUS    …", "web       running   …", "web-next  failed:…  …"]),
        (12, ["NAME      …", "web       …", "web-next  …"]),
        (6, ["…", "…", "…"]),
    ],
)  # fmt: skip
def test_it_is_cut_from_the_right(columns: int, lines: list[str]) -> None:
    assert Table(HEAD, ROWS).fitted(columns).splitlines() == lines


@given(
    st.lists(st.lists(st.text("ab日 ", max_size=12), min_size=3, max_size=3), max_size=4),
    st.integers(1, 60),
)
def test_it_fits(rows: list[list[str]], columns: int) -> None:
    whole = Table(("A", "STATUS", "C"), rows)
    cut = whole.fitted(columns)
    assert all(width(line) <= columns for line in cut.splitlines())
    assert cut.count("\n") == whole.count("\n")
    if all(width(line) <= columns for line in whole.splitlines()):
        assert cut == whole


def test_the_state_is_painted_and_nothing_else() -> None:
    rows = [("running", state, state) for state in ("running", "failed: why", "paused", "odd")]
    painted = Table(("NAME", "STATUS", "COMMENT"), rows).painted()
    assert painted.splitlines()[1:] == [
        "running  \x1b[32mrunning\x1b[0m      running",
        "running  \x1b[31mfailed: why\x1b[0m  failed: why",
        "running  \x1b[2mpaused\x1b[0m       paused",
        "running  odd          odd",
    ]
    assert re.sub("\x1b\\[[0-9]*m", "", painted) == Table(("NAME", "STATUS", "COMMENT"), rows)


def test_lines_above_and_below_belong_to_it_and_are_not_cut() -> None:
    table = Table(("NAME", "STATUS"), [("web", "running")], above=["a\x1bb"], below=["", "x" * 30])
    lines = ["a\\x1bb", "NAME  STATUS", "web   running", "", "x" * 30]
    assert table.splitlines() == lines
    assert table.fitted(13).splitlines() == lines
    assert table.fitted(9).splitlines() == [lines[0], "NAME  …", "web   …", *lines[3:]]
    assert table.painted().splitlines()[2] == "web   \x1b[32mrunning\x1b[0m"


def test_nobody_can_paint_by_a_name() -> None:
    table = Table(("NAME", "STATUS"), [("\x1b[31mred", "running\x1b[5m: x\ny")])
    assert table.splitlines()[1] == r"\x1b[31mred  running\x1b[5m: x\ny"


@pytest.mark.parametrize(
    ("term", "environment", "wanted"),
    [
        ("xterm-256color", {}, True),
        ("xterm", {"NO_COLOR": ""}, True),
        ("xterm", {"NO_COLOR": "1"}, False),
        ("dumb", {}, False),
        ("", {}, False),
    ],
)
def test_where_colour_is_wanted(term: str, environment: dict[str, str], wanted: bool) -> None:
    assert is_wanted(term, environment) is wanted
