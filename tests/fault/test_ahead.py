"""A template being made in the background when the engine ends: soon, and nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from atoll.base.aio import poll
from atoll.engine.launch import start_time
from framework.agreement import read_records
from framework.atoll import Atoll, running_atoll

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

BEGIN_S = 90.0
END_S = 15.0  # undoing takes a second or two; a unit that stops is killed after 30


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def building() -> AsyncIterator[Atoll]:
    """A cloud whose default size has no template, here or in the cache. At the end it goes down."""
    memory = f"{520 + secrets.randbelow(200)}M"
    async with running_atoll(vms={"memory": memory}) as atoll:
        yield atoll


def process_of(vm: str) -> int | None:
    """Its QEMU; the record of such a VM does not tell."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"guest={vm},".encode() in path.read_bytes():
                return int(path.parent.name)
    return None


async def begun(atoll: Atoll, *, but: str = "") -> str:
    """The VM that a template is being made of, once it runs."""

    async def look() -> str | None:
        found = [r.vm for r in read_records(atoll) if r.owner == "system" and r.vm != but]
        return found[0] if found and process_of(found[0]) is not None else None

    return await poll(look, seconds=BEGIN_S, what="a build", every=0.1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_the_next_engine_starts_over(building: Atoll, number: signal.Signals) -> None:
    vm = await begun(building)
    pid = await building.pid_of("engine")
    os.kill(pid, number)

    async def ended() -> bool | None:
        return start_time(pid) is None or None

    await poll(ended, seconds=END_S, what="the end of the engine", every=0.02)
    if number == signal.SIGTERM:
        assert process_of(vm) is None, "undone before it ended"
        assert vm not in {record.vm for record in read_records(building)}
    assert await begun(building, but=vm) != vm
    assert process_of(vm) is None
    assert vm not in {record.vm for record in read_records(building)}
    assert not list((building.config.pool / "layers").glob(f"{vm}-*"))
