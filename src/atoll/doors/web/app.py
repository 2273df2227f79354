"""The pages' door: builds its parts and names its routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from atoll.base.aio import TaskGroup
from atoll.base.errors import AtollError
from atoll.commands.library import Library
from atoll.commands.registry import Registry
from atoll.domain.account import Published
from atoll.domain.web import Names
from atoll.doors.front.app import Custom
from atoll.doors.web.acts import Acts, Executing
from atoll.doors.web.arriving import Arriving
from atoll.doors.web.assets import Assets
from atoll.doors.web.books import Books
from atoll.doors.web.choices import Choosing, Completing
from atoll.doors.web.credentials import Credentials
from atoll.doors.web.elsewhere import Finding, SignInElsewhere
from atoll.doors.web.forms import Forms
from atoll.doors.web.lines import Lines
from atoll.doors.web.listing import Listing
from atoll.doors.web.live import Live, Waiting
from atoll.doors.web.login import Login, SigningIn
from atoll.doors.web.machine import MachinePage
from atoll.doors.web.mailed import MailedPages, Mailing
from atoll.doors.web.pages import Pages, is_whole
from atoll.doors.web.passkeys import Keeping, PasskeyPages
from atoll.doors.web.people import PeoplePages
from atoll.doors.web.received import Received
from atoll.doors.web.running import Running
from atoll.doors.web.terminal.pages import TerminalPages
from atoll.doors.web.terminal.pool import Terminals
from atoll.doors.web.usage import UsagePage
from atoll.doors.web.view import View
from atoll.doors.web.visitor import SignInFirst, Visitors
from atoll.doors.web.witness import Recording, Witness
from atoll.services.elsewhere import Elsewhere


class Language(Executing, Completing, Protocol):
    """What is needed of atoll.commands.language.Language."""


class Web:
    """Everything a browser sees of the cloud itself. `ssh` is the command that reaches the lobby."""

    def __init__(
        self,
        *,
        names: Names,
        assets: Assets,
        ssh: str,
        session_seconds: float,
        registry: Registry,
        library: Library,
        language: Language,
        sessions: SigningIn,
        mailed_links: Mailing,
        passkeys: Keeping,
        published: Callable[[str], Awaitable[Published | None]],
        changes: Waiting,
        terminals: Terminals,
        audit: Recording,
        custom: Custom,
        providers: Sequence[Elsewhere],
        identities: Finding,
    ) -> None:
        """`providers` are those that people may sign in with."""
        self._assets = assets
        self._terminals = terminals
        labels = [(provider.name, provider.label) for provider in providers]
        self.pages = Pages(assets=assets, ssh=ssh, elsewhere=labels)
        self._acts = Acts(language=language)
        view = View(
            visitors=Visitors(sessions=sessions, ssh=ssh),
            lines=Lines(language),
            choices=Choosing(language),
            forms=Forms(registry),
            pages=self.pages,
        )
        witness = Witness(audit)
        arriving = Arriving(
            names=names,
            sessions=sessions,
            session_seconds=session_seconds,
            pages=self.pages,
            witness=witness,
            custom=custom,
        )
        self._mailed = MailedPages(
            domain=names.domain,
            links=mailed_links,
            arriving=arriving,
            witness=witness,
        )
        self._passkeys = PasskeyPages(
            domain=names.domain,
            passkeys=passkeys,
            visitors=view.visitors,
            arriving=arriving,
            witness=witness,
        )
        self._elsewhere = SignInElsewhere(
            host=names.domain,
            providers=providers,
            identities=identities,
            pages=self.pages,
            arriving=arriving,
            witness=witness,
        )
        self.visitors = view.visitors
        self.login = Login(
            names=names,
            ssh=ssh,
            visitors=view.visitors,
            pages=self.pages,
            forms=view.forms,
            arriving=arriving,
            sessions=sessions,
            published=published,
            witness=witness,
        )
        self._live = Live(visitors=view.visitors, changes=changes)
        self._parts = (
            Listing(view, live=self._live),
            MachinePage(view, names=names, live=self._live),
            Credentials(view),
            PeoplePages(view),
            UsagePage(view),
            Running(view, host=names.domain, acts=self._acts),
            Books(view, library=library),
            TerminalPages(view, names=names, terminals=terminals),
            Received(view, names=names),
        )

    async def run(self) -> None:
        """What pages have begun goes on in here; until cancelled."""
        async with TaskGroup() as group:
            group.create_task(self._acts.run())
            group.create_task(self._terminals.run())
            group.create_task(self._live.run())

    def cloud_routes(self) -> Sequence[BaseRoute]:
        """For the cloud's own host."""
        return (
            *self._mailed.routes(),
            *self._passkeys.routes(),
            *self._elsewhere.routes(),
            *self.login.cloud_routes(),
            *(route for part in self._parts for route in part.routes()),
            *self._assets.routes(),
        )

    def vm_routes(self) -> Sequence[BaseRoute]:
        """For every VM's host."""
        return self.login.vm_routes()

    async def refuse(self, request: Request, error: AtollError, status: int) -> Response | None:
        """An error as people see it: who must sign in first can do so there. None for programs."""
        if isinstance(error, SignInFirst) and is_whole(request):
            return await self.login.ask(request)
        return self.pages.refuse(request, error, status)
