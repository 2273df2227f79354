"""The engine with real VMs: the contract that the fake of the unit tests is held to as well."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from atoll.base.units import parse_size
from atoll.rpc.messages import Spec, Vm
from contracts.engine import EngineContract, UnderTest, under_test
from framework.atoll import Atoll

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]


def kill(vm: Vm) -> None:
    """As the kernel does it when memory is short."""
    assert vm.pid is not None
    os.kill(vm.pid, signal.SIGKILL)


@pytest_asyncio.fixture(loop_scope="session")
async def engine(atoll: Atoll) -> AsyncIterator[UnderTest]:
    vms = atoll.config.vms
    spec = Spec(
        image=vms.image,
        cpus=vms.cpus,
        memory_bytes=parse_size(vms.memory),
        disk_bytes=parse_size(vms.disk),
    )
    async with under_test(atoll.engine, spec, kill) as made:
        yield made


class TestReal(EngineContract):
    """The contract."""
