"""A whole control in a test: real store, keys, services, sign-in and commands; a fake engine."""

from __future__ import annotations

import atexit
import contextlib
import functools
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh

from atoll.base.aio import TaskGroup, poll
from atoll.base.errors import AtollError
from atoll.commands.language import Language
from atoll.commands.reply import Reply
from atoll.config import Config
from atoll.domain.account import Caller
from atoll.domain.sharing import may_open
from atoll.rpc.client import EngineClient
from atoll.services.cloud import Cloud
from atoll.services.facts import Engine
from atoll.services.keys import Keys
from atoll.services.sessions import Sessions
from atoll.store.engine import Store
from fakes.engine import FakeEngine

ANN = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE5RIoRwJ/q0lIXLSKF0fXJ1LgdzdGNhMbADBVzV3SBr"
BOB = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDNsQlPYCEXWr5SXvkOUXzQzZQZXwmSCUo5ZmDdLhNxA"
START = 1_800_000_000.0  # 2027-01-15T08:00:00Z


@dataclass
class Clock:
    """A clock that moves when told."""

    time: float = START

    def __call__(self) -> float:
        return self.time


@dataclass
class Control:
    """One control process; `folder` outlives it."""

    cloud: Cloud
    language: Language
    store: Store
    sessions: Sessions
    engine: FakeEngine
    clock: Clock
    callers: dict[str, Caller] = field(default_factory=dict)
    progress: list[str] = field(default_factory=list)

    @property
    def ann(self) -> Caller:
        """The owner of this cloud."""
        return self.callers["ann"]

    @property
    def bob(self) -> Caller:
        """Somebody else."""
        return self.callers["bob"]

    async def run(self, line: str, caller: Caller | None = None, *, stdin: bytes = b"") -> Reply:
        """Execute one line, as ann unless said otherwise."""
        return await self.language.execute(
            caller or self.ann, line, stdin=stdin, progress=self.progress.append
        )

    async def data(self, line: str, caller: Caller | None = None) -> Any:
        """The JSON of one line."""
        return (await self.run(line, caller)).data

    async def fails(
        self, line: str, kind: type[AtollError] = AtollError, caller: Caller | None = None
    ) -> str:
        """The error of one line, as text; any other than of this kind goes on."""
        try:
            await self.run(line, caller)
        except kind as error:
            return str(error)
        raise AssertionError(f"{line} did not fail")

    async def somebody(self, name: str) -> Caller:
        """One more account with a key, as `make up` makes it."""
        key = asyncssh.generate_private_key("ssh-ed25519").export_public_key("openssh").decode()
        await self.cloud.accounts.ensure(f"{name}@example.com", key, key_name="laptop")
        caller = await self.cloud.caller_for_key(key, source="192.0.2.3")
        assert caller is not None
        return caller

    async def opens(
        self, who: Caller | None, *, port: int = 8000, path: str = "/", name: str = "web"
    ) -> bool:
        """Whether the edge would let somebody in."""
        vm = next(vm for vm in await self.cloud.published() if vm.vm_name == name)
        account = who.account.id if who else None
        return may_open(vm.openings, account, port=port, path=path, now=self.clock())

    def authorized(self, name: str = "web") -> list[str]:
        """Keys that a VM has been given."""
        held = [one for one in self.engine.identities.values() if one.hostname == name]
        return list(held[-1].authorized_keys or ())

    async def grants_seen(self) -> None:
        """Wait until who ends shells has seen all changes."""

        async def check() -> bool | None:
            return self.cloud.withdrawal.version == self.cloud.changes.version or None

        await poll(check, seconds=10, what="the changes to be seen", every=0.005)

    async def connected(self) -> None:
        """Wait until the loops have seen the engine."""

        async def check() -> bool | None:
            return self.cloud.facts.connected or None

        await poll(check, seconds=10, what="connect", every=0.005)


@contextlib.asynccontextmanager
async def control(
    folder: Path,
    engine: FakeEngine,
    *,
    wrap: Any = None,
    config: Config | None = None,
    clock: Clock | None = None,
    loops: bool = False,
) -> AsyncIterator[Control]:
    """A control on `folder` (made if new) and `engine`; `wrap` replaces the engine client it sees."""
    store = await store_in(folder)
    clock = clock or Clock()
    client = EngineClient(socket=engine.path)
    keys = Keys(folder / "keys", now=clock)
    seen: Engine = wrap(client) if wrap else client
    cloud = Cloud(
        config=_inside(config or Config(), folder), store=store, engine=seen, keys=keys, now=clock
    )
    sessions = Sessions(
        store=store, changes=cloud.changes, keys=keys.tokens, session_seconds=3600, now=clock
    )
    made = Control(
        cloud=cloud,
        language=Language(cloud=cloud, sessions=sessions),
        store=store,
        sessions=sessions,
        engine=engine,
        clock=clock,
    )
    for name, key in (("ann", ANN), ("bob", BOB)):
        await cloud.accounts.ensure(
            f"{name}@example.com", key, key_name="laptop", is_admin=name == "ann"
        )
        caller = await cloud.caller_for_key(key, source="192.0.2.1")
        assert caller is not None
        made.callers[name] = caller
    try:
        if loops:
            async with TaskGroup() as group:
                task = group.create_task(cloud.run())
                await made.connected()
                yield made
                task.cancel()
        else:
            yield made
    finally:
        await client.close()
        await store.close()


def _inside(config: Config, folder: Path) -> Config:
    """What it keeps besides the store is in the folder too."""
    return config.model_copy(update={"paths": config.paths.model_copy(update={"state": folder})})


async def store_in(folder: Path) -> Store:
    """The store in a folder; made if new, with all tables and nothing in them."""
    database = folder / "atoll.db"
    if not database.exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(await migrated(), database)
    return Store(f"sqlite+aiosqlite:///{database}")


async def migrated() -> Path:
    """A database with all tables and nothing in them, made once per run of the tests."""
    path = _template()
    if not path.exists():
        store = Store(f"sqlite+aiosqlite:///{path}")
        await store.migrate()
        await store.close()
    return path


@functools.cache
def _template() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="atoll-store-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder / "empty.db"
