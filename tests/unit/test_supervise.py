"""The supervisor with real processes: shells that sleep, fail, or refuse to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from atoll.base.aio import TaskGroup, poll
from atoll.base.errors import Conflict
from atoll.supervise import status as supervision
from atoll.supervise import supervisor
from atoll.supervise.child import Child, inherited_environment, privileges
from atoll.supervise.supervisor import Supervisor, rotate

SLEEPER = ("sleep", "600")


@asynccontextmanager
async def supervised(folder: Path, children: Sequence[Child]) -> AsyncIterator[None]:
    """A supervisor in this very process; told to stop by a signal as in real life."""
    one = Supervisor(children=children, run_dir=folder, log_dir=folder, build="b1")
    async with TaskGroup() as group:
        task = group.create_task(one.run())
        await seen(folder, lambda watches: all(watches[child.name].pid for child in children))
        try:
            yield
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(task, 10)


async def seen(folder: Path, check: object) -> dict[str, supervision.Watch]:
    """The children of the status file as soon as `check` holds for them."""

    async def look() -> dict[str, supervision.Watch] | None:
        children = supervision.status(folder).children
        try:
            return children if check(children) else None  # type: ignore[operator]
        except KeyError:
            return None

    return await poll(look, seconds=10, what="the status file", every=0.02)


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_killed_child_is_started_again(tmp_path: Path) -> None:
    async with supervised(tmp_path, [Child(name="a", argv=SLEEPER)]):
        first = supervision.status(tmp_path).children["a"].pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        again = await seen(tmp_path, lambda c: c["a"].pid not in (None, first))
        assert again["a"].restarts == 1
        assert again["a"].last_exit == -signal.SIGKILL


async def test_all_children_end_with_it_and_the_status_goes(tmp_path: Path) -> None:
    async with supervised(tmp_path, [Child(name=n, argv=SLEEPER) for n in ("a", "b")]):
        pids = [watch.pid for watch in supervision.status(tmp_path).children.values()]
    assert all(pid is not None and not exists(pid) for pid in pids)
    assert supervision.status(tmp_path) == supervision.Status(is_alive=False)


async def test_children_stop_in_reverse_order(tmp_path: Path) -> None:
    def child(name: str) -> Child:
        trap = f"trap 'echo {name} >> {tmp_path}/order; exit 0' TERM"
        return Child(name=name, argv=("sh", "-c", f"{trap}; echo up; while :; do sleep 0.02; done"))

    async with supervised(tmp_path, [child("engine"), child("control")]):
        await ready(tmp_path, "engine", "control")
    assert (tmp_path / "order").read_text().split() == ["control", "engine"]


async def test_a_child_that_ignores_sigterm_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "STOP_S", 0.2)
    stubborn = Child(
        name="a", argv=("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.02; done")
    )
    async with supervised(tmp_path, [stubborn]):
        await ready(tmp_path, "a")
        pid = supervision.status(tmp_path).children["a"].pid
    assert pid is not None
    assert not exists(pid)


async def test_the_processes_of_a_child_are_left_alone(tmp_path: Path) -> None:
    """As an engine's QEMU: started by a child, in the child's own session or another."""
    script = f"sleep 600 & echo $! > {tmp_path}/grandchild; echo up; wait"
    async with supervised(tmp_path, [Child(name="a", argv=("sh", "-c", script))]):
        await ready(tmp_path, "a")
        grandchild = int((tmp_path / "grandchild").read_text())
        first = supervision.status(tmp_path).children["a"].pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await seen(tmp_path, lambda c: c["a"].pid not in (None, first))
        assert exists(grandchild)
        os.kill(grandchild, signal.SIGKILL)
        await ready(tmp_path, "a", times=2)
        os.kill(int((tmp_path / "grandchild").read_text()), signal.SIGKILL)


async def test_a_program_that_is_not_there_is_tried_again(tmp_path: Path) -> None:
    program = tmp_path / "late"
    one = Supervisor(
        children=[Child(name="a", argv=(str(program),))], run_dir=tmp_path, log_dir=tmp_path
    )
    async with TaskGroup() as group:
        task = group.create_task(one.run())
        await seen(tmp_path, lambda c: c["a"].restarts >= 1)
        program.write_text("#!/bin/sh\nsleep 600\n")
        program.chmod(0o755)
        watches = await seen(tmp_path, lambda c: c["a"].pid and running(c["a"].pid, "late"))
        assert watches["a"].last_exit == 127
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(task, 10)


async def test_there_is_one_supervisor_per_folder(tmp_path: Path) -> None:
    async with supervised(tmp_path, [Child(name="a", argv=SLEEPER)]):
        with pytest.raises(Conflict, match="already runs"):
            await Supervisor(children=[], run_dir=tmp_path, log_dir=tmp_path).run()


def test_a_log_over_its_limit_moves_and_writers_go_on(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"old" * 10)
        rotate(path, limit_bytes=10)
        writer.write(b"new")
    assert path.read_bytes() == b"new"
    assert (tmp_path / "a.log.1").read_bytes() == b"old" * 10
    rotate(path, limit_bytes=10)
    assert path.read_bytes() == b"new"


def test_a_user_without_privileges_gets_none() -> None:
    argv = privileges(Child(name="a", argv=(), user="root", low_ports=True))
    assert argv[:4] == ("setpriv", "--pdeathsig", "TERM", "--reuid")
    assert argv[argv.index("--bounding-set") + 1] == "-all,+net_bind_service"
    assert "--no-new-privs" in argv
    plain = privileges(Child(name="a", argv=(), user="root"))
    assert plain[plain.index("--ambient-caps") + 1] == "-all"


def test_secrets_in_the_environment_stay_with_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("LD_PRELOAD", "/tmp/x.so")
    assert not {"AWS_SECRET_ACCESS_KEY", "LD_PRELOAD"} & set(inherited_environment())


async def ready(folder: Path, *names: str, times: int = 1) -> None:
    """Every named child has written `up` to its log that many times."""

    async def look() -> bool | None:
        logs = [folder / f"{name}.log" for name in names]
        return all(log.read_text().count("up\n") >= times for log in logs) or None

    await poll(look, seconds=10, what="the children", every=0.02)


def running(pid: int, program: str) -> bool:
    try:
        return program in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False
