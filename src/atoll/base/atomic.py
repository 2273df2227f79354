"""Files that are either the old content or the new one after any crash."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any


def write(path: Path, data: bytes, *, mode: int = 0o600, exact: bool = False) -> None:
    """Replace `path`: temporary file beside it, fsync, rename, fsync of the folder.

    `exact`: the mode is that under any umask.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            if exact:
                os.fchmod(fd, mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any, *, mode: int = 0o600) -> None:
    """`write` of sorted, indented JSON."""
    write(path, json.dumps(value, indent=1, sort_keys=True).encode() + b"\n", mode=mode)


def remove(path: Path) -> None:
    """Unlink durably; a missing file is fine."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make renames and unlinks in `path` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
