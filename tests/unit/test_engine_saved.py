"""Saved memory: whole or not there, never of another shape, and never confused with a later one."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from atoll.base.errors import Internal, Unavailable
from atoll.engine.qemu.machine import Saved
from atoll.engine.qemu.memory import PAGE, Pages, Run, unreadable
from atoll.engine.saved import SavedMemory

SIZE = 64 * PAGE
KEY = "0" * 32


def pages(*values: int) -> Pages:
    """Page 2n is filled with values[n]."""
    made = Pages(SIZE)
    made.runs = [Run(2 * n * PAGE, PAGE) for n in range(len(values))]
    for run, value in zip(made.runs, values, strict=True):
        made._view[run.offset : run.offset + PAGE] = bytes([value]) * PAGE
    return made


def content(saved: Saved) -> list[int]:
    return [saved.pages._view[run.offset] for run in saved.pages.runs]


@pytest.fixture
def memory(tmp_path: Path) -> SavedMemory:
    (tmp_path / "vm").mkdir()
    return SavedMemory(tmp_path / "vm")


def store(memory: SavedMemory, *values: int, key: str = KEY) -> None:
    memory.commit(memory.write(Saved(pages=pages(*values), state=b"state"), key))


def test_it_comes_back_as_it_was(memory: SavedMemory) -> None:
    store(memory, 1, 2, 3)
    saved = memory.read(KEY)
    assert content(saved) == [1, 2, 3]
    assert saved.state == b"state"


def test_written_is_not_saved_until_it_is_committed(memory: SavedMemory) -> None:
    """The writer's thread goes on when a pause is cancelled and its VM told to run on."""
    meta = memory.write(Saved(pages=pages(1), state=b"state"), KEY)
    assert not memory.complete
    memory.commit(meta)
    assert memory.complete


def test_a_new_one_replaces_the_old_from_its_first_byte(memory: SavedMemory) -> None:
    store(memory, 1)
    meta = memory.write(Saved(pages=pages(2), state=b"later"), KEY)
    assert not memory.complete
    memory.commit(meta)
    assert content(memory.read(KEY)) == [2]


def test_forgotten_is_gone(memory: SavedMemory, tmp_path: Path) -> None:
    store(memory, 1)
    memory.forget()
    memory.forget()
    assert not memory.complete
    assert list((tmp_path / "vm").iterdir()) == []
    with pytest.raises(Internal):
        memory.read(KEY)


def test_another_shape_is_refused(memory: SavedMemory) -> None:
    store(memory, 1)
    with pytest.raises(Internal, match="another QEMU"):
        memory.read("1" * 32)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["pages", "state", "meta.json"])
@pytest.mark.parametrize("damage", [_cut, _flip, Path.unlink])
def test_damage_is_noticed(
    memory: SavedMemory, tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    store(memory, 1, 2, 3)
    damage(tmp_path / "vm" / "saved" / name)
    with pytest.raises(Internal):
        memory.read(KEY)


def test_a_copy_lives_on_its_own(memory: SavedMemory, tmp_path: Path) -> None:
    store(memory, 1, 2)
    (tmp_path / "child").mkdir()
    child = SavedMemory(tmp_path / "child")
    memory.copy_to(child)
    memory.forget()
    assert content(child.read(KEY)) == [1, 2]


def test_a_host_short_of_something_is_not_damage() -> None:
    for number in (errno.ENOMEM, errno.EMFILE, errno.ENFILE):
        assert isinstance(unreadable("it", OSError(number, "no")), Unavailable)
    for number in (errno.ENOENT, errno.EIO):
        assert isinstance(unreadable("it", OSError(number, "no")), Internal)


def test_closed_pages_give_their_memory_back(tmp_path: Path) -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count("\n")

    before = mapped()
    many = [pages(1) for _ in range(5)]
    for one in many:
        one.save(tmp_path / f"{id(one)}")
        one.close()
        one.close()
    assert mapped() <= before + 1
    with pytest.raises(ValueError, match="released"):
        content(Saved(pages=_with_run(many[0]), state=b""))


def _with_run(closed: Pages) -> Pages:
    closed.runs = [Run(0, PAGE)]
    return closed
