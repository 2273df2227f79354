"""The systemd units: rendered, accepted by systemd itself, stable."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from atoll.base.proc import run
from atoll.config import Config, Control, Network, Ssh
from atoll.engine.images.recipe import TREE
from atoll.host_setup.systemd import UNITS, Systemd


def systemd(folder: Path, config: Config) -> Systemd:
    return Systemd(
        config=config,
        config_path=Path("/etc/atoll/atoll.toml"),
        build="b1",
        unit_dir=folder / "system",
        tmpfiles_dir=folder / "tmpfiles.d",
    )


async def test_systemd_accepts_them(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    # A user that every Debian has: systemd asks for it, and `make up` may not have run here.
    config = Config(control=Control(user="daemon"))
    systemd(tmp_path, config).install()
    paths = [str(tmp_path / f"system/atoll-{unit}.service") for unit in UNITS]
    finished = await run(
        ["systemd-analyze", "verify", "--man=no", *paths],
        seconds=50,
        check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}/system:/lib/systemd/system"},
    )
    ours = [line for line in finished.err.decode().splitlines() if "atoll-" in line]
    assert (finished.code, ours) == (0, [])


async def test_systemd_accepts_those_of_the_image() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    folder = TREE / "etc/systemd/system"
    units = [str(folder / name) for name in ("exe-setup.service", "atoll-setup.path")]
    finished = await run(["systemd-analyze", "verify", "--man=no", *units], seconds=50, check=False)
    ours = [line for line in finished.err.decode().splitlines() if "setup" in line]
    assert (finished.code, ours) == (0, [])


def test_install_writes_once(tmp_path: Path) -> None:
    units = systemd(tmp_path, Config())
    assert not units.installed()
    assert units.install()
    assert units.installed()
    assert not units.install()
    units.remove()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_vms_outlive_the_engine_unit() -> None:
    text = systemd(Path("/nonexistent"), Config()).render("engine")
    assert "\nKillMode=process\n" in text
    assert "\nRestart=always\n" in text


def test_control_gets_low_ports_only_when_it_needs_them() -> None:
    high = systemd(Path("/nonexistent"), Config()).render("control")
    low = systemd(Path("/nonexistent"), Config(ssh=Ssh(port=22))).render("control")
    assert "\nAmbientCapabilities=\n" in high
    assert "\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n" in low


def test_two_clouds_have_two_sets_of_units(tmp_path: Path) -> None:
    config = Config(network=Network(instance="two"))
    systemd(tmp_path, config).install()
    names = {path.name for path in (tmp_path / "system").iterdir()}
    assert names == {"two-engine.service", "two-control.service", "two-edge.service"}
    assert "two-engine.service" in systemd(tmp_path, config).render("control")
