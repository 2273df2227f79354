"""Puts the SSH door's client configuration into the caller's ~/.ssh, for short names."""

from __future__ import annotations

from pathlib import Path

from atoll.base import atomic
from atoll.config import Config
from atoll.doors.ssh.client_config import client_config
from atoll.host_setup.people import Person


def render(config: Config, *, gateway_key: str, host_ca: str) -> str:
    """The text for this cloud."""
    return client_config(
        ssh_host=config.ssh.host or "localhost",
        ssh_port=config.ssh.port,
        domain=config.https.domain,
        gateway_key=gateway_key,
        host_ca=host_ca,
    )


def install(text: str, person: Person, config: Config) -> Path:
    """Write ~/.ssh/<short name>.conf and include it from ~/.ssh/config; returns its path.

    Runs with the person's own rights (the caller drops root first).
    """
    short = config.https.domain.partition(".")[0]
    folder = person.home / ".ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    ours = folder / f"{short}.conf"
    atomic.write(ours, text.encode())
    _include(folder / "config", f"Include {ours.name}\n")
    return ours


def _include(path: Path, line: str) -> None:
    before = path.read_text() if path.exists() else ""
    if line not in before:
        # First: in ssh_config the first value wins, and an Include after a Host belongs to that Host.
        # Many people link this file into a repository, so what it points at is replaced.
        atomic.write(path.resolve(), (line + before).encode())
