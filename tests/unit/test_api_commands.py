"""`POST /exec` with the whole language behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.commands.verbs import REGISTRY
from fakes.engine import FakeEngine
from framework.api import Door, door
from framework.cloud import Control, control


@pytest.fixture(name="cloud")
async def _cloud(tmp_path: Path) -> AsyncIterator[Control]:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving(), control(tmp_path / "control", engine, loops=True) as made:
        yield made


@pytest.fixture(name="api")
async def _api(cloud: Control, tmp_path: Path) -> AsyncIterator[Door]:
    async with door(cloud, tmp_path) as made:
        yield made


async def test_help_is_json_and_runs_nothing(cloud: Control, api: Door) -> None:
    asked = len(cloud.engine.asked)
    for command in REGISTRY:
        page = await api.data(f"{command.name} --help")
        assert page["command"] == command.name
        names = [name for flag in page["flags"] for name in flag["names"]]
        assert {name for option in command.options for name in option.flags} <= set(names)
        assert page["examples"] == list(command.examples)
    assert len(cloud.engine.asked) == asked
    assert (await api.data("ls"))["vms"] == []


async def test_statuses(cloud: Control, api: Door, tmp_path: Path) -> None:
    for line, status in (
        ("new --name web", 200),
        ("", 400),
        ("ls 'open", 400),
        ("nope", 404),
        ("share", 404),
        ("new --name web", 422),
        ("new --nope", 422),
        ("stat nope", 422),
        ("ssh nope id", 422),
        ("rm nope", 422),
        ("x" * 65_537, 413),
    ):
        answer = await api.exec(line)
        assert (line, answer.status_code) == (line, status)
        assert answer.headers["content-type"] == "application/json"
    assert (await api.exec("ssh nope id")).json()["error"] == 'VM "nope" not found'
    await cloud.run("pause web")
    said = (await api.exec("ssh web id")).json()["error"]
    assert said.startswith('VM "web" is not running')


async def test_scope(cloud: Control, tmp_path: Path) -> None:
    await cloud.run("new --name web")
    async with door(cloud, tmp_path, cmds=("ls", "ssh web")) as api:
        assert (await api.exec("ls")).status_code == 200
        assert (await api.exec("rm web")).status_code == 403
        assert (await api.exec("ssh db id")).status_code == 403
        assert (await api.exec("rm --help")).status_code == 200
