"""Text on a terminal: widths, clusters, cuts, and nothing that a terminal acts on."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base import text

FAMILY = "👩\u200d👧"


@pytest.mark.parametrize(
    ("shown", "columns"),
    [("web", 3), ("日本", 4), ("e\u0301", 1), ("🐢", 2), ("", 0), ("a\u200db", 2), ("ﬁ", 1)],
)
def test_width(shown: str, columns: int) -> None:
    assert text.width(shown) == columns


@pytest.mark.parametrize(
    ("shown", "pieces"),
    [
        ("ab", ["a", "b"]),
        ("e\u0301x", ["e\u0301", "x"]),
        (f"{FAMILY}x", [FAMILY, "x"]),
        ("👍🏽x", ["👍🏽", "x"]),
        ("🇩🇪🇫🇷", ["🇩🇪", "🇫🇷"]),
        ("\u0301a", ["\u0301", "a"]),
    ],
)
def test_clusters(shown: str, pieces: list[str]) -> None:
    assert list(text.clusters(shown)) == pieces


@pytest.mark.parametrize(
    ("shown", "columns", "kept"),
    [("webserver", 9, "webserver"), ("webserver", 5, "webs…"), ("日本語", 5, "日本…"),
     ("日本語", 4, "日…"), ("ab", 1, "…"), ("ab", 0, ""), (f"a{FAMILY}b", 4, "a…")],
)  # fmt: skip
def test_cut(shown: str, columns: int, kept: str) -> None:
    assert text.cut(shown, columns) == kept


def test_flags_are_two_letters_from_either_side() -> None:
    flags = "🇩🇪🇫🇷🇮🇹"
    assert [text.next_cluster(flags, n) for n in (0, 2, 4)] == [2, 4, 6]
    assert [text.previous_cluster(flags, n) for n in (2, 4, 6)] == [0, 2, 4]
    assert len(list(text.clusters("🇩" * 200_000))) == 100_000, "in one pass"


def test_wrap() -> None:
    assert text.wrap("", 3) == [""]
    assert text.wrap("abcdefg", 3) == ["abc", "def", "g"]
    assert text.wrap("a日本", 2) == ["a", "日", "本"]
    assert text.wrap("日", 1) == ["日"], "what fits nowhere is shown all the same"


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb\x7f", "a\\x0db\\x7f"),
        ("\u202efdp.exe", "\\u202efdp.exe"),
        ("\udc9b2J", "\\x9b2J"),  # a byte that is no UTF-8, as AsyncSSH reads it
        ("two\nlines\tand a tab 🐢 é", "two\nlines\tand a tab 🐢 é"),
    ],
)
def test_escape(hostile: str, shown: str) -> None:
    assert text.escape(hostile) == shown


@given(st.text(st.characters(codec=None, categories=["C", "L", "M", "N", "P", "S", "Z"])))
def test_nothing_a_terminal_acts_on_is_left(anything: str) -> None:
    for safe in (text.escape(anything), text.strip(anything)):
        assert not [char for char in safe if ord(char) < 32 and char not in "\n\t"]
        assert not [char for char in safe if 0x7F <= ord(char) < 0xA0]
        safe.encode()
    written = json.dumps([anything], ensure_ascii=False)
    assert json.loads(text.json_escape(written)) == json.loads(written)


@given(st.text(), st.integers(1, 20))
def test_cuts_and_rows_fit(shown: str, columns: int) -> None:
    shown = text.strip(shown).replace("\n", "").replace("\t", "")
    assert text.width(text.cut(shown, columns)) <= columns
    rows = text.wrap(shown, max(columns, 2))
    assert "".join(rows) == shown
    assert "".join(text.clusters(shown)) == shown
    for end in range(1, len(shown) + 1):
        start = text.previous_cluster(shown, end)
        assert start < end
