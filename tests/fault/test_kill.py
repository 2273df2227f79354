"""kill -9 of every process, at rest and in the middle of commands.

Each case: a command runs, the engine's record reaches a chosen point (it is on the disk, so the point is
exact), perhaps some milliseconds pass, somebody is killed. Then everything must agree again, the VM that
nobody asked anything of must not have noticed, and the command has happened or has not.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from atoll.base.aio import poll
from atoll.base.errors import AtollError, Conflict, NotFound, Unavailable
from atoll.engine.records import Record
from atoll.rpc.messages import VmState
from framework.agreement import (
    agreed,
    answer_or_error,
    boot_id,
    new,
    read_records,
    record_of,
    replaced,
    statuses,
    vm_id,
)
from framework.atoll import Atoll

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]

BACK_S = 60.0
POINT_S = 60.0
SEED = 20261121


@dataclass(frozen=True, slots=True, kw_only=True)
class Bystander:
    """A running VM that no test touches, and what must stay true of it."""

    name: str
    pid: int
    started: int
    boot: str


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bystander(atoll: Atoll) -> AsyncIterator[Bystander]:
    await new(atoll, "quiet")
    record = record_of(atoll, vm_id(atoll, "quiet"))
    assert record.pid
    assert record.pid_started
    yield Bystander(
        name="quiet",
        pid=record.pid,
        started=record.pid_started,
        boot=await boot_id(atoll, "quiet"),
    )
    await atoll.command("rm quiet")


async def unmoved(atoll: Atoll, vm: Bystander) -> None:
    record = record_of(atoll, vm_id(atoll, vm.name))
    assert (record.pid, record.pid_started) == (vm.pid, vm.started)
    assert await boot_id(atoll, vm.name) == vm.boot


async def kill(atoll: Atoll, child: str) -> None:
    """SIGKILL, and wait until the supervisor has started another."""
    pid = await atoll.pid_of(child)
    os.kill(pid, signal.SIGKILL)
    await replaced(atoll, child, pid)


@pytest.mark.parametrize("child", ["engine", "control", "edge"])
async def test_at_rest_nobody_notices(atoll: Atoll, bystander: Bystander, child: str) -> None:
    await kill(atoll, child)
    await agreed(atoll)
    await unmoved(atoll, bystander)


# -- in the middle of commands


Reached = Callable[[Record], bool]


def _intent(kind: str) -> Reached:
    return lambda record: record.intent is not None and record.intent.kind == kind


def _process(kind: str) -> Reached:
    return lambda record: _intent(kind)(record) and record.pid is not None


def _no_process(kind: str) -> Reached:
    return lambda record: _intent(kind)(record) and record.state is VmState.PAUSED


def _off(kind: str) -> Reached:
    return lambda record: _intent(kind)(record) and record.pid is None


def _from_memory(kind: str) -> Reached:
    return lambda record: _process(kind)(record) and record.state is VmState.PAUSED


def _booting(kind: str) -> Reached:
    return lambda record: _process(kind)(record) and record.state is VmState.STOPPED


COMMANDS: dict[str, tuple[str, tuple[Reached, ...]]] = {
    "new": ("new --name made", (_intent("create"), _process("create"))),
    "cp": ("cp target made", (_intent("clone"), _process("clone"))),
    "pause": ("pause target", (_intent("pause"), _no_process("pause"))),
    "resume": ("resume target", (_intent("resume"), _process("resume"))),
    "rm": ("rm target", (_intent("pause"), _no_process("pause"))),
    "snap": ("snap target kept", (_intent("snapshot"),)),
    "rollback": (
        "rollback target base",
        (_intent("rollback"), _off("rollback"), _booting("rollback")),
    ),
    "snap --live": ("snap target kept --live", (_intent("snapshot"),)),
    "rollback --live": (
        "rollback target live",
        (
            _intent("rollback"),
            _off("rollback"),
            _no_process("rollback"),
            _from_memory("rollback"),
        ),
    ),
}
SNAPS, ROLLBACKS = ("snap", "snap --live"), ("rollback", "rollback --live")
BOOTS = ("new", *ROLLBACKS)  # the machine may be another one afterwards


def _cases() -> Iterator[tuple[str, str, int, float]]:
    """Every command, each point of its record, and some time after it; the same on every run."""
    spread = random.Random(SEED)
    for command, (_line, points) in COMMANDS.items():
        for number in range(len(points)):
            yield "engine", command, number, 0.0
        point = spread.randrange(len(points))
        yield "engine", command, point, round(spread.uniform(0.005, 0.4), 3)
        yield "control", command, spread.randrange(len(points)), round(spread.uniform(0, 0.2), 3)
    yield "edge", "new", 0, 0.0


async def _target(atoll: Atoll, wanted: str) -> None:
    """The VM `target`, in the state the command needs; `made` not there."""
    found = await statuses(atoll)
    if "made" in found:
        await atoll.command("rm made")
    if "target" not in found:
        await new(atoll, "target")
    elif found["target"] != wanted:
        await atoll.command(f"{'resume' if wanted == 'running' else 'pause'} target")


async def _snapshots(atoll: Atoll) -> set[str]:
    return {one["snapshot"] for one in (await atoll.command("snap ls target"))["snapshots"]}


async def _marked(atoll: Atoll, command: str) -> None:
    """A `snap` is of a name that is free; a `rollback` goes back to before there was a file."""
    there = await _snapshots(atoll)
    if command in SNAPS and "kept" in there:
        await atoll.command("snap rm target kept")
    if command in ROLLBACKS:
        for name, live in (("base", ""), ("live", " --live")):
            if name not in there:
                await atoll.command(f"snap target {name}{live}")
        await atoll.ssh("touch mark; sync", user="target")


async def _at(atoll: Atoll, reached: Reached, task: asyncio.Task[object]) -> bool:
    """Return at the moment a record is at the point; False when the command was faster."""
    before = {record.vm: record.intent for record in read_records(atoll)}

    def watch() -> bool:
        end = time.monotonic() + POINT_S
        while time.monotonic() < end and not task.done():
            for record in read_records(atoll):
                if record.intent != before.get(record.vm) and reached(record):
                    return True
        return False

    return await asyncio.to_thread(watch)


@pytest.mark.parametrize(("child", "command", "point", "after_s"), list(_cases()))
async def test_in_the_middle_of_a_command(
    atoll: Atoll, bystander: Bystander, child: str, command: str, point: int, after_s: float
) -> None:
    line, points = COMMANDS[command]
    if command != "new":
        await _target(atoll, "paused" if command == "resume" else "running")
    elif "made" in await statuses(atoll):
        await atoll.command("rm made")
    if command in (*SNAPS, *ROLLBACKS):
        await _marked(atoll, command)
    was = await statuses(atoll)
    boot = await boot_id(atoll, "target") if was.get("target") == "running" else None

    pid = await atoll.pid_of(child)
    task = asyncio.get_running_loop().create_task(answer_or_error(atoll, line))
    await _at(atoll, points[point], task)
    await asyncio.sleep(after_s)
    os.kill(pid, signal.SIGKILL)
    answer = await task
    await replaced(atoll, child, pid)
    await agreed(atoll)

    await unmoved(atoll, bystander)
    now = await statuses(atoll)
    if isinstance(answer, AtollError):
        assert isinstance(answer, Unavailable | Conflict | NotFound), repr(answer)
    await _is_one_or_the_other(atoll, command, was, now, isinstance(answer, AtollError), boot)


async def _is_one_or_the_other(
    atoll: Atoll,
    command: str,
    was: dict[str, str],
    now: dict[str, str],
    failed: bool,
    boot: str | None,
) -> None:
    after = {
        "new": {**was, "made": "running"},
        "cp": {**was, "made": "running"},
        "pause": {**was, "target": "paused"},
        "resume": {**was, "target": "running"},
        "rm": {name: status for name, status in was.items() if name != "target"},
        **dict.fromkeys((*SNAPS, *ROLLBACKS), was),
    }[command]
    assert now in ([was, after] if failed else [after])
    for name in ("made", "target"):
        if now.get(name) == "running":
            seen = await boot_id(atoll, name)  # it answers
            if boot is not None and command not in BOOTS:
                assert seen == boot, f"{name} was booted anew"
    if command in SNAPS:
        assert failed or "kept" in await _snapshots(atoll)
    if command in ROLLBACKS:
        marked = await atoll.ssh("test -e mark", user="target", check=False)
        assert failed or marked.code == 1
        errors = "sudo dmesg --level err,crit,alert,emerg | grep -i ext4"
        assert (await atoll.ssh(errors, user="target", check=False)).out == b""


# -- inside the VM


async def test_a_killed_qemu_is_a_stopped_vm_with_a_reason_and_a_whole_disk(atoll: Atoll) -> None:
    await new(atoll, "hit")
    await atoll.ssh("echo kept > note; sync", user="hit")
    record = record_of(atoll, vm_id(atoll, "hit"))
    assert record.pid
    os.kill(record.pid, signal.SIGKILL)

    async def stopped() -> dict[str, str] | None:
        (vm,) = [vm for vm in (await atoll.command("ls"))["vms"] if vm["vm_name"] == "hit"]
        return vm if vm["status"] == "stopped" else None

    shown = await poll(stopped, seconds=BACK_S, what="noticing the end of a QEMU", every=0.2)
    assert "qemu ended" in shown["problem"]
    await agreed(atoll)
    refused = await atoll.ssh("true", user="hit", check=False)
    assert refused.code != 0
    await atoll.command("restart hit")
    assert (await atoll.ssh("cat note", user="hit")).out == b"kept\n"
    assert "problem" not in next(
        vm for vm in (await atoll.command("ls"))["vms"] if vm["vm_name"] == "hit"
    )


async def test_a_killed_guest_agent_comes_back(atoll: Atoll) -> None:
    show = "systemctl show -p MainPID --value atoll-agent.service"
    before = (await atoll.ssh(show, user="hit")).out
    await atoll.ssh("sudo systemctl kill -s KILL atoll-agent.service", user="hit")

    async def another() -> bool | None:
        now = (await atoll.ssh(show, user="hit")).out
        return True if now not in (before, b"0\n") else None

    await poll(another, seconds=BACK_S, what="another guest agent", every=0.5)
    await atoll.command("cp hit hit-copy")
    assert (await atoll.ssh("cat note; hostname", user="hit-copy")).out == b"kept\nhit-copy\n"
    await atoll.command("rm hit hit-copy")
    await agreed(atoll)
