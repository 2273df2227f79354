"""Shorten chains: replace a frozen layer by a file that also holds the layers below it.

The work is done by `qemu-img` on files that nobody writes, so no running QEMU takes part and a VM may
be cloned, stopped or deleted meanwhile. QEMU's own jobs were tried and are not used: block-stream
ends the process on chains like ours, and both jobs lose data when QEMU is killed just after them
(docs/adr/0003).

Invariant: a frozen file is never written. The new file takes its place by one rename, whole and
synced; whoever has the old one open goes on reading it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
from pathlib import Path

from atoll.base import proc
from atoll.base.errors import Conflict
from atoll.domain.layers import LayerId, Merge
from atoll.engine.disk.blockdev import BlockOptions
from atoll.engine.disk.copy import copy
from atoll.engine.disk.pool import Pool

# QEMU holds a read lock on this byte of a file it may write: 100 + the bit of BLK_PERM_WRITE.
_WRITE_LOCK_BYTE = 101
_FLOCK = struct.Struct("hhqqi4x")
_F_OFD_GETLK = 36


async def merge_layers(pool: Pool, step: Merge, *, options: BlockOptions, seconds: float) -> None:
    """Do `step`. Unlink what is garbage after it, and `LiveDisk.renew` the VMs that run on it.

    Raises Conflict when the graph does not allow it (any more), ToolFailed when qemu-img fails,
    Unavailable past `seconds`; nothing has changed then.
    """
    pool.graph.after(step)
    _refuse_written(pool, step.into)
    temporary = pool.temporary(step.into)
    try:
        await asyncio.to_thread(copy, pool.path(step.into), temporary)
        await proc.run(_argv(pool, step.base, temporary, options), seconds=seconds)
        await asyncio.to_thread(pool.replace, step, temporary)
    finally:
        temporary.unlink(missing_ok=True)


def _argv(pool: Pool, base: LayerId, temporary: Path, options: BlockOptions) -> list[str]:
    """Copy into `temporary` what differs between its old parent and `base`, at low priority."""
    cache = "none" if options.direct else "writeback"
    argv = ["nice", "-n", "19", "qemu-img", "rebase", "-q", "-t", cache, "-T", cache]
    argv += ["-f", "qcow2", "-F", "qcow2", "-b", pool.backing_name(base), str(temporary)]
    return argv


def _refuse_written(pool: Pool, layer: LayerId) -> None:
    """Raise Conflict when a QEMU may still write to the layer: its switch is not done yet."""
    fd = os.open(pool.path(layer), os.O_RDONLY | os.O_CLOEXEC)
    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _WRITE_LOCK_BYTE, 1, 0)
        (kind, *_) = _FLOCK.unpack(fcntl.fcntl(fd, _F_OFD_GETLK, asked))
    finally:
        os.close(fd)
    if kind != fcntl.F_UNLCK:
        raise Conflict(f"layer {layer} is still being written", hint="Try again in a moment")
