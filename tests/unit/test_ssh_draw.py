"""What the editor sends, looked at on a terminal's screen."""

from __future__ import annotations

import unicodedata

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.base.text import clusters, width
from atoll.doors.ssh.draw import Drawing, Size

LETTERS = st.sampled_from(["a", "b", " ", "é", "日", "🐢", "e\u0301", "\n"])


class World:
    """A drawing and the screen it is sent to, with a line above it."""

    def __init__(self, columns: int, rows: int) -> None:
        self.size = Size(columns, rows)
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.Stream(self.screen)
        self.drawing = Drawing()

    def show(self, text: str, cursor: int | None = None) -> None:
        at = len(text) if cursor is None else cursor
        self.stream.feed(self.drawing.update(text, at, self.size))

    @property
    def rows(self) -> list[str]:
        return [row.rstrip() for row in self.screen.display]

    @property
    def at(self) -> tuple[int, int]:
        return self.screen.cursor.y, self.screen.cursor.x


def test_a_line_goes_on_in_the_next_row_and_comes_back() -> None:
    world = World(10, 5)
    world.stream.feed("above\r\n")
    world.show("> 0123456789")
    assert world.rows[:3] == ["above", "> 01234567", "89"]
    assert world.at == (2, 2)
    world.show("> 01234567")
    assert world.rows[:3] == ["above", "> 01234567", ""]
    assert world.at == (2, 0), "the next letter has its place"
    world.show("> 0123456789", cursor=4)
    assert world.at == (1, 4)
    world.show("> ")
    assert world.rows[:3] == ["above", ">", ""]


def test_sizes_that_clients_announce_are_made_sensible() -> None:
    assert Size.of(0, 0) == Size(80, 24)
    assert Size.of(1, 1) == Size(4, 2)
    assert Size.of(2**32 - 1, 2**32 - 1) == Size(2000, 2000)


def test_a_wide_character_does_not_hang_over_the_edge() -> None:
    world = World(5, 4)
    world.show("abcd日x")
    assert world.rows[:2] == ["abcd", "日x"]
    assert world.at == (1, 3)


def test_one_more_letter_costs_one_letter() -> None:
    drawing, size = Drawing(), Size(20, 5)
    drawing.update("> a", 3, size)
    assert drawing.update("> ab", 4, size) == "b"
    assert drawing.update("> ab日", 5, size) == "日"


def test_a_line_higher_than_the_screen_shows_the_rows_at_the_cursor() -> None:
    world = World(10, 4)
    text = "".join(f"{n:09d}|" for n in range(20))
    world.show(text)
    assert world.rows == ["000000017|", "000000018|", "000000019|", ""]
    world.show(text, cursor=0)
    assert world.rows[0] == "000000000|"
    assert world.at == (0, 0)
    world.show(text, cursor=105)
    assert world.rows[world.at[0]] == "000000010|"


def test_what_stands_above_is_left_alone_by_a_resize() -> None:
    world = World(20, 6)
    world.stream.feed("above\r\n")
    world.show("> 0123456789 0123456789")
    for columns in (8, 30, 12):
        world.screen.resize(6, columns)
        world.size = Size(columns, 6)
        world.show("> 0123456789 0123456789")
        assert "above"[:columns] in world.rows[0]
    assert "".join(world.rows).endswith("> 0123456789 0123456789")


@pytest.mark.parametrize("text", ["> short", "> " + "0123456789" * 5, "> 日本語日本語日本語"])
def test_without_a_movable_cursor_one_row_shows_the_part_at_the_cursor(text: str) -> None:
    drawing = Drawing(is_dumb=True)
    sent = drawing.update(text, len(text), Size(16, 5))
    assert "\x1b" not in sent
    shown = sent.split("\r")[-1]
    assert text.endswith(shown)
    assert width(shown) < 16


@given(st.data(), st.integers(4, 15), st.integers(2, 6))
@settings(max_examples=300, deadline=None)
def test_the_screen_shows_what_was_typed_and_the_cursor_is_there(
    data: st.DataObject, columns: int, rows: int
) -> None:
    world = World(columns, rows)
    for _ in range(4):
        pieces = data.draw(st.lists(LETTERS, max_size=40))
        text = "> " + "".join(pieces)
        ends = [2]
        for piece in clusters(text[2:]):
            ends.append(ends[-1] + len(piece))
        cursor = data.draw(st.sampled_from(ends))
        world.show(text, cursor)
        fresh = World(columns, rows)
        fresh.show(text, cursor)
        assert (world.rows, world.at) == (fresh.rows, fresh.at)
        seen = "".join(world.rows).replace(" ", "")
        if width(text.replace("\n", "x")) + columns < columns * rows // 2:
            shown = unicodedata.normalize("NFC", text)  # as the model keeps it
            assert seen == shown.replace("\n", "⏎").replace(" ", "")
            filled = world.at[0] * columns + world.at[1]
            assert filled >= width(text[:cursor].replace("\n", "x"))
