"""Commands in a VM for the other doors, with a real OpenSSH sshd as the VM.

Its login user is whoever runs the tests, and root when that is root: then sshd takes no signals.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.base.errors import Unavailable
from atoll.doors.ssh.run import Runner
from contracts.run_in_vm import RunInVmContract, Start, collected, pids
from framework.gateway import ANN, ground


@pytest.fixture(name="start")
async def _start(tmp_path: Path) -> AsyncIterator[Start]:
    async with ground(tmp_path) as here:
        runner, route = Runner(opener=here.door), here.town.routes[ANN.id, "web"]
        yield lambda command: runner.run_in_vm(route, command)


class TestOpenSsh(RunInVmContract):
    """The contract."""


async def test_a_vm_that_goes_away_is_said(start: Start) -> None:
    items = start("echo $$ $PPID; exec sleep 600")
    shell, session = await pids(items)
    os.kill(session, signal.SIGKILL)  # the sshd of this connection
    with pytest.raises(Unavailable, match="web"):
        async with asyncio.timeout(10):
            await collected(items)
    os.kill(shell, signal.SIGKILL)
