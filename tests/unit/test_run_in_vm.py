"""Commands in a VM for the other doors, with an sshd that takes signals, as one does for no root."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from atoll.domain.account import Route
from atoll.doors.ssh.run import Runner
from contracts.run_in_vm import RunInVmContract, Start
from fakes.sshd import FakeSshd
from framework.gateway import ANNS

ROUTE = Route(
    vm_id="vm-1", vm_name="web", address="127.0.0.1", login_user="atoll", host_ca="", caller=ANNS
)


@pytest.fixture(name="start")
async def _start() -> AsyncIterator[Start]:
    async with FakeSshd().serving() as vm:
        runner = Runner(opener=vm)
        yield lambda command: runner.run_in_vm(ROUTE, command)


class TestFake(RunInVmContract):
    """The contract."""
