"""Commands in a VM for the other doors, with a real OpenSSH sshd as the VM.

Its login user is whoever runs the tests. When that is root, sshd takes no signals.
"""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.base.errors import Unavailable
from atoll.doors.ssh.run import Runner
from contracts.run_in_vm import RunInVmContract, Start, collected, gone, pids
from framework.gateway import ANN, ground


@pytest.fixture(name="start")
async def _start(tmp_path: Path) -> AsyncIterator[Start]:
    async with ground(tmp_path) as here:
        runner, route = Runner(opener=here.door), here.town.routes[ANN.id, "web"]
        yield lambda command: runner.run_in_vm(route, command)


class TestOpenSsh(RunInVmContract):
    """The contract, and what a signal alone would not do."""

    @pytest.mark.parametrize(
        "command",
        [
            # As the reference SDK runs a command: in a session of its own, watched from outside,
            # by a watcher that does not outlive the process group.
            "setsid sleep 600 & echo $$ $!; wait",
            "setsid sh -c 'setsid sleep 600 & echo $$ $!; wait' & wait",
            "(sleep 600 & echo $$ $!); sleep 600",  # an orphan in the group
        ],
    )
    async def test_closing_kills_all_descendants(self, start: Start, command: str) -> None:
        items = start(command)
        found = await pids(items)
        await items.aclose()
        for pid in found:
            await gone(pid)

    async def test_closing_kills_what_goes_on_forking(self, start: Start) -> None:
        mark = uuid.uuid4().hex
        items = start(f"echo $$; while :; do sh -c 'sleep 600 # {mark}' & sleep 0.002; done")
        (shell,) = await pids(items)
        await items.aclose()
        await gone(shell)
        left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if mark in _text(path)]
        assert left == []

    async def test_what_a_command_left_behind_is_not_waited_for(self, start: Start) -> None:
        items = start("setsid sh -c 'echo $$; exec sleep 600'")  # setsid itself ends at once
        (left,) = await pids(items)
        async with asyncio.timeout(2):
            await items.aclose()
        os.kill(left, signal.SIGKILL)

    async def test_other_commands_of_the_same_user_go_on(self, start: Start) -> None:
        other, items = start("echo $$; sleep 600"), start("echo $$; sleep 600")
        (kept,), (ended,) = await pids(other), await pids(items)
        await items.aclose()
        await gone(ended)
        os.kill(kept, 0)
        await other.aclose()
        await gone(kept)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


async def test_a_vm_that_goes_away_is_said(start: Start) -> None:
    items = start("echo $$ $PPID; exec sleep 600")
    shell, session = await pids(items)
    os.kill(session, signal.SIGKILL)  # the sshd of this connection
    with pytest.raises(Unavailable, match="web"):
        async with asyncio.timeout(10):
            await collected(items)
    os.kill(shell, signal.SIGKILL)
