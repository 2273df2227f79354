"""The fake engine, which tests of the control half stand on, is held to the real one's contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.rpc.client import EngineClient
from atoll.rpc.messages import GIB, Spec
from contracts.engine import EngineContract, UnderTest, under_test
from fakes.engine import FakeEngine


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[UnderTest]:
    fake = FakeEngine(tmp_path / "engine.sock")
    client = EngineClient(socket=fake.path)
    spec = Spec(image="debian", cpus=1, memory_bytes=1 * GIB, disk_bytes=8 * GIB)
    async with fake.serving():
        async with under_test(client, spec, kill=lambda vm: fake.die(vm.vm)) as made:
            yield made
        await client.close()


class TestFake(EngineContract):
    """The contract."""
