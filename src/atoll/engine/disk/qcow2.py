"""The qcow2 header: written for a new, empty layer and read back without starting a process.

Follows QEMU's docs/interop/qcow2.txt, version 3. Only two things are done here: making an overlay
that holds nothing yet, and reading the header of any image. Everything that touches guest data is
left to QEMU's own tools. `tests/engine/test_disk_qcow2.py` holds the written file against
`qemu-img create`, so this stays a faster spelling of that command and nothing more.

Invariant: a file written here is never opened for writing by this module again.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Final

from atoll.base.errors import Invalid

MAGIC: Final = 0x514649FB  # "QFI\xfb"
CLUSTER_BITS: Final = 17  # 128 KiB, 32 sub-clusters of 4 KiB: see docs/adr/0003
CLUSTER: Final = 1 << CLUSTER_BITS
EXTENDED_L2: Final = 1 << 4  # incompatible feature bit
L2_COVERS: Final = (CLUSTER // 16) * CLUSTER  # guest bytes under one L2 table: 1 GiB
MAX_BACKING_NAME: Final = 1023

_HEADER = struct.Struct(">IIQIIQIIQQIIQQQQIIB7x")
_EXTENSION = struct.Struct(">II")
_BACKING_FORMAT: Final = 0xE2792ACA
_END: Final = 0
_LABEL: Final = 0x41746F6C  # "Atol": ours; QEMU keeps extensions it does not know
# Enough for every header here: 112 bytes, a label under 1 KiB, QEMU's table of feature names
# (under 1 KiB) and a backing name.
_READ: Final = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a qcow2 file says about itself; sizes in bytes, `label` is ours and may be empty."""

    size_bytes: int
    backing: str | None
    backing_format: str | None
    label: bytes
    cluster_bytes: int
    extended_l2: bool
    dirty: bool
    l1_offset: int
    l1_entries: int


def overlay(*, size_bytes: int, backing: str, label: bytes = b"") -> tuple[dict[int, bytes], int]:
    """An empty overlay on `backing`: the non-zero parts by file offset, and the file's length.

    Layout: header, refcount table, first refcount block, L1 table; one cluster each, more for the
    L1 table of a disk over 16 TiB. Raises Invalid for a size or a name that does not fit.
    """
    if size_bytes <= 0 or size_bytes % 4096:
        raise Invalid(f"disk size {size_bytes} is not a positive multiple of 4096")
    name = backing.encode()
    if not 0 < len(name) <= MAX_BACKING_NAME:
        raise Invalid(f"backing file name of {len(name)} bytes; 1 to {MAX_BACKING_NAME} fit")
    if len(label) > 1024:
        raise Invalid(f"layer label of {len(label)} bytes; 1024 fit")
    l1_entries = -(-size_bytes // L2_COVERS)
    length = _length(l1_entries)
    extensions = (
        _extension(_BACKING_FORMAT, b"qcow2")
        + (_extension(_LABEL, label) if label else b"")
        + _extension(_END, b"")
    )
    header = _HEADER.pack(
        MAGIC,
        3,
        _HEADER.size + len(extensions),
        len(name),
        CLUSTER_BITS,
        size_bytes,
        0,  # no encryption
        l1_entries,
        3 * CLUSTER,
        1 * CLUSTER,
        1,  # cluster of refcount table
        0,  # no internal snapshots
        0,
        EXTENDED_L2,
        0,  # lazy refcounts stay off: a crash then leaves leaks at worst, storage measured
        0,
        4,  # refcounts of 16 bits
        _HEADER.size,
        0,  # zlib, though nothing is ever compressed
    )
    parts = {
        0: header + extensions + name,
        1 * CLUSTER: struct.pack(">Q", 2 * CLUSTER),
        2 * CLUSTER: struct.pack(">H", 1) * (length // CLUSTER),
    }
    return parts, length


def write_overlay(fd: int, *, size_bytes: int, backing: str, label: bytes = b"") -> None:
    """Write `overlay` into the empty file `fd`; the caller syncs and names it."""
    parts, length = overlay(size_bytes=size_bytes, backing=backing, label=label)
    os.ftruncate(fd, length)
    for offset, data in parts.items():
        os.pwrite(fd, data, offset)


def read_header(fd: int) -> Header:
    """Parse the header of an open image. Raises Invalid on anything but a sound qcow2 v3 header."""
    return parse_header(os.pread(fd, _READ, 0))


def parse_header(data: bytes) -> Header:
    """`read_header` of the file's first bytes."""
    if len(data) < _HEADER.size:
        raise Invalid(f"{len(data)} bytes are no qcow2 header")
    (magic, version, name_offset, name_length, cluster_bits, size, _crypt, l1_entries, l1_offset,
     _refcounts, _refcount_clusters, _snapshots, _snapshots_offset, incompatible, _compatible,
     _autoclear, _order, header_length, _compression) = _HEADER.unpack_from(data)  # fmt: skip
    if magic != MAGIC or version != 3:
        raise Invalid("not a qcow2 image of version 3")
    if not 9 <= cluster_bits <= 21 or not 104 <= header_length <= len(data):
        raise Invalid(f"damaged qcow2 header: cluster bits {cluster_bits}, length {header_length}")
    found = _extensions(data, header_length)
    backing = None
    if name_offset:
        if not 0 < name_length <= MAX_BACKING_NAME or name_offset + name_length > len(data):
            raise Invalid(f"damaged qcow2 header: backing name {name_length} at {name_offset}")
        backing = data[name_offset : name_offset + name_length].decode(errors="surrogateescape")
    backing_format = found.get(_BACKING_FORMAT)
    return Header(
        size_bytes=size,
        backing=backing,
        backing_format=backing_format.decode(errors="replace") if backing_format else None,
        label=found.get(_LABEL, b""),
        cluster_bytes=1 << cluster_bits,
        extended_l2=bool(incompatible & EXTENDED_L2),
        dirty=bool(incompatible & 1),
        l1_offset=l1_offset,
        l1_entries=l1_entries,
    )


def is_empty(fd: int) -> bool:
    """Whether no guest block was ever allocated in this layer (its L1 table is all zero)."""
    header = read_header(fd)
    length = header.l1_entries * 8
    table = os.pread(fd, length, header.l1_offset)
    return len(table) == length and not any(table)


def is_as_made(fd: int) -> bool:
    """Whether the file is as `write_overlay` left it: nothing was written, zeroed or discarded.

    Any of these takes a cluster for an L2 table, at the end of the file, and an entry for it. Both
    are looked at: an answer of False by mistake costs little, one of True would lose data.
    """
    header = read_header(fd)
    is_ours = header.cluster_bytes == CLUSTER and header.extended_l2 and header.backing is not None
    return is_ours and os.fstat(fd).st_size == _length(header.l1_entries) and is_empty(fd)


def _length(l1_entries: int) -> int:
    """Of the file of an empty overlay."""
    return CLUSTER * (3 - (-l1_entries * 8 // CLUSTER))


def _extension(kind: int, data: bytes) -> bytes:
    return _EXTENSION.pack(kind, len(data)) + data + bytes(-len(data) % 8)


def _extensions(data: bytes, offset: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while offset + _EXTENSION.size <= len(data):
        kind, length = _EXTENSION.unpack_from(data, offset)
        offset += _EXTENSION.size
        if kind == _END:
            return found
        if offset + length > len(data):
            break
        found[kind] = data[offset : offset + length]
        offset += length + (-length % 8)
    raise Invalid("damaged qcow2 header: extensions have no end")
