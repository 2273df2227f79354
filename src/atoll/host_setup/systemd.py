"""The units, rendered for one configuration, and how they are driven.

Invariant: a unit file on disk is ours in full, never edited in place; it changes only when what it
is rendered from changes. The engine's unit has KillMode=process: VMs outlive it.
"""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path
from string import Template

from atoll.base import atomic
from atoll.base.proc import run
from atoll.config import Config
from atoll.doors.local import socket_path
from atoll.doors.names.files import Files

SYSTEMCTL_S = 120.0
UNITS = ("engine", "control", "edge")
DNS = "dns"  # only where `dns.enabled` asks for it
UNIT_DIR = Path("/etc/systemd/system")
TMPFILES_DIR = Path("/etc/tmpfiles.d")


class Systemd:
    """The processes as units `<instance>-engine.service` and so on."""

    def __init__(
        self,
        *,
        config: Config,
        config_path: Path,
        build: str,
        unit_dir: Path = UNIT_DIR,
        tmpfiles_dir: Path = TMPFILES_DIR,
    ) -> None:
        self._config = config
        self._config_path = config_path
        self._build = build
        self._unit_dir = unit_dir
        self._units = (*UNITS, DNS) if config.dns.enabled else UNITS
        self._tmpfiles_dir = tmpfiles_dir

    async def start(self) -> bool:
        """Install the units, enable them, start or restart them; False when nothing changed."""
        changed = self.install()
        await self._end_unwanted()
        if changed:
            await self._systemctl("daemon-reload")
            await self._systemctl("enable", *self._names())
        states = await self._states()
        if not changed and all(state == "active" for state in states.values()):
            return False
        await self._systemctl("restart" if changed else "start", *self._names())
        return True

    async def only_engine(self) -> None:
        """Stop control and the edge, start the engine."""
        _engine, *others = self._names()
        await self._systemctl("stop", *reversed(others))
        await self._systemctl("start", self._names()[0])

    async def stop(self) -> None:
        """Stop all units; a unit that is not installed counts as stopped."""
        if self.installed():
            await self._systemctl("disable", "--now", *reversed(self._names()))

    async def facts(self) -> dict[str, str]:
        """Unit -> what systemd says of it."""
        states = await self._states()
        return {
            unit: "running" if state == "active" else f"{state}; journalctl -u {self._name(unit)}"
            for unit, state in states.items()
        }

    def install(self) -> bool:
        """Write the unit files and the folders a boot needs; False if all were right."""
        written = [
            _write(self._unit_dir / self._name(unit), self.render(unit)) for unit in self._units
        ]
        instance = self._config.network.instance
        return _write(self._tmpfiles_dir / f"{instance}.conf", self._tmpfiles()) or any(written)

    def installed(self) -> bool:
        """Whether our units are there."""
        return all((self._unit_dir / name).exists() for name in self._names())

    def remove(self) -> None:
        """Delete what `install` wrote."""
        for name in (*self._names(), self._name(DNS)):
            (self._unit_dir / name).unlink(missing_ok=True)
        (self._tmpfiles_dir / f"{self._config.network.instance}.conf").unlink(missing_ok=True)

    def render(self, unit: str) -> str:
        """The text of one unit file."""
        config = self._config
        template = resources.files("atoll.host_setup").joinpath("units", f"{unit}.service")
        return Template(template.read_text()).substitute(
            instance=config.network.instance,
            python=sys.executable,
            config=self._config_path,
            build=self._build,
            user=config.control.user,
            control_state=config.control_state,
            control_run=socket_path(config.paths.run).parent,
            edge_run=config.edge_run,
            dns_run=config.dns_run,
            dns_zones=Files(config.dns_run).zones,
            capabilities="CAP_NET_BIND_SERVICE" if config.ssh.port < 1024 else "",
        )

    def _tmpfiles(self) -> str:
        """/run is empty after a boot; these folders come back before the units start."""
        run_dir, user = self._config.paths.run, self._config.control.user
        return (
            "# Written by `atoll up`.\n"
            f"d {run_dir} 0755 root root\n"
            f"d {socket_path(run_dir).parent} 0700 {user} {user}\n"
            f"d {self._config.edge_run} 0755 root root\n"
            f"d {self._config.dns_run} 0755 root root\n"
        )

    async def _end_unwanted(self) -> None:
        """A DNS server that the configuration no longer asks for."""
        name = self._name(DNS)
        if name not in self._names() and (self._unit_dir / name).exists():
            await self._systemctl("disable", "--now", name)
            (self._unit_dir / name).unlink()

    async def _states(self) -> dict[str, str]:
        finished = await run(
            ["systemctl", "is-active", *self._names()], seconds=SYSTEMCTL_S, check=False
        )
        return dict(zip(self._units, finished.out.decode().split(), strict=False))

    async def _systemctl(self, *arguments: str) -> None:
        await run(["systemctl", *arguments], seconds=SYSTEMCTL_S)

    def _names(self) -> tuple[str, ...]:
        return tuple(self._name(unit) for unit in self._units)

    def _name(self, unit: str) -> str:
        return f"{self._config.network.instance}-{unit}.service"


def _write(path: Path, text: str) -> bool:
    if path.exists() and path.read_text() == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, text.encode(), mode=0o644)
    return True
