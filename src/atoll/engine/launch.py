"""Start a QEMU that can do nothing but run its VM, and that outlives the engine.

Invariant: before the program's first instruction the process is in its control group, in the jail, in
network, IPC and UTS namespaces of its own, has the VM's uid, no capability, no way to get one, and
no descriptor but those passed. If any step fails the program does not start.

The steps are standard tools, each of which execs the next (about 5 ms in all): no Python runs
between fork and exec. The shell that starts the chain ends at once, so the process is a child of
init, not ours: an engine that restarts `adopt`s it and finds the same handle either way.

No PID namespace: the jail's /proc hides other processes, another uid cannot be signalled, and QEMU's
own filter denies fork and exec; a namespace would add a process per VM and a second pid for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import shlex
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atoll.base import proc
from atoll.base.errors import Unavailable
from atoll.base.timeout import timeout
from atoll.engine.cgroup import Group
from atoll.engine.jail import Jail

START_SECONDS = 10.0
OPEN_FILES = 1024  # QEMU: about 30, one per disk layer, and one per request in flight
STDERR_BYTES = 64 << 10  # what a QEMU may say in its life; it says nothing, or why it ends
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A running or ended program. (pid, start_time) names it for ever; `handle` is a pidfd.

    `start_time` is in clock ticks since boot (/proc/PID/stat, field 22).
    """

    pid: int
    start_time: int
    handle: int
    stderr: int

    def alive(self) -> bool:
        """False from the moment it ended, also before init has collected it."""
        poller = select.poll()
        poller.register(self.handle, select.POLLIN)
        return not poller.poll(0)

    async def wait_exit(self, seconds: float | None) -> bool:
        """Whether it ended within `seconds`; None waits for ever."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        handle = os.dup(self.handle)  # the loop takes one reader per descriptor
        loop.add_reader(handle, ended.set)
        try:
            async with timeout(seconds):
                await ended.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(handle)
            os.close(handle)
        return True

    def kill(self) -> None:
        """SIGKILL; ended already is fine. Never reaches another process of the same pid."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)

    def said(self) -> str:
        """The first 64 KiB of its stderr and stdout."""
        if self.stderr < 0:
            return ""
        text = os.pread(self.stderr, STDERR_BYTES, 0)
        return text.rstrip(b"\0").decode(errors="replace").strip()

    def close(self) -> None:
        """Let go of the descriptors; the process goes on."""
        os.close(self.handle)
        if self.stderr >= 0:
            os.close(self.stderr)


async def launch(
    argv: Sequence[str],
    *,
    jail: Jail,
    group: Group,
    uid: int,
    pass_fds: Sequence[int] = (),
    file_bytes: int | None = None,
) -> Process:
    """Start `argv` isolated, as `uid` (and the gid of the same number).

    Descriptors keep their numbers. A file opened again as /proc/self/fd/N needs a mode that lets
    `uid` open it; the folders above it do not matter. `file_bytes` is the largest any file may
    grow (writes beyond fail with EFBIG). Raises Unavailable when it cannot join its group or ends
    before it is seen; a program that ends right after says why in `said()`.
    """
    stderr = _bounded_file()
    script = render(
        argv,
        entrance=jail.entrance,
        procs=group.procs,
        uid=uid,
        output=Path(f"/proc/{os.getpid()}/fd/{stderr}"),
        file_bytes=file_bytes,
    )
    try:
        started = await proc.run(
            ["sh", "-euc", script],
            seconds=START_SECONDS,
            pass_fds=pass_fds,
            env={"PATH": _PATH, "LC_ALL": "C"},
        )
        process = _open(int(started.out), stderr=stderr)
        if process is None:
            said = os.pread(stderr, STDERR_BYTES, 0).rstrip(b"\0").decode(errors="replace")
            raise Unavailable(f"`{argv[0]}` did not start: {said.strip()[-1500:]}")
    except BaseException:
        group.kill()  # nothing else can be in it
        os.close(stderr)
        raise
    return process


def adopt(pid: int, start_time: int) -> Process | None:
    """The process an earlier engine started; None when it has ended."""
    process = _open(pid, stderr=-1)
    if process is None:
        return None
    if process.start_time != start_time:
        process.close()
        return None
    try:
        stderr = os.open(f"/proc/{pid}/fd/2", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return process
    return Process(pid=pid, start_time=start_time, handle=process.handle, stderr=stderr)


def render(
    argv: Sequence[str],
    *,
    entrance: Path,
    procs: Sequence[Path],
    uid: int,
    output: Path,
    file_bytes: int | None,
) -> str:
    """The shell script that starts `argv` in the background and prints its pid. Pure."""
    if uid <= 0:
        raise ValueError(f"uid {uid} is not an unprivileged one")
    # The shell joins and its child inherits: the group holds the program before its pid is known.
    joins = "".join(f"echo 0 > {shlex.quote(str(path))}\n" for path in procs)
    # `<>` as the file is of fixed size: truncating it or appending to it is refused.
    steps = [f"exec </dev/null 1<>{shlex.quote(str(output))} 2>&1", "umask 077"]
    steps += ["ulimit -c 0", f"ulimit -n {OPEN_FILES}"]
    if file_bytes is not None:
        # Ignored signals stay ignored across exec: the write fails instead of killing the VM.
        steps += ["trap '' XFSZ", f"ulimit -f {-(-file_bytes // 512)}"]
    chain = ["nsenter", f"--mount={entrance}", "--"]
    chain += ["unshare", "--net", "--ipc", "--uts", "--"]
    chain += ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs"]
    chain += ["--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--"]
    steps += [f"exec {shlex.join([*chain, *argv])}"]
    body = "\n".join(f"  {step}" for step in steps)
    return f"{joins}{{\n{body}\n}} &\necho $!\n"


def start_time(pid: int) -> int | None:
    """Clock ticks since boot; None when there is no such process, or only its remains."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold anything
    return None if fields[0] in ("Z", "X") else int(fields[19])


def _open(pid: int, *, stderr: int) -> Process | None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    began = start_time(pid)  # after the handle is held, or it could be another's
    if began is None:
        os.close(handle)
        return None
    return Process(pid=pid, start_time=began, handle=handle, stderr=stderr)


def _bounded_file() -> int:
    """A memory file that cannot grow: no reader needed, no disk to fill, gone with its last user."""
    fd = os.memfd_create("atoll-stderr", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, STDERR_BYTES)
    seals = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd
