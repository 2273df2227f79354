"""Users, folders and the configuration file an Atoll needs on its machine. Idempotent, root."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from atoll.base import atomic
from atoll.base.errors import Denied
from atoll.base.proc import run
from atoll.config import DEFAULT_PATH, Config, render

USERADD_S = 30.0


def require_root(what: str) -> None:
    """Raises Denied for anybody else."""
    if os.geteuid() != 0:
        raise Denied(f"{what} needs root", hint=f"Try: sudo {what}")


def log_dir(config: Config) -> Path:
    """Where the processes' logs are, without systemd."""
    return config.paths.state / "log"


def control_run(config: Config) -> Path:
    """Sockets that control makes itself."""
    return config.paths.run / "control"


async def prepare(config: Config) -> None:
    """Make the user, the folders with their owners and modes, and a first configuration file."""
    await _ensure_user(config.control.user, home=config.control_state)
    entry = pwd.getpwnam(config.control.user)
    for path, mode in (
        (config.paths.state, 0o755),
        (config.pool, 0o700),
        (log_dir(config), 0o750),
        (config.paths.run, 0o755),
        (config.paths.cache, 0o755),
        # root's: control must not be able to swap HAProxy's configuration in it
        (config.edge_run, 0o755),
        (config.dns_run, 0o755),
    ):
        _folder(path, mode, 0, 0)
    for path, mode in (
        (config.control_state, 0o700),
        (control_run(config), 0o700),
    ):
        _folder(path, mode, entry.pw_uid, entry.pw_gid)


def ensure_config_file(config: Config, path: Path = DEFAULT_PATH) -> bool:
    """Write the commented defaults where no file is; True when it was made now."""
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, render(config, only_set=True).encode(), mode=0o644)
    return True


async def _ensure_user(name: str, *, home: Path) -> None:
    try:
        pwd.getpwnam(name)
    except KeyError:
        await run(
            ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", str(home),
             "--shell", "/usr/sbin/nologin", name],
            seconds=USERADD_S,
        )  # fmt: skip


def _folder(path: Path, mode: int, uid: int, gid: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    found = path.stat()
    if (found.st_uid, found.st_gid) != (uid, gid):
        os.chown(path, uid, gid)
    if found.st_mode & 0o7777 != mode:
        path.chmod(mode)
