"""The last output of a terminal, by absolute offset."""

from __future__ import annotations

import pyte
from hypothesis import given
from hypothesis import strategies as st

from atoll.doors.web.terminal.ring import Ring


@given(
    st.lists(st.binary(max_size=50)), st.integers(1, 64), st.integers(0, 400), st.integers(0, 80)
)
def test_what_is_held_is_the_end_of_what_came(
    chunks: list[bytes], limit: int, offset: int, most: int
) -> None:
    ring, whole = Ring(limit), b"".join(chunks)
    for chunk in chunks:
        ring.append(chunk)
    assert ring.end == len(whole)
    assert ring.end - ring.start == min(limit, len(whole))
    assert ring.holds(offset) == (max(0, len(whole) - limit) <= offset <= len(whole))
    if ring.holds(offset):
        assert ring.read(offset, most) == whole[offset : offset + most]


def test_who_has_nothing_begins_at_the_beginning_or_at_a_line() -> None:
    ring = Ring(20)
    ring.append(b"first\nsecond\n")
    assert ring.beginning() == (0, "")
    ring.append(b"third and last\n")
    offset, modes = ring.beginning()
    assert (ring.read(offset, 100), modes) == (b"third and last\n", "")


def test_a_long_line_is_begun_in_its_middle() -> None:
    ring = Ring(10)
    ring.append(b"x" * 100)
    assert ring.beginning() == (90, "")


def test_modes_that_were_switched_before_are_switched_again() -> None:
    ring = Ring(30)
    ring.append(b"\x1b[?1049h\x1b[?25l\x1b[?2004;1000h\x1b[?25h\x1b[?9999h" + b"text\n" * 20)
    _, modes = ring.beginning()
    assert modes == "\x1b[?1049h\x1b[?25h\x1b[?2004h\x1b[?1000h"


def test_a_mode_that_is_switched_in_the_skipped_part_of_a_line_counts() -> None:
    ring = Ring(40)
    ring.append(b"a" * 60 + b"\x1b[?2004h" + b"rest of a line\nnext\n")
    offset, modes = ring.beginning()
    assert (ring.read(offset, 9), modes) == (b"next\n", "\x1b[?2004h")


@given(st.integers(1, 40), st.integers(1, 9))
def test_a_sequence_that_was_cut_in_two_is_seen(limit: int, piece: int) -> None:
    ring, data = Ring(limit), b"..\x1b[?1049h" + b"x" * 60
    for start in range(0, len(data), piece):
        ring.append(data[start : start + piece])
    assert ring.beginning()[1] == "\x1b[?1049h"


def test_a_screen_that_begins_late_is_as_if_all_had_been_seen() -> None:
    """By a model of a terminal: what a full-screen program has switched is right after a cut."""
    data = b"\x1b[?25l\x1b[?7l" + b"row of a table\r\n" * 400 + b"\x1b[2J\x1b[Hnow\r\n"
    ring, whole, late = Ring(1000), pyte.Screen(80, 24), pyte.Screen(80, 24)
    ring.append(data)
    offset, modes = ring.beginning()
    pyte.ByteStream(whole).feed(data)
    pyte.ByteStream(late).feed(modes.encode() + ring.read(offset, 1000))
    assert late.display == whole.display
    assert late.mode == whole.mode
