"""Clocks that jump: that of a guest, and that of the machine under a cloud at work."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from datetime import datetime

import pytest
import pytest_asyncio

from atoll.base.aio import poll
from atoll.base.proc import run
from atoll.host_setup.layout import log_dir
from atoll.services.retention import SWEEP_S
from atoll.supervise import status as supervision
from framework.agreement import agreed, boot_id, new, record_of, replaced, statuses, vm_id
from framework.atoll import Atoll, running_atoll
from framework.clients import client
from framework.clock import forget, set_ahead

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(400)]

HOUR, DAY = 3600, 86400
FOLLOW_S = 60.0  # a guest under emulation needs seconds for a login
NEAR_S = 5.0  # how exactly a login and a round trip tell a guest's time


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def timed() -> AsyncIterator[Atoll]:
    """A cloud whose machine's clock can be set; VMs stay in its trash for a week."""
    async with running_atoll(settable_clock=True, vms={"trash_hours": 7 * 24.0}) as atoll:
        edge = await atoll.pid_of("edge")
        yield atoll
    forget(edge)  # it became HAProxy: libfaketime did not see it end


async def follows(atoll: Atoll, vm: str, ahead_s: int) -> None:
    """Wait until the guest lets us in and tells the machine's time."""
    told = ""

    async def right() -> bool | None:
        nonlocal told
        done = await atoll.ssh("date +%s.%N", user=vm, check=False)
        told = (done.out or done.err).decode().strip()
        return (done.code == 0 and abs(float(told) - time.time() - ahead_s) < NEAR_S) or None

    try:
        await poll(right, seconds=FOLLOW_S, what=f"the machine's time in {vm}", every=0.5)
    except Exception as error:
        raise AssertionError(f"{vm}, at {time.time() + ahead_s}, says {told!r}") from error


async def kill_both(atoll: Atoll) -> None:
    """Engine and control end at once, and others take their place."""
    pids = {child: await atoll.pid_of(child) for child in ("engine", "control")}
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)

    for child, pid in pids.items():
        await replaced(atoll, child, pid)
        forget(pid)
    await agreed(atoll)


async def http_status(atoll: Atoll, token: str) -> int:
    """Of `POST /exec` with the token."""
    https = atoll.config.https
    ca = str(atoll.config.control_state / "keys" / "ca.pem")
    argv = ["curl", "-sS", "--cacert", ca, "-o", "/dev/null", "-w", "%{http_code}",
            "-H", f"authorization: Bearer {token}", "--data-binary", "whoami",
            f"https://{https.domain}:{https.port}/exec"]  # fmt: skip
    return int((await run(argv, seconds=30)).out)


@pytest.mark.parametrize("hours", [5, -5])
async def test_a_guest_that_lost_the_time_is_told_it(timed: Atoll, hours: int) -> None:
    if "late" not in await statuses(timed):
        await new(timed, "late")
    boot = await boot_id(timed, "late")
    wrong = int(time.time()) + hours * HOUR
    said = await timed.ssh(f"sudo date -s @{wrong} >/dev/null; date +%s", user="late")
    assert abs(int(said.out) - wrong) < 60
    set_ahead(timed.folder, 2)  # our own clock is set a little, so that all are told
    await follows(timed, "late", 2)
    set_ahead(timed.folder, 0)
    await follows(timed, "late", 0)
    assert await boot_id(timed, "late") == boot


