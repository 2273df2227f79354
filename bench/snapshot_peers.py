"""Other ways to keep a disk, timed on the same file: a full copy, a snapshot inside qcow2, restic.

Each is done as its own documentation has it, with nothing asked to sync at the end: what they wrote
may still be in the page cache when they say they are done. What earlier steps left there is written
out before each; nothing is dropped from it, so all but the first read the disk from memory.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

CHANGED_MIB = 64
KEEPING = {
    "copy": "`qemu-img convert`",
    "internal": "`qemu-img snapshot -c`",
    "restic first": "restic's first backup",
    "restic next": f"its next after {CHANGED_MIB} MiB changed",
}
GOING_BACK = {"internal back": "`qemu-img snapshot -a`", "restic back": "restic's restore"}
_TOOL_S = 300


def measure(disk: Path, folder: Path, *, size_bytes: int) -> dict[str, float]:
    """Milliseconds of each way, once. Nobody may have `disk` open; it is in the end what it was.

    At most as much again as the disk is taken in `folder`, and given back.
    """
    changed, copied = folder / "changed", folder / "copy.qcow2"
    repository = folder / "restic"
    took: dict[str, float] = {}
    try:
        changed.write_bytes(os.urandom(CHANGED_MIB << 20))
        took["copy"] = _timed("qemu-img", "convert", "-O", "qcow2", str(disk), str(copied))
        took["internal"] = _timed("qemu-img", "snapshot", "-c", "one", str(copied))
        _change(copied, changed, size_bytes)
        took["internal back"] = _timed("qemu-img", "snapshot", "-a", "one", str(copied))
        copied.unlink()
        restic = _restic(repository, disk.parent)
        restic("init")
        took["restic first"], said = _clocked(lambda: restic("backup", "--json", disk.name))
        first = json.loads(said.splitlines()[-1])["snapshot_id"]
        _change(disk, changed, size_bytes)
        took["restic next"], _ = _clocked(lambda: restic("backup", disk.name))
        took["restic back"], _ = _clocked(lambda: restic("restore", first, "--target", "."))
    finally:
        changed.unlink(missing_ok=True)
        copied.unlink(missing_ok=True)
        shutil.rmtree(repository, ignore_errors=True)
    return took


def _restic(repository: Path, where: Path) -> Callable[..., str]:
    """Runs restic in the folder of the disk: a backup by a relative name is restored by that."""
    repository.mkdir()
    environment = {
        **os.environ,
        "RESTIC_REPOSITORY": str(repository / "repository"),
        "RESTIC_CACHE_DIR": str(repository / "cache"),
        "RESTIC_PASSWORD": secrets.token_hex(16),
    }

    def run(*arguments: str) -> str:
        return _tool("restic", "--quiet", *arguments, cwd=where, environment=environment)

    return run


def _change(disk: Path, source: Path, size_bytes: int) -> None:
    """In the middle of the disk."""
    length = min(CHANGED_MIB << 20, size_bytes // 2)
    command = f"write -q -s {source} {size_bytes // 2 >> 16 << 16} {length}"
    _tool("qemu-io", "-f", "qcow2", "-c", command, str(disk))


def _timed(*argv: str) -> float:
    return _clocked(lambda: _tool(*argv))[0]


def _clocked(act: Callable[[], str]) -> tuple[float, str]:
    os.sync()
    began = time.perf_counter()
    said = act()
    return (time.perf_counter() - began) * 1000, said


def _tool(*argv: str, cwd: Path | None = None, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=_TOOL_S, check=False, cwd=cwd, env=environment
    )
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout
