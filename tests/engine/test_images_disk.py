"""Equal folders become equal disks, byte for byte, whenever and in whatever order they were filled."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from atoll.base import proc
from atoll.base.aio import poll
from atoll.engine.images import manifest
from atoll.engine.images.disk import make_disk, used_inodes

pytestmark = pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="no mkfs.ext4 here")

EPOCH = 1_700_000_000
SIZE = 1 << 30
NAMES = tuple(f"{letter}{number}" for letter in "Aaäz_" for number in range(40))


def fill(root: Path, names: tuple[str, ...]) -> Path:
    """A folder with the same content whatever the order of `names`; read at different times."""
    (root / "etc").mkdir(parents=True)
    for name in names:
        (root / "etc" / name).write_text(name * 999)
        os.utime(root / "etc" / name, (EPOCH + len(os.listdir(root / "etc")), EPOCH))
    os.link(root / "etc/a0", root / "hard")
    (root / "soft").symlink_to("etc/" + "long" * 20)
    with (root / "holes").open("wb") as file:
        file.truncate(1 << 24)
        file.seek(1 << 23)
        file.write(b"x" * 9000)
    for path in (root, root / "etc", root / "holes", root / "soft"):
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
    return root


async def next_second() -> None:
    """Until the clock has moved on: ext4 as mkfs writes it has times in seconds."""
    now = int(time.time())

    async def moved() -> bool | None:
        return int(time.time()) > now or None

    await poll(moved, seconds=5, what="the next second", every=0.05)


async def test_the_same_bytes_from_equal_folders(tmp_path: Path) -> None:
    disks = []
    for number, names in enumerate((NAMES, NAMES[::-1])):
        root = fill(tmp_path / str(number) / "root", names)
        disks.append(tmp_path / f"{number}.qcow2")
        await make_disk(root, disks[-1], size=SIZE, epoch=EPOCH, digest="d")
        await next_second()
    first, second = map(manifest.describe, disks)
    assert first == second
    await make_disk(tmp_path / "0/root", disks[1], size=SIZE, epoch=EPOCH, digest="other")
    assert manifest.describe(disks[1]) != first


async def test_what_is_in_it(tmp_path: Path) -> None:
    root = fill(tmp_path / "root", NAMES)
    await make_disk(root, tmp_path / "disk.qcow2", size=SIZE, epoch=EPOCH, digest="d")
    said = await proc.run(["debugfs", "-R", "stat /hard", str(tmp_path / "disk.raw")], seconds=20)
    facts = said.out.decode()
    assert "Links: 2" in facts
    assert facts.count(f"time: {EPOCH:#x}:00000000") == 4  # changed, read, written, made
    said = await proc.run(["debugfs", "-R", "cat /hard", str(tmp_path / "disk.raw")], seconds=20)
    assert said.out.decode() == "a0" * 999


def test_used_inodes_are_those_not_free() -> None:
    dump = "Inode count:   32\nFree inodes:   14\n\n  Free inodes: 3, 14-16\n  Free inodes: \n"
    dump += "  Free inodes: 21-32\n"
    assert used_inodes(dump) == [2, 11, 12, 13, 17, 18, 19, 20]
