"""Splicing: the prologue of one shape and the devices of another never meet."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import Internal
from atoll.engine.qemu.state import first_section, splice

HEAD = b"QEVM\x00\x00\x00\x03"
TIMER = b"\x04\x00\x00\x00\x00\x05timer\x00\x00\x00\x00\x00\x00\x00\x02"
DEVICES = HEAD + TIMER + b"device data of a running machine"
PROLOGUE = HEAD + b"configuration and rom blocks" + TIMER + b"devices of a fresh machine"


def test_splice() -> None:
    assert splice(PROLOGUE, DEVICES) == HEAD + b"configuration and rom blocks" + DEVICES[8:]
    assert first_section(DEVICES) == TIMER


@pytest.mark.parametrize(
    ("prologue", "devices"),
    [
        (HEAD + b"another shape", DEVICES),
        (PROLOGUE + TIMER, DEVICES),  # ambiguous
        (PROLOGUE, b""),
        (PROLOGUE, HEAD + b"\x01" + bytes(40)),
        (PROLOGUE, b"JUNK" + DEVICES[4:]),
    ],
)
def test_misfits_are_refused(prologue: bytes, devices: bytes) -> None:
    with pytest.raises(Internal):
        splice(prologue, devices)


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_garbage_is_refused_or_spliced_never_a_crash(prologue: bytes, devices: bytes) -> None:
    with contextlib.suppress(Internal):
        assert splice(prologue, devices).endswith(devices[8:])
