"""The doors that speak HTTP, put together as `daemon` does, on whatever stands behind them."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from atoll.base.aio import TaskGroup
from atoll.base.errors import Unavailable
from atoll.commands.addresses import Addresses
from atoll.commands.library import Library
from atoll.commands.verbs import REGISTRY
from atoll.config import Config
from atoll.domain.account import Caller, Published, Route
from atoll.doors.api.app import Api
from atoll.doors.api.exec import Callers
from atoll.doors.api.limits import Limits
from atoll.doors.api.once import Keeping
from atoll.doors.api.run import VmRunner
from atoll.doors.front.app import Front
from atoll.doors.web.app import Web
from atoll.doors.web.assets import Assets
from atoll.doors.web.terminal.pool import Shells, Terminals
from atoll.doors.web.terminal.terminal import Shell
from atoll.services.changes import Changes
from atoll.services.sessions import Sessions


@dataclass(frozen=True, slots=True)
class Http:
    """The application and the doors behind it."""

    app: ASGIApp
    api: Api
    web: Web
    terminals: Terminals

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """What pages begin goes on while the body runs."""
        async with TaskGroup() as group:
            task = group.create_task(self.web.run())
            yield
            task.cancel()


class NoShells:
    """Nothing that a terminal could show."""

    async def in_vm(
        self, route: Route, size: tuple[int, int], show: Callable[[bytes], None]
    ) -> Shell:
        """See Shells."""
        raise Unavailable("no VM can be reached here")

    async def prompt(
        self, caller: Caller, size: tuple[int, int], show: Callable[[bytes], None]
    ) -> Shell:
        """See Shells."""
        raise Unavailable("there is no prompt here")


@functools.cache
def _assets() -> Assets:
    """Packing them takes a moment, and they are the same for all."""
    return Assets()


def http(
    *,
    config: Config,
    language: Any,
    sessions: Sessions,
    callers: Callers,
    answers: Keeping,
    published: Callable[[], Awaitable[tuple[Published, ...]]],
    changes: Changes,
    ca: Path,
    runner: VmRunner | None = None,
    limits: Limits | None = None,
    shells: Shells | None = None,
) -> Http:
    """Build all of it; without `shells` no terminal opens."""
    addresses = Addresses(config)
    names = addresses.names
    library = Library(registry=REGISTRY, addresses=addresses)
    api = Api(
        url=names.url(names.domain, ""),
        library=library,
        language=language,
        callers=callers,
        answers=answers,
        ca=ca,
        runner=runner,
        limits=limits,
    )
    terminals = Terminals(
        shells=shells or NoShells(), language=language, sessions=sessions, changes=changes
    )
    web = Web(
        names=names,
        assets=_assets(),
        ssh=addresses.lobby_command,
        session_seconds=config.https.session_hours * 3600,
        registry=REGISTRY,
        library=library,
        language=language,
        sessions=sessions,
        published=published,
        changes=changes,
        terminals=terminals,
    )
    front = Front(
        names=names,
        cloud=(*api.routes(), *web.cloud_routes()),
        vm=web.vm_routes(),
        refuse=web.refuse,
    )
    return Http(app=front.app(), api=api, web=web, terminals=terminals)
