"""`atoll serve supervise` as the detached process that `atoll up` starts, with the real edge as child.

The edge waits for control's first files here, which never come; that is all this needs of it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.base.aio import poll
from atoll.config import Config, Control, Network, Paths, render
from atoll.host_setup.processes import Supervised, build
from atoll.supervise import status as supervision
from atoll.supervise.status import Status


@pytest.fixture
async def config(tmp_path: Path) -> AsyncIterator[Config]:
    """Settings in a file; whatever supervisor the test leaves is stopped."""
    config = Config(
        paths=Paths(state=tmp_path / "state", run=tmp_path / "run", cache=tmp_path / "cache"),
        network=Network(instance="tsup"),
        control=Control(user="daemon"),
    )
    (tmp_path / "run/edge").mkdir(parents=True)
    (tmp_path / "state/log").mkdir(parents=True)
    (tmp_path / "atoll.toml").write_text(render(config))
    yield config
    await supervision.stop(config.paths.run, seconds=40)


def start(config: Config) -> int:
    return supervision.start(
        (sys.executable, "-m", "atoll", "serve", "supervise", "--only", "edge"),
        log_path=config.paths.state / "log/supervise.log",
        env={"ATOLL_CONFIG": str(config.paths.state.parent / "atoll.toml")},
    )


async def running(config: Config) -> Status:
    async def look() -> Status | None:
        found = supervision.status(config.paths.run)
        return found if found.children and found.children["edge"].pid else None

    return await poll(look, seconds=20, what="the supervisor")


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


async def gone(pid: int) -> None:
    """Whatever it has become: the edge's process becomes HAProxy."""

    async def look() -> bool | None:
        return not command(pid) or None

    await poll(look, seconds=20, what=f"the end of process {pid}")


async def unheld(config: Config) -> None:
    """The kernel lets go of what a killed process held when it has ended it, not when it is told to."""

    async def look() -> bool | None:
        return None if supervision.status(config.paths.run).is_alive else True

    await poll(look, seconds=20, what="the supervisor's lock")


async def test_it_runs_detached_and_stops_when_told(config: Config) -> None:
    pid = start(config)
    found = await running(config)
    assert (found.pid, found.build) == (pid, build(config))
    assert os.getsid(pid) == pid, "a session of its own: the caller's terminal may go"
    facts = await Supervised(config=config, config_path=Path("/nonexistent")).facts()
    assert facts["edge"].startswith(f"running, pid {found.children['edge'].pid}, restarts 0")
    await supervision.stop(config.paths.run, seconds=40)
    await gone(pid)
    assert not supervision.status(config.paths.run).is_alive


async def test_children_end_with_a_killed_supervisor(config: Config) -> None:
    pid = start(config)
    child = (await running(config)).children["edge"].pid
    assert child is not None
    os.kill(pid, signal.SIGKILL)
    await gone(child)
    await unheld(config)
    again = start(config)

    async def taken_over() -> (
        bool | None
    ):  # until it writes its own, the killed one's status is read
        return (await running(config)).pid == again or None

    await poll(taken_over, seconds=20, what="the second supervisor")


async def test_a_second_one_refuses(config: Config) -> None:
    first = start(config)
    await running(config)
    second = start(config)
    _pid, status = await asyncio.to_thread(os.waitpid, second, 0)
    assert os.waitstatus_to_exitcode(status) == 75
    assert supervision.status(config.paths.run).pid == first
    log = (config.paths.state / "log/supervise.log").read_text()
    assert "a supervisor already runs" in log


async def test_it_holds_no_descriptor_of_its_caller(config: Config) -> None:
    """`flock file atoll up` must give the lock back when `atoll up` ends."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    try:
        pid = start(config)
        await running(config)
        held = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}
        assert os.readlink(f"/proc/self/fd/{writing}") not in held
    finally:
        os.close(reading)
        os.close(writing)
