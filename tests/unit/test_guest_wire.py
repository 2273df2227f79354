"""Whatever stands before, between or inside frames, a whole frame is read, and only as it was sent."""

from __future__ import annotations

import json
from binascii import crc32
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.guest import wire

scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=20)
messages = st.dictionaries(
    st.text(max_size=10), scalars | st.lists(scalars, max_size=3), max_size=4
)
# Bytes that look like frames are the interesting garbage.
garbage = st.binary(max_size=60) | st.builds(
    lambda message, cut: wire.encode(message)[:cut], messages, st.integers(0, 60)
).filter(lambda part: part != b"")


def cut_frame(message: dict[str, object], cut: int) -> bytes:
    """A frame that lost its end."""
    frame = wire.encode(message)
    return frame[: cut % len(frame)]


@given(st.lists(messages, max_size=5), st.lists(st.integers(0, 400), max_size=8))
def test_frames_cut_at_any_byte_arrive_whole(
    sent: list[dict[str, object]], cuts: list[int]
) -> None:
    stream = b"".join(wire.encode(message) for message in sent)
    edges = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    reader = wire.Reader()
    got = []
    for start, end in pairwise(edges):
        got += reader.feed(stream[start:end])
    assert got == sent
    assert reader.dropped == 0


@given(messages, st.integers(0, 10_000), messages)
def test_a_frame_after_half_a_frame_is_read(
    lost: dict[str, object], cut: int, sent: dict[str, object]
) -> None:
    reader = wire.Reader()
    assert reader.feed(cut_frame(lost, cut)) == []
    assert reader.feed(wire.encode(sent)) == [sent]


@given(garbage, messages)
def test_a_frame_after_any_garbage_is_read(noise: bytes, sent: dict[str, object]) -> None:
    reader = wire.Reader()
    reader.feed(noise)
    assert reader.feed(wire.encode(sent))[-1] == sent


@given(messages, st.integers(1, 10_000), st.integers(1, 255))
def test_a_damaged_byte_never_becomes_another_message(
    sent: dict[str, object], place: int, flip: int
) -> None:
    frame = bytearray(wire.encode(sent))
    frame[place % len(frame)] ^= flip
    assert wire.Reader().feed(bytes(frame)) in ([], [sent])


def test_an_oversized_frame_is_refused_by_its_header() -> None:
    reader = wire.Reader()
    reader.feed(b"\xfe%08x%08x" % (wire.BODY_LIMIT + 1, 0))
    assert reader.dropped == 1
    with pytest.raises(wire.WireError):
        wire.encode({"text": "x" * wire.BODY_LIMIT})


def test_a_reader_never_holds_more_than_one_body() -> None:
    reader = wire.Reader()
    reader.feed(b"\xfe%08x%08x" % (wire.BODY_LIMIT, 0))
    for _ in range(40):
        reader.feed(b"x" * (1 << 16))
    assert reader.dropped == 1
    assert reader._frame is None


@pytest.mark.parametrize(
    "body", [b"[]", b"1", b'"x"', b"{", b"NaN", b'{"a":Infinity}', b"[" * 90_000]
)
def test_what_is_not_an_object_is_dropped(body: bytes) -> None:
    reader = wire.Reader()
    frame = b"\xfe%08x%08x" % (len(body), crc32(body)) + body
    assert reader.feed(frame) == []
    assert reader.dropped == 1


def test_a_request_survives_its_frame() -> None:
    (message,) = wire.Reader().feed(wire.encode(wire.request("n0", 7, "stat", {"a": "ü"})))
    assert wire.parse_request(message) == ("n0", 7, "stat", {"a": "ü"})


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"nonce": ""},
        {"nonce": "x" * 65},
        {"id": "1"},
        {"id": True},
        {"verb": 3},
        {"args": []},
    ],
)
def test_what_is_not_a_request_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(wire.WireError):
        wire.parse_request({**wire.request("n", 1, "ping", {}), **change})


def test_an_answer_to_the_parent_is_not_ours() -> None:
    answer = json.loads('{"v":1,"nonce":"parent","id":1,"ok":{}}')
    assert wire.is_answer(answer, "parent", 1)
    assert not wire.is_answer(answer, "child", 1)
    assert not wire.is_answer(answer, "parent", 2)
