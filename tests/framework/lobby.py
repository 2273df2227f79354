"""A lobby to try: the real door on the real language and store, a fake engine, the real client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from atoll.base.proc import Finished
from atoll.doors.ssh.door import SshDoor
from fakes.engine import FakeEngine
from framework.cloud import Control, control
from framework.gateway import DOMAIN, Ground, Town
from framework.screen import Screen


@dataclass
class Lobby:
    """What a test of the lobby uses; ann is who logs in."""

    control: Control
    ground: Ground

    def screen(self, *words: str, columns: int = 80, rows: int = 24, term: str = "") -> Screen:
        """`ssh -tt host [words]` on a terminal."""
        argv = self.ground.ssh_line("-tt", "atoll@gw", *words)
        return Screen(
            ["env", f"TERM={term or 'xterm-256color'}", *argv], columns=columns, rows=rows
        )

    async def ssh(self, *words: str, stdin: bytes | None = None) -> Finished:
        """`ssh host [words]` without a terminal."""
        return await self.ground.ssh("-T", "atoll@gw", *words, stdin=stdin)


@asynccontextmanager
async def lobby(folder: Path) -> AsyncIterator[Lobby]:
    """A door with a cloud behind it, serving while the body runs."""
    engine = FakeEngine(folder / "engine.sock")
    async with engine.serving(), control(folder / "control", engine, loops=True) as made:
        door = SshDoor(
            listen="127.0.0.1",
            port=0,
            domain=DOMAIN,
            directory=made.cloud,
            language=made.language,
            history=made.cloud.history,
            keys=made.cloud.keys,
        )
        made.cloud.accounts.when_key_ends(lambda key: door.end_key(key.fingerprint))
        ground = Ground(folder, Town(), made.cloud.keys, 22, door)
        public = ground.new_key("ann", None).with_suffix(".pub").read_text()
        await made.cloud.accounts.ensure("ann@example.com", public, key_name="desk")
        async with door.serving():
            ground.write_config()
            yield Lobby(made, ground)
