"""A clock of the machine that tests can set: libfaketime in every Python process of a test cloud.

HAProxy, QEMU and the tests themselves go on seeing the true time. Time that only passes (deadlines,
pauses) is not touched: a clock that is set does not change that either.
"""

from __future__ import annotations

from pathlib import Path

from atoll.base import atomic

_FILE = "clock"
# The supervisor gives its children no LD_PRELOAD of ours, and should not: each process takes it by
# itself, by starting anew, and does not pass it on: tools in a jail could not load it.
_PRELOAD = """
import os, sys
if "FAKETIME_TIMESTAMP_FILE" not in os.environ:
    os.environ.update({environment!r})
    os.execv(sys.executable, sys.orig_argv)
os.environ.pop("LD_PRELOAD", None)
"""


def install(folder: Path, source: Path) -> None:
    """Put it in force for interpreters that start with `source` on their path; `folder` keeps it."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    environment = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(folder / _FILE),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
    (source / "sitecustomize.py").write_text(_PRELOAD.format(environment=environment))
    set_ahead(folder, 0)


def set_ahead(folder: Path, seconds: int) -> None:
    """From now on the clock is this much ahead of the true one; negative: behind."""
    atomic.write(folder / _FILE, f"{seconds:+d}\n".encode(), mode=0o644)


def forget(pid: int) -> None:
    """Remove what libfaketime leaves of a process that was killed."""
    for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
        Path("/dev/shm", name).unlink(missing_ok=True)
