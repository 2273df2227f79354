"""Work on a root file system in a folder."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from atoll.base.errors import Internal, Unavailable
from atoll.engine.images import rootfs

EPOCH = 1_700_000_000


def small_root(root: Path) -> Path:
    """A root with a few files, made anew each time."""
    for folder in ("etc", "var/log", "var/cache/ldconfig", "run", "tmp", "boot"):
        (root / folder).mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0\n")
    (root / "etc/passwd-").write_text("old\n")
    (root / "var/log/dpkg.log").write_text("noise\n")
    (root / "run/lock").mkdir()
    (root / "etc/mtab").symlink_to("../proc/self/mounts")
    return root


def test_tidy_removes_litter_and_dates_nothing_after_the_archive(tmp_path: Path) -> None:
    root = small_root(tmp_path)
    os.utime(root / "etc/passwd", (5, 5))
    rootfs.tidy(root, EPOCH)
    assert not (root / "etc/passwd-").exists()
    assert not (root / "var/log/dpkg.log").exists()
    assert list((root / "run").iterdir()) == []
    times = {path.lstat().st_mtime for path in [root, *root.rglob("*")]}
    assert times == {5, EPOCH}


def test_the_tree_hash_sees_content_mode_links_and_names(tmp_path: Path) -> None:
    first, second = small_root(tmp_path / "a"), small_root(tmp_path / "b")
    assert rootfs.tree_sha256(first) == rootfs.tree_sha256(second)
    seen = {rootfs.tree_sha256(first)}
    (second / "etc/passwd").write_text("other\n")
    seen.add(rootfs.tree_sha256(second))
    (second / "etc/passwd").chmod(0o600)
    seen.add(rootfs.tree_sha256(second))
    (second / "etc/mtab").unlink()
    seen.add(rootfs.tree_sha256(second))
    (second / "etc/mtab").symlink_to("elsewhere")
    seen.add(rootfs.tree_sha256(second))
    assert len(seen) == 5


def test_packages_are_those_installed(tmp_path: Path) -> None:
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(
        "Package: b\nStatus: install ok installed\nVersion: 2\nDescription: x\n Version: 9\n\n"
        "Package: a\nStatus: hold ok installed\nVersion: 1:1-1\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nVersion: 3\n"
    )
    assert rootfs.packages(tmp_path) == {"a": "1:1-1", "b": "2"}


def test_boot_files_are_taken_out(tmp_path: Path) -> None:
    root = small_root(tmp_path / "root")
    with pytest.raises(Internal, match="0 kernels"):
        rootfs.take_boot_files(root, tmp_path / "k", tmp_path / "i")
    (root / "boot/vmlinuz-6.12-cloud").write_text("kernel")
    with pytest.raises(Internal, match="initial file system"):
        rootfs.take_boot_files(root, tmp_path / "k", tmp_path / "i")
    (root / "boot/initrd.img-6.12-cloud").write_text("initrd")
    assert rootfs.take_boot_files(root, tmp_path / "k", tmp_path / "i") == "6.12-cloud"
    assert (tmp_path / "k").read_text() == "kernel"
    assert list((root / "boot").iterdir()) == []


def test_the_archive_date_is_the_newest() -> None:
    dates = "Date: Sat, 15 Nov 2025 10:00:00 UTC\nDate: Thu, 20 Nov 2025 02:00:00 UTC\n"
    assert rootfs.archive_date(dates).isoformat() == "2025-11-20T02:00:00+00:00"
    with pytest.raises(Unavailable):
        rootfs.archive_date("Origin: x\n")


def test_the_sources_are_packed_as_roots(tmp_path: Path) -> None:
    rootfs.pack_sources(tmp_path / "sources.tar")
    with tarfile.open(tmp_path / "sources.tar") as tar:
        members = {member.name: member for member in tar.getmembers()}
    assert all((m.uid, m.gid) == (0, 0) for m in members.values())
    assert members["usr/lib/atoll/atoll/guest"].isdir()
    assert members["usr/lib/atoll/atoll/__init__.py"].size == 0
    assert members["usr/lib/atoll/atoll/guest/agent.py"].mode == 0o644
    assert "etc" not in members, "a package's folder keeps its mode"
