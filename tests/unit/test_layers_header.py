"""qcow2 headers: what we write we read, and no bytes from disk do worse than be refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import Invalid
from atoll.domain.layers import Kind, Layer, base_id, layer_id
from atoll.engine.disk import label, qcow2

LAYER = Layer(
    id=layer_id("vm-3k9x00000000", 12),
    parent=base_id("0123456789abcdef"),
    kind=Kind.CLONE,
    size_bytes=25 << 30,
    vm="vm-3k9x00000000",
    seq=12,
    owner="acct-1",
    created=1795250000.25,
)


def written(layer: Layer = LAYER, backing: str = "../base/0123456789abcdef.qcow2") -> bytes:
    parts, _ = qcow2.overlay(
        size_bytes=layer.size_bytes, backing=backing, label=label.encode(layer)
    )
    return parts[0]


def test_a_layer_is_read_back_from_its_header() -> None:
    assert label.decode(qcow2.parse_header(written())) == LAYER


def test_a_parent_beside_it_is_named_without_a_folder() -> None:
    header = qcow2.parse_header(written(backing="vm-a-0001.qcow2"))
    assert label.decode(header).parent == layer_id("vm-a", 1)


@given(st.binary(max_size=300))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    with pytest.raises(Invalid):
        qcow2.parse_header(data)


@given(st.integers(0, len(written()) - 1), st.integers(0, 255))
def test_a_header_with_one_wrong_byte_is_parsed_or_refused(at: int, byte: int) -> None:
    data = bytearray(written())
    data[at] = byte
    try:
        label.decode(qcow2.parse_header(bytes(data)))
    except Invalid:
        return


@pytest.mark.parametrize("size", [0, -4096, 100, 4097])
def test_a_disk_of_an_odd_size_is_refused(size: int) -> None:
    with pytest.raises(Invalid, match="multiple of 4096"):
        qcow2.overlay(size_bytes=size, backing="x.qcow2")


@pytest.mark.parametrize("backing", ["", "x" * 1024])
def test_a_name_that_does_not_fit_is_refused(backing: str) -> None:
    with pytest.raises(Invalid, match="backing file name"):
        qcow2.overlay(size_bytes=4096, backing=backing)


def test_a_label_of_another_program_is_refused() -> None:
    parts, _ = qcow2.overlay(size_bytes=4096, backing="x.qcow2", label=b'{"name":"x"}')
    with pytest.raises(Invalid, match="label"):
        label.decode(qcow2.parse_header(parts[0]))
