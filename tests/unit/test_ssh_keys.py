"""What terminals send, taken apart; also when it comes in pieces or is made to do harm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.doors.ssh.keys import PASTE_LIMIT, Event, Key, Keys, Pasted, Typed


def read(*chunks: str) -> list[Event]:
    """The events of what came in these pieces."""
    keys, events = Keys(), []
    for chunk in chunks:
        keys.feed(chunk)
        while (event := keys.next()) is not None:
            events.append(event)
    return events


@pytest.mark.parametrize(
    ("sent", "events"),
    [
        ("ls web\r", [Typed("ls web"), Key.ENTER]),
        ("a\r\nb\n", [Typed("a"), Key.ENTER, Typed("b"), Key.ENTER]),
        ("\x1b[A\x1bOA\x10", [Key.UP] * 3),
        ("\x1b[H\x1bOH\x1b[1~\x1b[7~\x01", [Key.HOME] * 5),
        ("\x1b[F\x1bOF\x1b[4~\x1b[8~\x05", [Key.END] * 5),
        ("\x1b[1;5D\x1b[1;3D\x1bb", [Key.WORD_LEFT] * 3),
        ("\x1b[1;2C", [Key.RIGHT]),
        ("\x1b[3~\x1b[3;5~", [Key.DELETE, Key.KILL_WORD_RIGHT]),
        ("\x1b[24~x\x1b[<0;3;5Mx", [Key.OTHER, Typed("x"), Key.OTHER, Typed("x")]),
        ("\x1b\x1b[A", [Key.ESCAPE, Key.UP]),
        ("\x1b[\x01x", [Key.OTHER, Key.HOME, Typed("x")]),
        ("日本🐢", [Typed("日本🐢")]),
        ("a\x9bb\u202ec\udcffd", [Typed("abcd")]),
        ("\x00\x1a", [Key.OTHER, Key.OTHER]),
        ("\u202e\x1b[A", [Key.UP]),
        ("\x1bOM", [Key.ENTER]),
        ("\x1b[200~two\rlines\r\n\x1b[201~x", [Pasted("two\nlines\n"), Typed("x")]),
        ("\x1b[200~\x1b]0;owned\x07a\x03\x1b[201~", [Pasted("]0;owneda")]),
        ("\x1b[200~\x1b[201~", [Pasted("")]),
    ],
)
def test_events(sent: str, events: list[Event]) -> None:
    assert read(sent) == events
    assert joined(read(*sent)) == joined(events), "one character at a time"


def joined(events: list[Event]) -> list[Event]:
    """Neighbouring characters as one text; CR and LF that came apart as the two they then are."""
    out: list[Event] = []
    for event in events:
        if isinstance(event, Typed) and out and isinstance(out[-1], Typed):
            out[-1] = Typed(out[-1].text + event.text)
        elif not (event is Key.ENTER and out[-1:] == [Key.ENTER]):
            out.append(event)
    return out


def test_a_paste_that_is_too_long_is_cut_and_says_so() -> None:
    (event,) = read("\x1b[200~", "x" * PASTE_LIMIT, "y" * PASTE_LIMIT, "\x1b[201~")
    assert event == Pasted("x" * PASTE_LIMIT, is_whole=False)


def test_what_was_not_asked_for_stays_as_it_came() -> None:
    keys = Keys()
    keys.feed("ssh web\rls\x1b[A\r")
    assert [keys.next(), keys.next()] == [Typed("ssh web"), Key.ENTER]
    assert keys.rest() == "ls\x1b[A\r"
    assert keys.next() is None


@given(st.lists(st.text(st.sampled_from("\x1b[O~;019ABab\r\x03\x7f\x9b\u202e200~"), max_size=12)))
def test_no_control_character_gets_into_a_text_and_nothing_hangs(chunks: list[str]) -> None:
    for event in read(*chunks, "x" * 40, "\x1b[201~"):
        if isinstance(event, (Typed, Pasted)):
            assert all(char.isprintable() or char in "\n\t" for char in event.text)
    keys = Keys()
    keys.feed("".join(chunks) + "\x1b[201~" + "x" * 40 + "\r")
    events = [keys.next() for _ in range(200)]
    assert events[-1] is None
    assert keys.rest() == ""
