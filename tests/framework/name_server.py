"""Knot as `atoll serve dns` starts it, on a port of its own, with the loop that keeps its zone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from pathlib import Path

import dns.asyncquery
import dns.message

from atoll.base.aio import TaskGroup, poll
from atoll.config import Config, render
from atoll.doors.names import launch
from atoll.doors.names.addresses import LOOPBACK
from atoll.doors.names.loop import NameSync
from atoll.services.changes import Changes

_START = (
    "import asyncio; from atoll.config import load; from atoll.doors.names import launch;"
    "c = load(); asyncio.run(launch.prepare(c)); launch.become_knot(c)"
)
READY_S = 20.0
DOMAIN = "isle.example"


@dataclass
class NameServer:
    """The running whole; `vms` stands in for the store."""

    config: Config
    folder: Path
    vms: dict[str, IPv6Address] = field(default_factory=dict)
    changes: Changes = field(default_factory=Changes)
    knot: asyncio.subprocess.Process | None = None

    async def addresses(self) -> dict[str, IPv6Address]:
        return dict(self.vms)

    def new_sync(self) -> NameSync:
        """A loop that knows nothing, as after a restart of control."""
        return NameSync(config=self.config, changes=self.changes, vms=self.addresses)

    async def ask(self, name: str, kind: str) -> dns.message.Message:
        question = dns.message.make_query(name, kind, flags=0)
        return await self.send(question)

    async def send(self, message: dns.message.Message) -> dns.message.Message:
        return await dns.asyncquery.tcp(
            message, str(LOOPBACK), port=self.config.dns.port, timeout=10
        )

    async def records(self, name: str, kind: str) -> set[str]:
        """What the answer section says, as text."""
        answer = await self.ask(name, kind)
        return {record.to_text() for group in answer.answer for record in group}

    async def shows(self, name: str, kind: str, wanted: set[str]) -> None:
        async def check() -> bool | None:
            with contextlib.suppress(OSError, EOFError):
                return (await self.records(name, kind) == wanted) or None
            return None

        await poll(check, seconds=READY_S, what=f"{name} {kind} being {wanted}")

    async def start(self) -> None:
        log = (self.folder / "knot.log").open("ab")
        self.knot = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _START, stdout=log, stderr=log,
            env={**os.environ, "ATOLL_CONFIG": str(self.folder / "atoll.toml"),
                 "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        log.close()

    async def kill(self) -> None:
        if self.knot is not None and self.knot.returncode is None:
            self.knot.send_signal(signal.SIGKILL)
            await self.knot.wait()


@asynccontextmanager
async def name_server(**dns: object) -> AsyncIterator[NameServer]:
    """Serve DOMAIN while the body runs; `dns` are settings of that section."""
    folder = Path(tempfile.mkdtemp(prefix="atoll-dns-"))  # Knot's user must get there
    folder.chmod(0o755)
    config = Config.model_validate(
        {
            "paths": {name: folder / name for name in ("state", "run", "cache")},
            "https": {"domain": DOMAIN},
            "dns": {
                "enabled": True, "listen": ["127.0.0.1"], "port": _free_port(),
                "ipv4": ["192.0.2.7"], "ipv6": ["2001:db8::7"], **dns,
            },
            "control": {"user": "nobody"},
        }
    )  # fmt: skip
    (folder / "atoll.toml").write_text(render(config))
    (config.control_state / "keys").mkdir(parents=True)
    server = NameServer(config=config, folder=folder)
    try:
        await server.start()
        async with TaskGroup() as group:
            job = group.create_task(server.new_sync().run())
            await server.shows(DOMAIN, "A", {"192.0.2.7"})
            try:
                yield server
            finally:
                job.cancel()
    finally:
        await server.kill()
        await launch.withdraw(config)
        shutil.rmtree(folder)


def _free_port() -> int:
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind((str(LOOPBACK), 0))
        udp.bind((str(LOOPBACK), tcp.getsockname()[1]))
        return int(tcp.getsockname()[1])
