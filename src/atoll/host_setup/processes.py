"""Engine, control and HAProxy as running processes: under systemd, or under our supervisor.

Starting is idempotent. After an upgrade or a change of configuration (another build stamp) the
processes are started anew; VMs are not theirs to end, so they run on.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Protocol

from atoll.config import Config, render
from atoll.host_setup.layout import log_dir
from atoll.host_setup.systemd import Systemd
from atoll.supervise import status as supervision
from atoll.supervise.child import Child, this_command

STOP_S = 90.0  # three children, 20 s each at worst, and some air


class Processes(Protocol):
    """The three processes of one Atoll."""

    async def start(self) -> bool:
        """Make all run this build; False when they already did."""
        ...

    async def only_engine(self) -> None:
        """Make the engine run, and nothing else."""
        ...

    async def stop(self) -> None:
        """End all of them. VMs run on."""
        ...

    async def facts(self) -> dict[str, str]:
        """Process name -> `running …` or what is wrong, for people."""
        ...


class Supervised:
    """The processes under `atoll serve supervise`."""

    def __init__(self, *, config: Config, config_path: Path) -> None:
        self._config = config
        self._config_path = config_path

    async def start(self) -> bool:
        """See Processes."""
        found = supervision.status(self._config.paths.run)
        if (
            found.is_alive
            and found.build == build(self._config)
            and set(found.children) == set(names(self._config))
        ):
            return False
        await self.stop()
        self._spawn()
        return True

    async def only_engine(self) -> None:
        """See Processes."""
        await self.stop()
        self._spawn("--only", "engine")

    async def stop(self) -> None:
        """See Processes."""
        await supervision.stop(self._config.paths.run, seconds=STOP_S)

    async def facts(self) -> dict[str, str]:
        """See Processes."""
        found = supervision.status(self._config.paths.run)
        if not found.is_alive:
            return dict.fromkeys(names(self._config), "not running")
        return {
            name: f"running, pid {watch.pid}, restarts {watch.restarts}"
            if watch.pid
            else f"restarting, last exit {watch.last_exit}"
            for name, watch in found.children.items()
        }

    def _spawn(self, *arguments: str) -> None:
        supervision.start(
            this_command("serve", "supervise", *arguments),
            log_path=log_dir(self._config) / "supervise.log",
            env={"ATOLL_CONFIG": str(self._config_path)},
        )


def names(config: Config) -> tuple[str, ...]:
    """What this configuration runs."""
    return tuple(child.name for child in children(config))


def children(config: Config) -> tuple[Child, ...]:
    """What the supervisor runs, in the order it starts them; it stops them in reverse."""
    return (
        Child(name="engine", argv=this_command("serve", "engine")),
        Child(
            name="control",
            argv=this_command("serve", "control"),
            user=config.control.user,
            low_ports=config.ssh.port < 1024,
        ),
        # Opens its sockets as root, then becomes HAProxy under that user.
        Child(name="edge", argv=this_command("serve", "edge")),
        *([Child(name="dns", argv=this_command("serve", "dns"))] if config.dns.enabled else []),
    )


def choose(config: Config, config_path: Path) -> Processes:
    """systemd where it is process 1, else the supervisor."""
    if Path("/run/systemd/system").is_dir():
        return Systemd(config=config, config_path=config_path, build=build(config))
    return Supervised(config=config, config_path=config_path)


def build(config: Config) -> str:
    """What the processes were started from: the installed package and the configuration.

    `make up` leaves the package's stamp beside it; in a checkout there is none.
    """
    stamp = Path(sys.prefix) / "atoll.build"
    package = stamp.read_text().strip() if stamp.exists() else "checkout"
    return f"{package}-{hashlib.sha256(render(config).encode()).hexdigest()[:8]}"
