"""Editing keys on a line, and going back through lines."""

from __future__ import annotations

import pytest

from atoll.doors.ssh.keys import PASTE_LIMIT, Key
from atoll.doors.ssh.line import Line
from atoll.doors.ssh.recall import SESSION_LINES, Recall


def line(marked: str) -> Line:
    """`ab|c`: the text, and the cursor where the bar is."""
    made = Line()
    made.set(marked.replace("|", ""), marked.index("|"))
    return made


@pytest.mark.parametrize(
    ("before", "key", "after"),
    [
        ("ab|c", Key.LEFT, "a|bc"),
        ("ab|c", Key.RIGHT, "abc|"),
        ("|日本", Key.RIGHT, "日|本"),
        ("ae\u0301|b", Key.LEFT, "a|e\u0301b"),
        ("ae\u0301|b", Key.BACKSPACE, "a|b"),
        ("a|👍🏽b", Key.DELETE, "a|b"),
        ("a|b", Key.HOME, "|ab"),
        ("a|b", Key.END, "ab|"),
        ("new --name we|b", Key.WORD_LEFT, "new --name |web"),
        ("new --|name web", Key.WORD_RIGHT, "new --name| web"),
        ("new --name we|b", Key.KILL_BLANK, "new --name |b"),
        ("new --name|", Key.KILL_BLANK, "new |"),
        ("new --name|", Key.KILL_WORD_LEFT, "new --|"),
        ("new |--name web", Key.KILL_WORD_RIGHT, "new | web"),
        ("new we|b", Key.KILL_START, "|b"),
        ("new we|b", Key.KILL_END, "new we|"),
        ("ab|", Key.SWAP, "ba|"),
        ("ab|c", Key.SWAP, "acb|"),
    ],
)
def test_keys(before: str, key: Key, after: str) -> None:
    edited = line(before)
    assert edited.press(key)
    assert (edited.text, edited.cursor) == (line(after).text, line(after).cursor)


@pytest.mark.parametrize(
    ("marked", "key"),
    [("|a", Key.LEFT), ("a|", Key.RIGHT), ("|a", Key.BACKSPACE), ("a|", Key.DELETE),
     ("|a", Key.KILL_START), ("|", Key.SWAP), ("|a", Key.SWAP), ("|", Key.YANK), ("a|", Key.UP)],
)  # fmt: skip
def test_keys_that_can_do_nothing_say_so(marked: str, key: Key) -> None:
    edited = line(marked)
    assert not edited.press(key)
    assert edited.text == marked.replace("|", "")


def test_what_was_cut_comes_back() -> None:
    edited = line("rm web| web-next")
    edited.press(Key.KILL_BLANK)
    edited.press(Key.END)
    edited.insert(" ")
    edited.press(Key.YANK)
    assert edited.text == "rm  web-next web"


def test_a_line_has_an_end() -> None:
    edited = line("|")
    assert edited.insert("x" * PASTE_LIMIT)
    assert not edited.insert("y")
    assert len(edited.text) == PASTE_LIMIT


def test_going_back_and_forth_keeps_what_was_being_typed() -> None:
    recall = Recall(["ls"])
    recall.add("new")
    recall.add("new")
    assert recall.older("half") == "new"
    assert recall.older("new") == "ls"
    assert recall.older("ls") is None
    assert recall.newer() == "new"
    assert recall.newer() == "half"
    assert recall.newer() is None


def test_finding_goes_from_new_to_old() -> None:
    recall = Recall(["ls web", "new", "rm web"])
    newest = recall.find("web")
    assert newest is not None
    assert recall.line(newest) == "rm web"
    assert recall.older("") == "new"
    assert recall.find("web", newest) == 0
    assert recall.find("web", 0) is None
    assert recall.find("nothing") is None


def test_only_so_many_lines_are_remembered() -> None:
    recall = Recall()
    for number in range(SESSION_LINES + 10):
        recall.add(f"ls {number}")
    assert recall.find("ls 9") is not None
    assert recall.find("ls 5 ") is None
    recall.add("x")
    assert recall.older("") == "x"
