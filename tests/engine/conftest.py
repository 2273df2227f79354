"""What several files of this ring stand on; one that needs another layout has its own by that name."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from atoll.domain.account import Account
from framework.browser import chromium
from framework.edge import Edge, running_edge
from framework.pages import Cloud, serving_pages
from framework.published import private, public
from framework.raw import Recorder, recorder


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="edge")
async def _edge() -> AsyncIterator[Edge]:
    async with running_edge() as edge:
        yield edge


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="web")
async def _web(edge: Edge) -> AsyncIterator[Recorder]:
    """The server of the private VM."""
    async with recorder("web", "127.0.1.1") as web:
        yield web


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="open_vm")
async def _open_vm(edge: Edge) -> AsyncIterator[Recorder]:
    """The server of the public one."""
    async with recorder("open", "127.0.1.2") as open_vm:
        yield open_vm


@pytest_asyncio.fixture(loop_scope="module", name="ann")
async def _ann(edge: Edge, web: Recorder, open_vm: Recorder) -> Account:
    """Owns `web` (private) and `open` (public)."""
    ann = await edge.account(f"ann-{time.monotonic_ns()}@example.com")
    edge.cloud.put(private("web", web.address, ann))
    edge.cloud.put(public("open", open_vm.address, ann))
    await edge.agreed()
    web.clear()
    open_vm.clear()
    return ann


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="cloud")
async def _cloud(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cloud]:
    async with serving_pages(tmp_path_factory.mktemp("pages")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="browser")
async def _browser(
    cloud: Cloud, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Browser]:
    async with chromium(tmp_path_factory.mktemp("home"), authority=cloud.authority) as running:
        yield running
