"""Ballast in the pool: space that can be given back when everything else is full.

A full pool stops its VMs (`werror=enospc`); without some space left nothing can be merged or deleted
durably to help them. Invariant: the file's blocks are allocated, or the file is not there.
"""

from __future__ import annotations

import os
from pathlib import Path

from atoll.base import atomic
from atoll.base.errors import Exhausted, Invalid
from atoll.base.units import show_size


class Reserve:
    """The file `<pool>/reserve` of `size_bytes`. The methods block: call them in a thread."""

    def __init__(self, pool: Path, size_bytes: int) -> None:
        if size_bytes <= 0:
            raise Invalid(f"a reserve of {size_bytes} bytes is none")
        self._path = pool / "reserve"
        self._size_bytes = size_bytes

    @property
    def held_bytes(self) -> int:
        """What it holds now: its size, or 0 while released."""
        try:
            return self._path.stat().st_blocks * 512
        except FileNotFoundError:
            return 0

    def hold(self) -> None:
        """Take the space, or leave it if it is held. Raises Exhausted when the pool is too full.

        As much again must be free: ballast that fills the pool by itself would help nobody.
        """
        if self.held_bytes >= self._size_bytes:
            return
        facts = os.statvfs(self._path.parent)
        free_bytes = facts.f_bavail * facts.f_frsize + self.held_bytes
        if free_bytes < 2 * self._size_bytes:
            raise Exhausted(
                f"the pool has {show_size(free_bytes)} free, too little for a reserve of"
                f" {show_size(self._size_bytes)}",
                hint="Free space, or set engine.reserve lower",
            )
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, self._size_bytes)
            os.ftruncate(fd, self._size_bytes)
            os.fsync(fd)
        except OSError as error:
            self.release()
            raise Exhausted(f"the pool is too full for its reserve: {error}") from error
        finally:
            os.close(fd)
        atomic.sync_folder(self._path.parent)

    def release(self) -> None:
        """Give the space back; released already is fine."""
        atomic.remove(self._path)
