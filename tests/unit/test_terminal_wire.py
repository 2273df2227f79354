"""What a page may say to a terminal; anything else is refused by name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import Invalid
from atoll.doors.front.serve import _FRAME as FRAME_OF_SERVER
from atoll.doors.web.terminal import wire


def test_what_a_page_says() -> None:
    hello = wire.read('{"hello": {"have": 7, "size": [80, 24]}}')
    assert hello == wire.Hello(have=7, size=(80, 24))
    assert wire.read('{"hello": {"have": null, "size": [1, 1000]}}') == wire.Hello(None, (1, 1000))
    assert wire.read('{"size": [120, 40]}') == wire.Resize((120, 40))
    assert wire.read('{"ack": 0}') == wire.Ack(0)


HOSTILE = [
    "",
    "null",
    "[]",
    "{}",
    "{" * 500,
    "[" * 1000,
    '{"size": [80]}',
    '{"size": [80, 24, 1]}',
    '{"size": [0, 24]}',
    '{"size": [80, 1001]}',
    '{"size": [80, true]}',
    '{"size": ["80", "24"]}',
    '{"size": [80.0, 24]}',
    '{"size": [NaN, 24]}',
    '{"size": {"0": 80}}',
    '{"size": [80, 24], "ack": 1}',
    '{"ack": -1}',
    '{"ack": 1e3}',
    '{"ack": true}',
    '{"ack": "1"}',
    f'{{"ack": {1 << 53}}}',
    f'{{"ack": {"9" * 900}}}',
    '{"hello": 1}',
    '{"hello": {"have": "0", "size": [80, 24]}}',
    '{"hello": {"size": [80, 24]}}',
    '{"hello": {"have": null, "size": null}}',
    '{"quit": 1}',
    '{"ack": 1}' + " " * 2000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:30])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        wire.read(text)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["hello", "size", "ack", "have", "x"]), inner
    ),
))  # fmt: skip
def test_no_json_does_anything_but_be_read_or_refused(value: object) -> None:
    try:
        said = wire.read(json.dumps(value))
    except Invalid:
        return
    assert isinstance(said, wire.Hello | wire.Resize | wire.Ack)


def test_the_windows_fit_into_one_another() -> None:
    assert wire.FRAME == FRAME_OF_SERVER
    assert wire.FRAME < wire.TYPED < wire.WINDOW
