"""One second Atoll for the ring, whose processes, files and VMs the tests kill and damage."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from framework.atoll import Atoll, running_atoll


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def atoll() -> AsyncIterator[Atoll]:
    """Started once; at the end nothing of it may be left in the kernel."""
    async with running_atoll() as running:
        yield running