async def test_two_days_ahead_and_back(timed: Atoll) -> None:
    await new(timed, "keeper")
    record, boot = record_of(timed, vm_id(timed, "keeper")), await boot_id(timed, "keeper")
    await new(timed, "first")
    await timed.command("rm first")
    generate = "ssh-key generate-api-key --cmds whoami"
    day = (await timed.command(f"{generate} --label day --exp 1d"))["token"]
    free = (await timed.command(f"{generate} --label free"))["token"]
    restarts = _restarts(timed)
    assert (await http_status(timed, day), await http_status(timed, free)) == (200, 200)

    async def unmoved() -> None:
        now = record_of(timed, vm_id(timed, "keeper"))
        assert (now.pid, now.pid_started) == (record.pid, record.pid_started)
        assert await boot_id(timed, "keeper") == boot

    argv = ["ssh", *timed.ssh_options(), "keeper@127.0.0.1", "cat"]
    async with client(argv) as session:
        await _talk(session, b"before")
        set_ahead(timed.folder, 2 * DAY)
        await follows(timed, "keeper", 2 * DAY)
        await _talk(session, b"ahead")
        await agreed(timed)
        await unmoved()
    await kill_both(timed)
    await unmoved()
    await follows(timed, "keeper", 2 * DAY)
    assert (await http_status(timed, day), await http_status(timed, free)) == (401, 200)
    for name in ("ahead", "second"):
        await new(timed, name)
    await timed.command("rm second")
    await follows(timed, "ahead", 2 * DAY)

    set_ahead(timed.folder, 0)
    for name in ("keeper", "ahead"):  # the latter's host certificate was made two days from now
        await follows(timed, name, 0)
    await agreed(timed)
    assert (await timed.command("stat ahead"))["points"][0]["uptime_seconds"] >= 0
    assert (await http_status(timed, day), await http_status(timed, free)) == (200, 200)
    await kill_both(timed)
    await unmoved()
    await new(timed, "third")
    await timed.command("rm third")
    for name in ("third", "second", "first"):
        restored = (await timed.command("undo"))["restored"]
        assert [(vm["vm_name"], vm["status"]) for vm in restored] == [(name, "running")]
        await follows(timed, name, 0)
    await timed.command("cp ahead copy")
    await follows(timed, "copy", 0)
    await agreed(timed)

    assert _restarts(timed) == {name: count + 2 for name, count in restarts.items()}
    for path in sorted(log_dir(timed.config).glob("*.log")):
        assert "Traceback" not in path.read_text(errors="replace"), path.name


async def test_the_history_of_a_disk_follows_the_clock(timed: Atoll) -> None:
    quarter, ahead = 15 * 60 + 1, 0
    await new(timed, "kept")

    async def points_later(count: int) -> list[str]:
        """A quarter of an hour later, once it was looked what is due: names of the history's."""
        nonlocal ahead
        ahead += quarter
        set_ahead(timed.folder, ahead)

        async def looked() -> bool | None:
            told = await timed.command("snap history kept")
            due = datetime.fromisoformat(told["next_at"]).timestamp()
            return (due > time.time() + ahead + 60 and told["points"] == count) or None

        await poll(looked, seconds=2 * SWEEP_S, what=f"{count} in the history", every=1)
        listed = (await timed.command("snap ls kept"))["snapshots"]
        return [one["snapshot"] for one in listed if one["reason"] == "history"]

    try:
        await timed.ssh("echo one > note", user="kept")
        (first,) = await points_later(1)
        await timed.ssh("echo two > note", user="kept")
        assert (await timed.command("rollback kept"))["snapshot"] == first
        assert (await timed.ssh("cat note", user="kept")).out == b"one\n"
        await timed.command("pause kept")
        both = await points_later(2)
        assert await points_later(2) == both, "nothing was written"
    finally:
        set_ahead(timed.folder, 0)
    await agreed(timed)


async def _talk(session: asyncio.subprocess.Process, word: bytes) -> None:
    """The open session still answers."""
    assert session.stdin is not None
    assert session.stdout is not None
    session.stdin.write(word + b"\n")
    async with asyncio.timeout(30):
        assert await session.stdout.readline() == word + b"\n"


def _restarts(atoll: Atoll) -> dict[str, int]:
    children = supervision.status(atoll.config.paths.run).children
    return {name: children[name].restarts for name in ("engine", "control")}
