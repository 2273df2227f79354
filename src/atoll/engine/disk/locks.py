"""QEMU's file locks, asked and never taken: who has an image open, and who may write it.

QEMU holds a shared lock on one byte for each permission it uses (from 100) and for each it forbids
others (from 200): block/file-posix.c, raw_apply_lock_bytes. Any lock there means "open".
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

_USED, _FORBIDDEN, _PERMISSIONS = 100, 200, 64
_WRITE = 1  # the bit of BLK_PERM_WRITE
_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux
_F_OFD_GETLK = 36


def is_open(path: Path) -> bool:
    """Whether some QEMU has this image open."""
    return _locked(path, _USED, _FORBIDDEN + _PERMISSIONS - _USED)


def is_written(path: Path) -> bool:
    """Whether some QEMU may write to this image."""
    return _locked(path, _USED + _WRITE, 1)


def _locked(path: Path, start: int, length: int) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
        kind: int = _FLOCK.unpack(fcntl.fcntl(fd, _F_OFD_GETLK, asked))[0]
    finally:
        os.close(fd)
    return kind != fcntl.F_UNLCK
