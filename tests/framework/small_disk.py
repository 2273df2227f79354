"""File systems small enough to be filled: an ext4 in a file for the pool, a tmpfs for the store."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from atoll.base.proc import run

TOOL_S = 60.0
_MIB = 1 << 20
_BLOCK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallDisks:
    """`state` lies on the ext4; its folder `control` is the tmpfs."""

    state: Path

    @property
    def control(self) -> Path:
        """Where control keeps the store."""
        return self.state / "control"


@asynccontextmanager
async def small_disks(*, state_bytes: int, control_bytes: int) -> AsyncIterator[SmallDisks]:
    """Mounted for the body; gone after it, whatever happened in it."""
    folder = Path(tempfile.mkdtemp(prefix="atoll-small-", dir="/var/tmp"))
    folder.chmod(0o755)
    disks = SmallDisks(state=folder / "state")
    disks.state.mkdir()
    image = folder / "disk.img"
    with image.open("wb") as file:
        file.truncate(state_bytes)
    try:
        # No blocks kept for root: a full pool is then as full for the engine as on XFS.
        await run(["mkfs.ext4", "-q", "-m", "0", str(image)], seconds=TOOL_S)
        await run(["mount", "-o", "loop", str(image), str(disks.state)], seconds=TOOL_S)
        disks.control.mkdir()
        size = f"size={control_bytes // _MIB}m"
        await run(["mount", "-t", "tmpfs", "-o", size, "atoll-store", str(disks.control)],
                  seconds=TOOL_S)  # fmt: skip
        yield disks
    finally:
        for mount in (disks.control, disks.state):
            if os.path.ismount(mount):
                await run(["umount", str(mount)], seconds=TOOL_S)
        shutil.rmtree(folder)


def fill(folder: Path, *, leave_bytes: int) -> Path:
    """Take all space of the file system of `folder` but this; remove the file to give it back."""
    path = folder / "ballast-of-a-test"
    with path.open("wb") as file:
        size, step = 0, 64 * _MIB
        while step >= _BLOCK:
            facts = os.statvfs(folder)
            free_bytes = facts.f_bavail * facts.f_frsize - leave_bytes
            try:  # the file's own index takes blocks, too, so the last ones are taken one by one
                os.posix_fallocate(file.fileno(), size, max(min(step, free_bytes), _BLOCK))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                step //= 2
            else:
                size = os.fstat(file.fileno()).st_size
            if free_bytes <= step and leave_bytes:
                break
    return path
