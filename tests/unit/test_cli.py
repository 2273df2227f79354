"""The host's command line, as a process: exit codes, where errors go, output other programs read."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from atoll.base.proc import Finished, run
from atoll.config import Config, Paths, render

LEVELS = {"ok", "degraded", "missing"}


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = tmp_path / "atoll.toml"
    folders = Paths(state=tmp_path / "state", run=tmp_path / "run", cache=tmp_path / "cache")
    path.write_text(render(Config(paths=folders)))
    return path


async def atoll(config_path: Path, *arguments: str) -> Finished:
    # This checkout, not a copy that `make up` may have installed earlier.
    source = str(Path(__file__).parents[2] / "src")
    environment = {**os.environ, "ATOLL_CONFIG": str(config_path), "PYTHONPATH": source}
    argv = [sys.executable, "-m", "atoll", *arguments]
    return await run(argv, seconds=50, check=False, env=environment)


async def test_show_prints_the_file_in_force(config_path: Path) -> None:
    shown = await atoll(config_path, "config", "show")
    assert (shown.code, shown.out.decode()) == (0, config_path.read_text() + "\n")
    where = await atoll(config_path, "config", "path")
    assert where.out.decode().strip() == str(config_path)


async def test_a_wrong_configuration_is_one_line_and_a_hint(config_path: Path) -> None:
    config_path.write_text("[ssh]\nport = -1\n")
    shown = await atoll(config_path, "config", "show")
    assert shown.code == 2
    assert shown.out == b""
    assert len(shown.err.decode().splitlines()) == 2
    assert "ssh.port" in shown.err.decode()


async def test_the_doctor_works_with_a_wrong_configuration(config_path: Path) -> None:
    config_path.write_text("[nonsense]\n")
    finished = await atoll(config_path, "doctor", "--json")
    findings = json.loads(finished.out)
    assert finished.code == 1
    assert findings[0]["what"] == "config"
    assert findings[0]["level"] == "missing"
    assert {finding["level"] for finding in findings} <= LEVELS
    assert all(finding["type"] for finding in findings if finding["level"] != "ok")


async def test_the_doctor_says_what_to_type(config_path: Path) -> None:
    printed = (await atoll(config_path, "doctor")).out.decode()
    assert "missing    engine: not running\n           try: make up\n" in printed


async def test_without_control_a_command_says_so(config_path: Path) -> None:
    finished = await atoll(config_path, "exec", "ls")
    assert (finished.code, finished.out) == (69, b"")
    assert finished.err.decode().endswith("Try: atoll doctor\n")


async def test_purge_asks_first(config_path: Path) -> None:
    finished = await atoll(config_path, "purge")
    assert finished.code == 2
    assert "Try: atoll purge --yes" in finished.err.decode()


async def test_no_command_is_a_usage_error(config_path: Path) -> None:
    finished = await atoll(config_path)
    assert finished.code == 2
    assert b"usage: atoll" in finished.err
