"""The doors that speak HTTP, put together as `daemon` does, on whatever stands behind them."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from atoll.base.aio import TaskGroup
from atoll.base.errors import Denied, Unavailable
from atoll.base.limits import Limits
from atoll.commands.addresses import Addresses
from atoll.commands.library import Library
from atoll.commands.reply import Reply
from atoll.commands.verbs import REGISTRY
from atoll.config import Config
from atoll.domain.account import Account, Caller, Published, Route
from atoll.domain.web import MAILED_PATH
from atoll.doors.api.app import Api
from atoll.doors.api.exec import Callers
from atoll.doors.api.once import Keeping
from atoll.doors.api.run import VmRunner
from atoll.doors.front.app import Custom, Front, no_custom
from atoll.doors.web.app import Web
from atoll.doors.web.assets import Assets
from atoll.doors.web.openid.provider import Provider
from atoll.doors.web.terminal.pool import Shells, Terminals
from atoll.doors.web.terminal.terminal import Shell
from atoll.doors.web.witness import Recording
from atoll.services.changes import Changes
from atoll.services.elsewhere import Elsewhere, Person
from atoll.services.identities import Identities
from atoll.services.issuer import Issuer
from atoll.services.joining import Joining
from atoll.services.mail import Mail
from atoll.services.mailed_links import MailedLinks
from atoll.services.openid import OpenId
from atoll.services.passkeys import Passkeys
from atoll.services.sessions import Sessions
from atoll.store.engine import Store


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


class Ways(Protocol):
    """Ways to sign in; atoll.services.cloud.Cloud has them."""

    @property
    def mailed_links(self) -> MailedLinks:
        """By mail."""

    @property
    def passkeys(self) -> Passkeys:
        """By passkey."""


@dataclass(frozen=True, slots=True)
class StoreWays:
    """Ways upon a store alone; nobody answers what is asked for by mail."""

    mailed_links: MailedLinks
    passkeys: Passkeys


def ways_upon(store: Store, config: Config) -> Ways:
    """For a test without a control."""
    names, changes = Addresses(config).names, Changes()
    links = MailedLinks(
        store=store,
        joining=Joining(store=store, changes=changes),
        mail=Mail(config),
        base=names.url(names.domain, MAILED_PATH),
        domain=names.domain,
    )
    return StoreWays(links, Passkeys(store=store, names=names))


class NoLanguage:
    """Nobody runs a command here."""

    async def execute(
        self, caller: Caller, line: str, *, stdin: bytes = b"", progress: object = None
    ) -> Reply:
        """Never called."""
        raise AssertionError

    def changes(self, line: str) -> bool:
        """Never called."""
        raise AssertionError


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


class NoIdentities:
    """Nobody has an account elsewhere."""

    async def account(self, person: Person) -> Account:
        """See atoll.doors.web.elsewhere.Finding."""
        raise Denied("nobody comes from elsewhere here")


class Heard:
    """What the audit is told, as it is told."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    async def of(self, caller: Caller, act: str, **more: Any) -> None:
        """See Recording."""
        await self.record(
            who=caller.account.email,
            act=act,
            door=caller.door.value,
            source=caller.source,
            account=caller.account.id,
            credential=caller.credential,
            **more,
        )

    async def record(self, *, who: str, act: str, door: str, source: str, **more: Any) -> None:
        """See Recording."""
        told = {"who": who, "act": act, "door": door, "source": source, **more}
        self.records.append({key: value for key, value in told.items() if value})


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
    published: Callable[[str], Awaitable[Published | None]],
    changes: Changes,
    ca: Path,
    ways: Ways,
    runner: VmRunner | None = None,
    limits: Limits | None = None,
    shells: Shells | None = None,
    audit: Recording | None = None,
    openid: OpenId | None = None,
    issuer: Issuer | None = None,
    elsewhere: Sequence[Elsewhere] = (),
    identities: Identities | None = None,
    custom: Custom = no_custom,
) -> Http:
    """Build all of it; without `shells` no terminal opens, without `openid` no app learns who asks."""
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
        mailed_links=ways.mailed_links,
        passkeys=ways.passkeys,
        published=published,
        changes=changes,
        terminals=terminals,
        audit=audit or Heard(),
        custom=custom,
        providers=elsewhere,
        identities=identities or NoIdentities(),
    )
    more: list[BaseRoute] = []
    if openid is not None and issuer is not None:
        provider = Provider(names=names, openid=openid, issuer=issuer, web=web)
        more += provider.routes()
    front = Front(
        names=names,
        cloud=(*api.routes(), *web.cloud_routes(), *more),
        vm=web.vm_routes(),
        refuse=web.refuse,
        custom=custom,
    )
    return Http(app=front.app(), api=api, web=web, terminals=terminals)
