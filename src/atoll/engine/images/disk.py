"""The disk of an image: a folder into ext4, ext4 into a sparse qcow2; the same folder, the same bytes.

The base is qcow2 rather than raw: qemu-img keeps holes on every file system (a raw copy over the
network or by `cp` would not), reads at depth one are as fast (storage measurements: 1.03 of raw),
and the overlays' clusters line up with its own: 128 KiB with subclusters in every layer.

mkfs takes its ids and its clock from us, and goes through folders in order of name. What it cannot
be told is the times it copies: reading a file sets its access time, and nothing sets a change time
back, so both are set in the file system that came out.
"""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path

from atoll.base import proc
from atoll.base.errors import Internal

_NAMESPACE = uuid.UUID("5f0c7a43-8a1c-4b6e-9d57-a70110000001")
_SECONDS = 600.0
_ROOT_INODE, _FIRST_INODE = 2, 11  # between them: the journal and others that only mkfs dates


async def make_disk(root: Path, disk: Path, *, size: int, epoch: int, digest: str) -> None:
    """The folder `root` as `disk` of `size` bytes, by way of a raw one beside `root`.

    Its ids come from `digest`. Raises ToolFailed, also when the file system is not clean.
    """
    raw = root.parent / "disk.raw"
    fs_id = uuid.uuid5(_NAMESPACE, digest)
    # The first is for newer e2fsprogs; names sort by bytes in the locale C only.
    clock = {"SOURCE_DATE_EPOCH": str(epoch), "E2FSPROGS_FAKE_TIME": str(epoch)}
    env = {**os.environ, **clock, "LC_ALL": "C"}
    with raw.open("wb") as file:
        file.truncate(size)
    options = f"hash_seed={fs_id},root_owner=0:0,lazy_itable_init=1,nodiscard"
    # A new file reads as zeros, so nothing is left to zero later, in every VM.
    options += ",assume_storage_prezeroed=1"
    mkfs = ["mkfs.ext4", "-q", "-F", "-L", "atoll", "-U", str(fs_id), "-J", "size=64"]
    mkfs += ["-E", options, "-d", str(root), str(raw)]
    await proc.run(mkfs, seconds=_SECONDS, env=env)
    await _set_times(raw, epoch, env)
    await proc.run(["e2fsck", "-fn", str(raw)], seconds=_SECONDS, env=env)
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2"]
    convert += ["-o", "cluster_size=128k,extended_l2=on,lazy_refcounts=off", str(raw), str(disk)]
    await proc.run(convert, seconds=_SECONDS)


async def _set_times(raw: Path, epoch: int, env: dict[str, str]) -> None:
    """Change and access time of everything in the file system `raw`."""
    said = await proc.run(["dumpe2fs", str(raw)], seconds=_SECONDS, env=env)
    script = raw.with_name("times.debugfs")
    with script.open("w") as file:
        for number in used_inodes(said.out.decode(errors="replace")):
            for time in ("ctime", "atime"):
                file.write(f"set_inode_field <{number}> {time} @{epoch}\n")
    argv = ["debugfs", "-w", "-f", str(script), str(raw)]
    done = await proc.run(argv, seconds=_SECONDS, env=env)
    # It ends with 0 whatever happened; its first line is its version.
    if complaints := done.err.decode(errors="replace").splitlines()[1:]:
        raise Internal(f"debugfs could not set times in {raw}: {complaints[0]}")


def used_inodes(dump: str) -> list[int]:
    """Numbers of the inodes that hold files, from what dumpe2fs prints; Internal if it is unclear."""
    if (total := re.search(r"^Inode count: +(\d+)$", dump, re.MULTILINE)) is None:
        raise Internal("dumpe2fs did not say how many inodes there are")
    free: set[int] = set()
    for ranges in re.findall(r"^  Free inodes: ([\d, -]+)$", dump, re.MULTILINE):
        for first, _, last in (part.partition("-") for part in ranges.split(", ")):
            free.update(range(int(first), int(last or first) + 1))
    numbers = (_ROOT_INODE, *range(_FIRST_INODE, int(total[1]) + 1))
    return [number for number in numbers if number not in free]
