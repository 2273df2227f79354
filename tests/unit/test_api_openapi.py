"""The OpenAPI document says what the application does."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route

from atoll.commands.parse import parse
from atoll.commands.verbs import REGISTRY
from atoll.doors.front.app import Hosts
from fakes.engine import FakeEngine
from framework.api import Door, door
from framework.cloud import control
from framework.served import served_api

MARKDOWN = {("GET", "/docs.md"), ("GET", "/docs/{slug}.md"), ("GET", "/llms.txt"),
            ("GET", "/llms-full.txt")}  # fmt: skip


@pytest.fixture(name="api")
async def _api(tmp_path: Path) -> AsyncIterator[Door]:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with (
        engine.serving(),
        control(tmp_path / "control", engine) as cloud,
        door(cloud, tmp_path) as made,
    ):
        yield made


async def test_agrees_with_the_routes(api: Door) -> None:
    assert isinstance(api.app, Hosts)
    assert isinstance(api.app._cloud, Starlette)
    real = _served(api.app._cloud.routes) - _served(api.web.cloud_routes())
    document = (await api.client.get("/openapi.json")).json()
    said = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert said | MARKDOWN == real


async def test_says_where_it_is(api: Door) -> None:
    document = (await api.client.get("/openapi.json")).json()
    assert document["servers"] == [{"url": "https://atoll.localhost:8443"}]


async def test_every_verb_has_its_examples_there(api: Door) -> None:
    document = (await api.client.get("/openapi.json")).json()
    body = document["paths"]["/exec"]["post"]["requestBody"]["content"]["text/plain"]
    shown = {
        parse(REGISTRY, example["value"]).command.name for example in body["examples"].values()
    }
    assert shown == {command.name for command in REGISTRY}


def test_schemathesis_finds_no_fault_and_no_breach(tmp_path: Path) -> None:
    """A line is text to the schema, and most text is no command: refusing it is no breach."""
    with served_api(tmp_path) as api:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"{api.url}/openapi.json"),
                *("--url", api.url, "-H", f"Authorization: Bearer {api.token}"),
                *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
                *("--max-examples", "25", "--seed", "1", "--continue-on-failure", "--no-color"),
                *("--generation-database", "none"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=55,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout
    tried = re.search(r"(\d+) generated, \1 passed", done.stdout)
    assert tried, done.stdout
    assert int(tried[1]) >= 100


def _served(routes: Sequence[BaseRoute]) -> set[tuple[str, str]]:
    return {
        (method, route.path)
        for route in routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
