"""Package lists and pins agree with one another."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from atoll.doctor.machine import QEMU, TOOLS

ROOT = Path(__file__).parents[2]
LISTS = [ROOT / "deploy/packages.txt", ROOT / "deploy/packages-test.txt"]
SCRIPTS = sorted([*(ROOT / "scripts").glob("*.sh"), ROOT / ".ci/run"])


def lines(path: Path) -> list[tuple[str, str]]:
    """(package, reason)"""
    text = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
    pattern = re.compile(r"([a-z0-9.+-]+) +(?:\[[a-z0-9]+\] +)?(.+)")
    found = [pattern.fullmatch(line) for line in text]
    assert all(found), f"{path.name}: a line is not `name [architecture] reason`"
    return [(match[1], match[2]) for match in found if match]


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", path.read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.name)
def test_every_package_has_a_reason(path: Path) -> None:
    assert all(len(reason) > 5 for _package, reason in lines(path))


def test_what_the_doctor_asks_for_is_what_up_installs() -> None:
    installed = {package for package, _reason in lines(LISTS[0])}
    assert {*TOOLS.values(), *(package for _program, package in QEMU.values())} <= installed


def test_production_pins_are_the_ones_that_are_tested() -> None:
    run, dev = pins(ROOT / "requirements.lock"), pins(ROOT / "requirements-dev.lock")
    assert run
    assert run.items() <= dev.items(), "run: make lock"


def test_production_pins_cover_the_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {re.split(r"[\[<>=~ ]", line)[0].replace("_", "-") for line in project["dependencies"]}
    assert {name.replace(".", "-") for name in named} <= {
        name.replace(".", "-") for name in pins(ROOT / "requirements.lock")
    }


@pytest.mark.parametrize(
    "path", [ROOT / "requirements.lock", ROOT / "requirements-dev.lock"], ids=str
)
def test_pins_name_no_host_and_have_hashes(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    assert text.count("==") <= text.count("--hash=sha256:")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_stop_at_the_first_failure(path: Path) -> None:
    assert re.search(r"^set -(eu|euo pipefail|uo pipefail)$", path.read_text(), re.MULTILINE)
    assert path.stat().st_mode & 0o111
