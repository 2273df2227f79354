"""The pages over HTTP are those that `doc` prints, for anybody, and nothing else is reached there."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from atoll.commands.addresses import Addresses
from atoll.commands.error_pages import CODES, ERROR_PAGES
from atoll.commands.library import Library
from atoll.commands.verbs import REGISTRY
from atoll.config import Config
from atoll.doors.api import exec as exec_door
from atoll.doors.api.docs import Docs
from atoll.doors.front.app import Front

LIBRARY = Library(registry=REGISTRY, addresses=Addresses(Config()))


async def _as_json(*_: object) -> None:
    """No pages for people."""


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    front = Front(
        names=Addresses(Config()).names, cloud=Docs(LIBRARY).routes(), vm=(), refuse=_as_json
    )
    transport = httpx2.ASGITransport(app=front.app())
    async with httpx2.AsyncClient(transport=transport, base_url="https://atoll.localhost") as made:
        yield made


async def test_every_page_is_what_doc_prints(client: httpx2.AsyncClient) -> None:
    for page in LIBRARY:
        answer = await client.get(f"/docs/{page.slug}.md")
        assert (answer.status_code, answer.text) == (200, LIBRARY.find([page.slug]) + "\n")
        assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
        assert answer.headers["cache-control"] == "public, max-age=300"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/docs.md", LIBRARY.index()),
        ("/docs/all.md", LIBRARY.whole()),
        ("/llms.txt", LIBRARY.llms_txt()),
        ("/llms-full.txt", LIBRARY.whole()),
    ],
)
async def test_lists_and_all(client: httpx2.AsyncClient, path: str, text: str) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.text) == (200, text + "\n")


async def test_links_of_llms_txt_lead_somewhere(client: httpx2.AsyncClient) -> None:
    base = "(https://atoll.localhost:8443/"
    parts = LIBRARY.llms_txt().split(base)[1:]
    assert len(parts) == len(list(LIBRARY)) + 1
    for part in parts:
        answer = await client.get("/" + part.split(")")[0])
        assert answer.status_code == 200


@pytest.mark.parametrize(
    "path", ["/docs/nope.md", "/docs/%2e%2e%2fskill.md", "/docs/a/b.md", "/docs/new", "/docs/.md"]
)
async def test_other_paths_are_not_there(client: httpx2.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 404
    assert (await client.post(path)).status_code in (404, 405)


def test_the_error_pages_name_the_status_that_exec_answers() -> None:
    for code, kind in CODES.items():
        assert exec_door._status(kind("it failed")) == ERROR_PAGES[code].exec_status, code
