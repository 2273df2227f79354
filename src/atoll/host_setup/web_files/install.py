"""The folder of files that control serves: complete and as declared, or not touched.

It is beside the Python packages that it belongs to, so a build brings its own, and root owns both.
A new one is made under another name and swapped in; a control that runs has read the old one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from atoll.base import atomic
from atoll.base.errors import Unavailable
from atoll.host_setup.web_files.archive import unpack
from atoll.host_setup.web_files.declared import Package
from atoll.host_setup.web_files.registry import Registry

RECORD = "installed.json"  # what the folder was made from, and every file's sha256
Progress = Callable[[str], None]


def is_installed(folder: Path, packages: Sequence[Package]) -> bool:
    """Whether `folder` holds exactly what is declared, unharmed."""
    try:
        record = json.loads((folder / RECORD).read_text())
        if record["declared"] != _digest(packages):
            return False
        wanted = {name for package in packages for name in package.files.values()}
        found = {name: _sha256((folder / name).read_bytes()) for name in wanted}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(record.get("files") == found)


def install(
    folder: Path, packages: Sequence[Package], registry: Registry, progress: Progress
) -> bool:
    """Make `folder` as declared; False when it was. Raises Unavailable and leaves the old one."""
    if is_installed(folder, packages):
        return False
    files: dict[str, bytes] = {}
    for package in packages:
        progress(package.shown)
        files |= unpack(registry.archive(package), package)
    try:
        _swap_in(folder, files, _digest(packages))
    except OSError as error:
        raise Unavailable(f"cannot write {folder}: {error.strerror}") from error
    return True


def _swap_in(folder: Path, files: Mapping[str, bytes], declared: str) -> None:
    new, old = (folder.with_name(f".{folder.name}.{end}") for end in ("new", "old"))
    for left in (new, old):  # of an earlier run that was cut off
        shutil.rmtree(left, ignore_errors=True)
    new.mkdir(parents=True, mode=0o755)
    new.chmod(0o755)  # whatever the umask: control is not root
    for name, data in files.items():
        atomic.write(new / name, data, mode=0o644)
        (new / name).chmod(0o644)
    record = {"declared": declared, "files": {name: _sha256(data) for name, data in files.items()}}
    atomic.write_json(new / RECORD, record, mode=0o644)
    if folder.exists():
        os.rename(folder, old)
    os.rename(new, folder)
    atomic.sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _digest(packages: Sequence[Package]) -> str:
    return _sha256(json.dumps([asdict(package) for package in packages], sort_keys=True).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
