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
from pathlib import Path

from atoll.base import proc
from atoll.base.errors import Conflict
from atoll.domain.layers import LayerId, Merge
from atoll.engine.disk.blockdev import BlockOptions
from atoll.engine.disk.copy import copy
from atoll.engine.disk.locks import is_written
from atoll.engine.disk.pool import Pool


async def merge_layers(pool: Pool, step: Merge, *, options: BlockOptions, seconds: float) -> None:
    """Do `step`. Unlink what is garbage after it, and `LiveDisk.renew` the VMs that run on it.

    Raises Conflict when the graph does not allow it (any more), ToolFailed when qemu-img fails,
    Unavailable past `seconds`; nothing has changed then.
    """
    pool.graph.after(step)
    if is_written(pool.path(step.into)):  # its head is made, but its QEMU has not switched yet
        hint = "Try again in a moment"
        raise Conflict(f"layer {step.into} is still being written", hint=hint)
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
