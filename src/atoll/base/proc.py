"""Run a tool: argument vectors only, a deadline always, the whole process group killed after it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from atoll.base.errors import Unavailable
from atoll.base.timeout import timeout


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A tool that ended: its exit code and what it printed (bytes, not decoded)."""

    code: int
    out: bytes
    err: bytes


class ToolFailed(Unavailable):
    """A tool ended with a code other than 0, or was not found."""

    code = "tool-failed"

    def __init__(self, argv: Sequence[str], finished: Finished) -> None:
        said = (finished.err or finished.out).decode(errors="replace").strip()[-1500:]
        super().__init__(f"`{' '.join(argv)[:300]}` ended with {finished.code}: {said}")
        self.finished = finished


async def run(
    argv: Sequence[str],
    *,
    seconds: float,
    stdin: bytes | None = None,
    check: bool = True,
    env: dict[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Finished:
    """Run `argv` to its end and return what it printed.

    Raises ToolFailed when `check` and the exit code is not 0, Unavailable past `seconds`.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=env,
            cwd=cwd,
            pass_fds=pass_fds,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise Unavailable(f"{argv[0]} is not installed", hint="Try: atoll doctor") from error
    try:
        async with timeout(seconds):
            out, err = await process.communicate(stdin)
    except TimeoutError as error:
        raise Unavailable(f"`{' '.join(argv)[:300]}` took over {seconds:g} s") from error
    finally:
        if process.returncode is None:
            kill_group(process.pid)
            await asyncio.shield(process.wait())
    finished = Finished(code=process.returncode or 0, out=out, err=err)
    if check and finished.code != 0:
        raise ToolFailed(argv, finished)
    return finished


def kill_group(pid: int) -> None:
    """SIGKILL the process group led by `pid`; a group already gone is fine."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
