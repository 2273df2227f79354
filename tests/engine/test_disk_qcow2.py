"""An overlay written by us is what `qemu-img create` would have made."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from atoll.engine.disk import qcow2

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40
OPTIONS = "cluster_size=128k,extended_l2=on,lazy_refcounts=off"
LABEL = b'{"vm":"vm-a","seq":1}'


def tool(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def ours(path: Path, size: int, backing: str = "base.qcow2") -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    qcow2.write_overlay(fd, size_bytes=size, backing=backing, label=LABEL)
    os.close(fd)


def theirs(path: Path, size: int) -> None:
    backing = ["-F", "qcow2", "-b", "base.qcow2"]
    tool("qemu-img", "create", "-q", "-f", "qcow2", *backing, "-o", OPTIONS, str(path), str(size))


def facts(path: Path) -> dict[str, Any]:
    """What QEMU says about the image, less what no two files share."""
    found: dict[str, Any] = json.loads(tool("qemu-img", "info", "--output=json", str(path)))
    for own in ("filename", "actual-size", "children"):
        found.pop(own, None)
    return found


def header(path: Path) -> qcow2.Header:
    fd = os.open(path, os.O_RDONLY)
    try:
        return qcow2.read_header(fd)
    finally:
        os.close(fd)


def empty(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY)
    try:
        return qcow2.is_empty(fd)
    finally:
        os.close(fd)


def as_made(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY)
    try:
        return qcow2.is_as_made(fd)
    finally:
        os.close(fd)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    base = tmp_path / "base.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", OPTIONS, str(base), str(64 * MIB))
    tool("qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 1M", str(base))
    return tmp_path


SIZES = (
    st.sampled_from([4096, MIB, GIB - 4096, GIB, GIB + 4096, 25 * GIB, 16 * TIB, 64 * TIB])
    | st.integers(1, 64 * TIB // 4096).map(lambda blocks: blocks * 4096)
    | st.integers(1, 4 * GIB // 4096).map(lambda blocks: blocks * 4096)
)
WRITES = st.lists(
    st.tuples(
        st.integers(0, 255), st.floats(0, 1), st.sampled_from([512, 4096, 65536, 200 * 1024])
    ),
    max_size=4,
)


@settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(size=SIZES, writes=WRITES)
def test_an_overlay_behaves_like_one_made_by_qemu_img(
    folder: Path, size: int, writes: list[tuple[int, float, int]]
) -> None:
    mine, reference = folder / "ours.qcow2", folder / "theirs.qcow2"
    ours(mine, size)
    theirs(reference, size)
    assert facts(mine) == facts(reference)
    tool("qemu-img", "check", "-q", str(mine))
    assert empty(mine)
    commands: list[str] = []
    for pattern, where, length in writes:
        at = int(where * max(0, size - length)) // 512 * 512
        commands += ["-c", f"write -P {pattern} {at} {min(length, size)}"]
    if commands:
        tool("qemu-io", "-f", "qcow2", *commands, str(mine))
        tool("qemu-io", "-f", "qcow2", *commands, str(reference))
        assert not empty(mine)
    if size <= TIB:  # beyond, a comparison takes seconds
        tool("qemu-img", "compare", "-q", str(mine), str(reference))
    tool("qemu-img", "check", "-q", str(mine))
    assert header(mine).size_bytes == size


def test_the_label_outlives_qemus_own_header_updates(folder: Path) -> None:
    path = folder / "ours.qcow2"
    ours(path, 64 * MIB)
    tool("qemu-io", "-f", "qcow2", "-c", "write 0 1M", str(path))
    tool(
        "qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", "../other.qcow2", str(path)
    )
    found = header(path)
    assert found.label == LABEL
    assert found.backing == "../other.qcow2"
    assert found.backing_format == "qcow2"


def test_what_qemu_img_writes_is_read_back(folder: Path) -> None:
    theirs(folder / "theirs.qcow2", 3 * GIB)
    found = header(folder / "theirs.qcow2")
    assert (found.size_bytes, found.backing, found.label) == (3 * GIB, "base.qcow2", b"")
    assert found.cluster_bytes == 131072
    assert found.extended_l2
    assert not found.dirty
    assert header(folder / "base.qcow2").backing is None


def test_a_grown_disk_reads_as_zeroes_behind_its_parents_end(folder: Path) -> None:
    path = folder / "ours.qcow2"
    ours(path, 3 * GIB)
    said = tool("qemu-io", "-c", "read -P 7 1M 1M", "-c", "read -P 0 2G 1M", str(path))
    assert "failed" not in said


@pytest.mark.parametrize("size", [64 * MIB, 25 * GIB, 64 * TIB])
@pytest.mark.parametrize(
    "change",
    [
        "write 1M 4k", "write 60M 512", "write -z 1M 4k", "write -z -u 1M 4k", "write -z 1M 1M",
        "discard 1M 128k", "discard 1M 1M", "write -P 7 1M 4k",  # the last as it was before
    ],
)  # fmt: skip
def test_whatever_is_done_to_an_overlay_is_seen(folder: Path, size: int, change: str) -> None:
    path = folder / "ours.qcow2"
    ours(path, size)
    assert as_made(path)
    for look in ("read 0 4M", "flush", "map", "read -P 7 1M 1M"):
        tool("qemu-io", "-d", "unmap", "-f", "qcow2", "-c", look, str(path))
    assert as_made(path), "reading changes nothing"
    tool("qemu-io", "-d", "unmap", "-f", "qcow2", "-c", change, str(path))
    assert not as_made(path)


def test_what_others_made_is_not_as_we_make_it(folder: Path) -> None:
    path = folder / "theirs.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", OPTIONS, str(path), str(64 * MIB))
    assert not as_made(path)
    assert not as_made(folder / "base.qcow2")
