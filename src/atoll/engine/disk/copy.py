"""A second name or a copy of an immutable file, whole and synced when this returns."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

_FICLONE = 0x40049409
_CHUNK = 64 << 20


def link_or_copy(source: Path, target: Path) -> None:
    """Reflink if the file system can, else a hard link, else a sparse copy.

    A hard link shares the inode, so `source` must be a file that nobody ever writes again.
    """
    if _reflink(source, target):
        return
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            raise
        _copy(source, target)


def copy(source: Path, target: Path) -> None:
    """A file of its own: a reflink if the file system can, else a sparse copy."""
    if not _reflink(source, target):
        _copy(source, target)


def _reflink(source: Path, target: Path) -> bool:
    with source.open("rb") as old, target.open("xb") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
        except OSError as error:
            target.unlink()
            if error.errno in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY):
                return False
            raise
        os.fsync(new.fileno())
    return True


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as old, target.open("xb") as new:
        size, at = os.fstat(old.fileno()).st_size, 0
        os.ftruncate(new.fileno(), size)
        with contextlib.suppress(_NoMoreData):
            while at < size:
                at = _seek_data(old.fileno(), at)
                end = os.lseek(old.fileno(), at, os.SEEK_HOLE)
                while at < end:
                    data = os.pread(old.fileno(), min(_CHUNK, end - at), at)
                    os.pwrite(new.fileno(), data, at)
                    at += len(data)
        os.fsync(new.fileno())


class _NoMoreData(Exception):
    """Only a hole is left."""


def _seek_data(fd: int, at: int) -> int:
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise _NoMoreData from error
        raise
