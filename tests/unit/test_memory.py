"""Private pages of a real process: found, copied, compared, saved, put into another process."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.base.errors import Internal
from atoll.engine.qemu.memory import PAGE, RAM_NAME, GuestMemory, Pages, Run, seal

SIZE = 256 * PAGE
# Plays QEMU: maps the file privately, writes what it is told, page by page, and echoes.
GUEST = """
import mmap, sys
ram = mmap.mmap(int(sys.argv[1]), int(sys.argv[2]), flags=mmap.MAP_PRIVATE)
print("ready", flush=True)
for line in sys.stdin:
    page, value = map(int, line.split())
    ram[page * 4096:(page + 1) * 4096] = bytes([value]) * 4096
    print("done", flush=True)
"""


def template() -> int:
    """A memory file whose page n is filled with n % 251, sealed."""
    fd = os.memfd_create(RAM_NAME, os.MFD_ALLOW_SEALING)
    os.write(fd, b"".join(bytes([n % 251]) * PAGE for n in range(SIZE // PAGE)))
    seal(fd)
    return fd


class Guest:
    """A process that maps the template."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def write(self, page: int, value: int) -> None:
        """Fill a page."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{page} {value}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"


@contextmanager
def guest(fd: int) -> Iterator[Guest]:
    """Start one; ends with the body."""
    with subprocess.Popen(
        [sys.executable, "-c", GUEST, str(fd), str(SIZE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[fd],
        text=True,
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield Guest(process)
        finally:
            process.kill()


def content(memory: GuestMemory) -> bytes:
    """All of a guest's memory."""
    data = bytearray(SIZE)
    memory.read(0, memoryview(data))
    return bytes(data)


def test_clone_equals_the_parent_at_the_pause() -> None:
    fd, rng = template(), random.Random(7)
    with guest(fd) as parent, guest(fd) as child, GuestMemory(parent.pid, SIZE) as memory:
        assert memory.private_runs() == []
        for page in (0, 1, 2, 100, 255):
            parent.write(page, rng.randrange(256))
        pages = Pages(SIZE)
        pages.precopy(memory)
        for page in (1, 101, 102, 200):  # written after the first pass
            parent.write(page, rng.randrange(256))
        pages.settle(memory)
        assert pages.runs == [
            Run(0, 3 * PAGE), Run(100 * PAGE, 3 * PAGE), Run(200 * PAGE, PAGE),
            Run(255 * PAGE, PAGE),
        ]  # fmt: skip
        with GuestMemory(child.pid, SIZE) as fresh:
            pages.apply(fresh)
            assert content(fresh) == content(memory)
            assert fresh.private_runs() == pages.runs


def test_page_of_zeros_over_a_template_page_is_kept(tmp_path: Path) -> None:
    fd = template()
    with guest(fd) as parent, guest(fd) as child, GuestMemory(parent.pid, SIZE) as memory:
        parent.write(5, 0)
        pages = Pages(SIZE)
        pages.settle(memory)
        pages.save(tmp_path / "pages")
        with GuestMemory(child.pid, SIZE) as fresh:
            Pages.load(tmp_path / "pages").apply(fresh)
            assert content(fresh)[5 * PAGE : 6 * PAGE] == bytes(PAGE)
            assert content(fresh) == content(memory)


def test_sealed_memory_cannot_be_changed() -> None:
    fd = template()
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    with pytest.raises(PermissionError):
        os.write(again, b"x")
    with pytest.raises(PermissionError):
        os.ftruncate(again, 0)


def filled(values: dict[int, int]) -> Pages:
    """Pages as a guest would leave them."""
    fd = template()
    with guest(fd) as source, GuestMemory(source.pid, SIZE) as memory:
        for page, value in values.items():
            source.write(page, value)
        pages = Pages(SIZE)
        pages.settle(memory)
    return pages


def test_damage_is_found(tmp_path: Path) -> None:
    whole = tmp_path / "pages"
    filled({3: 9, 4: 9, 60: 1}).save(whole)
    good = whole.read_bytes()
    assert Pages.load(whole).bytes_held == 3 * PAGE

    @settings(max_examples=60, deadline=None)
    @given(at=st.integers(0, len(good) - 1), flip=st.integers(1, 255))
    def flipped(at: int, flip: int) -> None:
        bad = tmp_path / "bad"
        bad.write_bytes(good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :])
        with pytest.raises(Internal):
            Pages.load(bad)

    @settings(max_examples=30, deadline=None)
    @given(keep=st.integers(0, len(good) - 1))
    def cut(keep: int) -> None:
        bad = tmp_path / "bad"
        bad.write_bytes(good[:keep])
        with pytest.raises(Internal):
            Pages.load(bad)

    flipped()
    cut()
    with pytest.raises(Internal):
        Pages.load(tmp_path / "missing")


def test_two_candidates_are_refused() -> None:
    with guest(template()) as source, pytest.raises(Internal, match="0 mappings"):
        GuestMemory(source.pid, SIZE * 3)
