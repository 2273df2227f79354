"""The supervisor seen from outside: is there one, what does it run, start it, stop it.

Invariant: the lock file says whether a supervisor lives; the status file only adds facts.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from atoll.base.aio import poll
from atoll.base.errors import Conflict, Unavailable
from atoll.supervise.child import inherited_environment

LOCK = "supervise.lock"


@dataclass(slots=True)
class Watch:
    """What the status file says of one child; times are seconds since the epoch."""

    pid: int | None = None
    since: float = 0.0
    restarts: int = 0
    last_exit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A read status file. `is_alive` is the lock's word, not the file's."""

    is_alive: bool
    pid: int = 0
    build: str = ""
    children: dict[str, Watch] = field(default_factory=dict)


def status_path(run_dir: Path) -> Path:
    """Where the supervisor says what it runs."""
    return run_dir / "supervise.json"


def status(run_dir: Path) -> Status:
    """The supervisor of `run_dir`, or a dead one."""
    if not _is_locked(run_dir):
        return Status(is_alive=False)
    try:
        raw = json.loads(status_path(run_dir).read_bytes())
        return Status(
            is_alive=True,
            pid=int(raw["pid"]),
            build=str(raw["build"]),
            children={name: Watch(**watch) for name, watch in raw["children"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError):
        return Status(is_alive=True)  # it has just begun, or is just ending


def start(argv: Sequence[str], *, log_path: Path, env: dict[str, str]) -> int:
    """Start the supervisor in a session of its own, detached from the caller; return its pid."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        argv[0],
        list(argv),
        {**inherited_environment(), **env},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log_path), flags, 0o640),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            # Else a lock or a pipe of whoever called us would be held as long as we run.
            *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable() if fd > 2),
        ],
        setsid=True,
    )


def _inheritable() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own descriptor is closed again
            if os.get_inheritable(int(name)):
                found.append(int(name))
    return found


async def stop(run_dir: Path, *, seconds: float) -> None:
    """SIGTERM to the supervisor, and wait until it and its children have ended.

    Raises Unavailable after `seconds`. None running is fine.
    """

    async def ended() -> bool | None:
        found = status(run_dir)
        if found.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(found.pid, signal.SIGTERM)
        return None if found.is_alive else True

    await poll(ended, seconds=seconds, what="stopping the supervisor")


@asynccontextmanager
async def hold(run_dir: Path) -> AsyncIterator[None]:
    """Be the one supervisor of the run directory. Raises Conflict when there is one.

    A reader of `status` has the lock for a moment, so this tries for a second.
    """
    fd = os.open(run_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    async def taken() -> bool | None:
        return True if _try_lock(fd) else None

    try:
        try:
            await poll(taken, seconds=1.0, what="the lock of the supervisor", every=0.02)
        except Unavailable as error:
            raise Conflict(
                f"a supervisor already runs for {run_dir}", hint="Try: atoll status"
            ) from error
        yield
    finally:
        os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_locked(run_dir: Path) -> bool:
    try:
        fd = os.open(run_dir / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(fd)
    finally:
        os.close(fd)
