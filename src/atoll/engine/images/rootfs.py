"""Blocking work on a root file system in a folder: what goes in, and what it is once it is full.

Everything here is deterministic: sorted order, fixed owners, no time later than the archive's.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import stat
import tarfile
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from atoll.base.errors import Internal, Unavailable
from atoll.engine.images.recipe import sources

# Written by tools while they install; they differ between two equal builds and help nobody.
_LITTER = (
    "var/cache/ldconfig/aux-cache",
    "var/cache/debconf/*-old",
    "var/lib/dpkg/*-old",
    "var/log/*.log",
    "var/log/apt/*",
    "var/log/btmp",
    "var/log/wtmp",
    "var/log/lastlog",
    "var/log/faillog",
    "etc/*-",
    "etc/.pwd.lock",
    "etc/resolv.conf.*",
    "run/*",
    "tmp/*",
)


def pack_sources(target: Path) -> None:
    """A tar of what recipes copy into every image: root's, 0644 or 0755."""
    folders: set[str] = set()
    now = time.time()
    wanted: list[tuple[Path | None, str]] = [*sources(), (None, "usr/lib/atoll/atoll/__init__.py")]
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, mode: int, data: bytes | None) -> None:
            member = tarfile.TarInfo(name)
            member.mode, member.mtime = mode, now  # tidy brings it down to the archive's date
            if data is None:
                member.type = tarfile.DIRTYPE
            else:
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data or b""))

        for path, inside in wanted:
            for name in map(str, reversed(Path(inside).parents)):
                # Only our own folders are made: others keep the mode their package gave them.
                if name.startswith(("usr/lib/atoll", "etc/atoll")) and name not in folders:
                    folders.add(name)
                    add(name, 0o755, None)
            data = path.read_bytes() if path is not None else b""
            mode = 0o755 if path is not None and path.stat().st_mode & 0o100 else 0o644
            add(inside, mode, data)


def tidy(root: Path, epoch: int) -> None:
    """Remove litter and let no file be newer than `epoch` (seconds), the date of the archive."""
    for pattern in _LITTER:
        for path in root.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    for name in ("etc/.updated", "var/.updated"):  # systemd: nothing to rebuild at first boot
        (root / name).write_text(f"TIMESTAMP_NSEC={epoch}000000000\n")
    for folder, folders, files in os.walk(root, topdown=False):
        for name in (*folders, *files, "."):
            entry = os.path.join(folder, name)
            if os.lstat(entry).st_mtime > epoch:
                os.utime(entry, (epoch, epoch), follow_symlinks=False)


def tree_sha256(root: Path) -> str:
    """One hash over path, type, mode, owner and content of everything under `root`."""
    sha = hashlib.sha256()
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted([*folders, *files]):
            path = os.path.join(folder, name)
            facts = os.lstat(path)
            relative = os.path.relpath(path, root)
            sha.update(f"{relative!r} {facts.st_mode:o} {facts.st_uid}:{facts.st_gid} ".encode())
            if stat.S_ISREG(facts.st_mode):
                with open(path, "rb") as file:
                    sha.update(hashlib.file_digest(file, "sha256").digest())
            elif stat.S_ISLNK(facts.st_mode):
                sha.update(os.readlink(path).encode("utf-8", "surrogateescape"))
    return sha.hexdigest()


def packages(root: Path) -> dict[str, str]:
    """Name -> version of every installed package."""
    found = {}
    for entry in (root / "var/lib/dpkg/status").read_text().split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Status): (.*)$", entry, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            found[fields["Package"]] = fields["Version"]
    return dict(sorted(found.items()))


def unpacked(root: Path) -> int:
    """How many packages there are so far, while it is being filled."""
    return sum(1 for _ in (root / "var/lib/dpkg/info").glob("*.list"))


def take_boot_files(root: Path, kernel: Path, initrd: Path) -> str:
    """Move the kernel and its initial file system out of `root`; returns the kernel's release."""
    kernels = sorted((root / "boot").glob("vmlinuz-*"))
    if len(kernels) != 1:
        raise Internal(f"the image has {len(kernels)} kernels instead of one")
    release = kernels[0].name.removeprefix("vmlinuz-")
    made = root / "boot" / f"initrd.img-{release}"
    if not made.exists():
        raise Internal(f"the image has no initial file system for {release}")
    shutil.move(kernels[0], kernel)
    shutil.move(made, initrd)
    return release


def archive_date(dates: str) -> datetime:
    """The newest of the `Date:` lines of the archive's release files."""
    found = [
        parsedate_to_datetime(line.removeprefix("Date:").strip())
        for line in dates.splitlines()
        if line.startswith("Date:")
    ]
    if not found:
        raise Unavailable("the package archive's release files carry no date")
    return max(found).astimezone(UTC)
