"""The pages of a whole control behind TLS, as browsers reach them; VMs are the fake engine's.

In HAProxy's place stands a relay that ends TLS and, like HAProxy, answers 503 while control is away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atoll.base import ids
from atoll.base.aio import TaskGroup
from atoll.commands.reply import Reply
from atoll.config import Config
from atoll.domain.account import Account, Caller, Door
from atoll.domain.usage import COUNTERS, Growth, Range, Sizes, Use
from atoll.doors.front.serve import serve
from atoll.rpc.messages import GIB, MIB
from atoll.services.issuer import Issuer
from atoll.services.openid import OpenId
from atoll.store import accounts, samples
from fakes.engine import FakeEngine
from framework.clients import free_port, listening
from framework.cloud import Clock, Control, control
from framework.front import Http, http
from framework.tls import front

READY_S = 20.0
_AWAY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@dataclass
class Cloud:
    """The running whole. `stop` and `start` are a restart of control's HTTP door."""

    control: Control
    url: str
    authority: Path
    _group: TaskGroup
    _api_port: int
    _serving: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def engine(self) -> FakeEngine:
        """Its knobs make it slow, or fail."""
        return self.control.engine

    async def person(self) -> Caller:
        """Somebody new, who has no VM yet."""
        id_ = ids.new("acct")
        account = Account(id=id_, email=f"{id_}@example.com")
        async with self.control.store.begin() as tx:
            await accounts.add(tx, account, now=self.control.clock())
        return Caller(account=account, door=Door.SSH, source="192.0.2.1")

    async def run(self, who: Caller, line: str) -> Reply:
        """What `who` types elsewhere."""
        return await self.control.run(line, who)

    async def data(self, who: Caller, line: str) -> Any:
        """The JSON of it."""
        return await self.control.data(line, who)

    async def use(self, vm: str) -> None:
        """Write down that a VM was used in the last day, but for every tenth span and for six hours."""
        spans = Range.DAY.starts(self.control.clock())
        async with self.control.store.begin() as tx:
            for number, start in enumerate(spans):
                if number % 10 and not 100 < number < 172:
                    await samples.put(tx, Range.DAY, start, {vm: _use(number)})

    async def start(self) -> None:
        """Serve; returns when it listens."""
        built = self._http()
        self._serving = [
            self._group.create_task(_inside(built)),
            self._group.create_task(serve(built.app, port=self._api_port)),
        ]
        await listening(self._api_port, seconds=READY_S)

    async def stop(self) -> None:
        """End it, as systemd does: pages first, then connections that are open."""
        for task in self._serving:
            task.cancel()
            await asyncio.wait([task])

    def _http(self) -> Http:
        cloud, sessions = self.control.cloud, self.control.sessions
        issuer = Issuer(url=self.url, folder=self.authority.parent)
        openid = OpenId(
            store=self.control.store,
            issuer=issuer,
            sessions=sessions,
            published=cloud.publishing.named,
        )
        return http(
            config=cloud.config,
            language=self.control.language,
            sessions=sessions,
            openid=openid,
            issuer=issuer,
            callers=cloud.tokens,
            answers=cloud.answers,
            published=cloud.publishing.named,
            changes=cloud.news,
            ca=self.authority,
            ways=cloud,
        )


def _use(number: int) -> Use:
    grown = dict.fromkeys(COUNTERS[1:], (number % 17 + 1) * 10**6)
    return Use(
        Growth(seconds=300, cpu_seconds=number % 23 * 10, **grown),
        Sizes(
            memory_used_bytes=(number % 31 + 1) * MIB,
            memory_total_bytes=GIB,
            disk_used_bytes=number * MIB,
            disk_size_bytes=25 * GIB,
            cpus=1,
        ),
    )


async def _inside(built: Http) -> None:
    async with built.running():
        await asyncio.Event().wait()


@asynccontextmanager
async def serving_pages(folder: Path) -> AsyncIterator[Cloud]:
    """Serve while the body runs."""
    port, api_port = free_port(), free_port()
    config = Config.model_validate({"https": {"port": port}, "control": {"api_port": api_port}})
    engine = FakeEngine(folder / "engine.sock")
    domain = config.https.domain
    async with (
        front(folder, domain=domain, port=port, to=api_port, away=_AWAY) as tls,
        engine.serving(),
        control(
            folder / "control", engine, config=config, clock=Clock(time.time()), loops=True
        ) as made,
        TaskGroup() as group,
    ):
        cloud = Cloud(made, f"https://{domain}:{port}", tls.authority, group, api_port)
        await cloud.start()
        try:
            yield cloud
        finally:
            await cloud.stop()
