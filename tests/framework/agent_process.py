"""A guest agent as a process of its own on a unix socket: today's, or one of an earlier release."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atoll.base.aio import poll
from atoll.base.errors import Unavailable
from atoll.engine.agent import GuestAgent

TESTS = Path(__file__).parent.parent
PROGRAM = TESTS / "fakes" / "agent_program.py"
TODAY = TESTS.parent / "src"
PAST = TESTS / "past" / "agents"  # a folder per commit; see tests/past/README.md


def guest_root(folder: Path) -> Path:
    """A root file system with the folders that an agent expects, in `folder`."""
    for name in ("etc/ssh", "run", "proc"):
        (folder / "root" / name).mkdir(parents=True)
    return folder / "root"


class AgentProcess:
    """The agent whose code is in `code`, started, killed and started again on one socket."""

    def __init__(self, socket: Path, root: Path, *, code: Path = TODAY) -> None:
        self.socket = socket
        # Without site-packages, as in a VM: an `atoll` installed there would win over `code`.
        self._argv = [sys.executable, "-P", "-S", str(PROGRAM), str(socket), str(root)]
        self._environment = {**os.environ, "PYTHONPATH": f"{code}:{TESTS}"}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._argv, env=self._environment)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def client(self) -> GuestAgent:
        """A client of its own, once it listens."""

        async def connected() -> GuestAgent | None:
            try:
                return await GuestAgent.connect(self.socket, seconds=5)
            except Unavailable:
                return None

        return await poll(connected, seconds=10, what="the agent", every=0.02)


@contextmanager
def running(socket: Path, root: Path, *, code: Path = TODAY) -> Iterator[AgentProcess]:
    """One for the body."""
    process = AgentProcess(socket, root, code=code)
    process.start()
    try:
        yield process
    finally:
        process.kill()
