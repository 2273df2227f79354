"""The small supervisor: runs its children until it is told to stop.

Invariants: one supervisor per run directory (a lock held while it lives); a child that dies is
started again after a growing pause; a child ends with the supervisor (parent-death signal), so
nothing runs unwatched. It only ever signals its own children: a VM's QEMU is not one of them and
lives on through every restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

from atoll.base import atomic, log
from atoll.base.aio import TaskGroup
from atoll.base.timeout import timeout
from atoll.supervise.child import Child, inherited_environment, privileges
from atoll.supervise.status import Watch, hold, status_path

FIRST_PAUSE_S = 0.2  # before the first restart; doubled for each that follows at once
LONGEST_PAUSE_S = 10.0
STEADY_S = 5.0  # a child that lived this long starts with the first pause again
STOP_S = 20.0  # SIGTERM to SIGKILL
LOG_LIMIT_BYTES = 10 << 20  # a log is moved to `.1` beyond this; one old file is kept
LOG_CHECK_S = 30.0
FILES_SOFT, FILES_HARD = 1 << 16, 1 << 20  # what the systemd units ask for, too
_log = log.get("supervise")


class Supervisor:
    """Runs `children` until SIGTERM; stops them in reverse order."""

    def __init__(
        self, *, children: Sequence[Child], run_dir: Path, log_dir: Path, build: str = ""
    ) -> None:
        self._children = tuple(children)
        self._run_dir = run_dir
        self._log_dir = log_dir
        self._build = build
        self._watches = {child.name: Watch() for child in children}

    async def run(self) -> None:
        """Keep the children running; return after SIGTERM or SIGINT, when all have ended.

        Raises Conflict when another supervisor holds the run directory.
        """
        stop = asyncio.Event()
        async with hold(self._run_dir):
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            _log.info("supervisor started", pid=os.getpid(), build=self._build)
            try:
                async with TaskGroup() as group:
                    rotating = group.create_task(self._rotate())
                    keeping = [
                        (group.create_task(self._keep(child)), child) for child in self._children
                    ]
                    await stop.wait()
                    rotating.cancel()
                    for task, _child in reversed(keeping):
                        task.cancel()
                        await asyncio.wait([task])
            finally:
                status_path(self._run_dir).unlink(missing_ok=True)
                _log.info("supervisor stopped")

    async def _keep(self, child: Child) -> None:
        watch, pause = self._watches[child.name], FIRST_PAUSE_S
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                async with self._running(child) as process:
                    watch.last_exit = await process.wait()
            except OSError as error:  # no memory, a full disk, a missing tool: it may pass
                _log.warning("child cannot start", child=child.name, reason=str(error))
            watch.restarts += 1
            self._write_status()
            pause = FIRST_PAUSE_S if loop.time() - began > STEADY_S else pause
            _log.warning("child ended", child=child.name, code=watch.last_exit, again_in_s=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    @asynccontextmanager
    async def _running(self, child: Child) -> AsyncIterator[asyncio.subprocess.Process]:
        """The child, started now and ended when the body is left."""
        watch = self._watches[child.name]
        sink = os.open(self._log_path(child), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        try:
            process = await asyncio.create_subprocess_exec(
                *privileges(child),
                *child.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env={**inherited_environment(), **child.env},
                cwd="/",
                start_new_session=True,  # a Ctrl-C or a group signal at our terminal is not its
            )
        finally:
            os.close(sink)
        watch.pid, watch.since = process.pid, time.time()
        self._write_status()
        _log.info("child started", child=child.name, pid=process.pid)
        try:
            yield process
        finally:
            if process.returncode is None:
                await _end(process, child.name)
            watch.pid = None

    async def _rotate(self) -> None:
        """Copy and truncate: the children hold their log open for appending and never notice."""
        while True:
            for name in ("supervise", *self._watches):
                rotate(self._log_dir / f"{name}.log")
            await asyncio.sleep(LOG_CHECK_S)

    def _log_path(self, child: Child) -> Path:
        return self._log_dir / f"{child.name}.log"

    def _write_status(self) -> None:
        picture = {
            "pid": os.getpid(),
            "build": self._build,
            "children": {name: asdict(watch) for name, watch in self._watches.items()},
        }
        try:
            atomic.write_json(status_path(self._run_dir), picture, mode=0o644)
        except OSError as error:  # a full /run must not end the children
            _log.warning("status not written", reason=str(error))


async def _end(process: asyncio.subprocess.Process, name: str) -> None:
    """SIGTERM, then SIGKILL; to this process only, for its group is not ours to judge."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        _log.warning("child did not stop", child=name, seconds=STOP_S)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def allow_many_files() -> None:
    """For this process and its children: an edge of a thousand VMs holds thousands of connections.

    As many as we may have, where a container does not let us raise the limit.
    """
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_SOFT, FILES_HARD))
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES_SOFT, hard), hard))


def rotate(path: Path, *, limit_bytes: int = LOG_LIMIT_BYTES) -> None:
    """Move the content of an oversized log to `<name>.1`, keeping the inode writers hold."""
    if not path.exists() or path.stat().st_size <= limit_bytes:
        return
    older = path.with_name(path.name + ".1")
    try:
        shutil.copyfile(path, older)
    except OSError:  # no room: the newest lines matter more than the old ones
        older.unlink(missing_ok=True)
    os.truncate(path, 0)
