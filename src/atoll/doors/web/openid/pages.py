"""What people see of the provider: GET /oauth/authorize, and the question whether an app may know them.

Invariants: nothing is answered to an address that is not proven to be the app's own VM's; nobody learns
of a VM that they may not open; looking changes nothing, only the POST of the question's own page does.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol
from urllib.parse import parse_qs, quote, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from atoll.base.errors import Invalid
from atoll.domain.account import Account
from atoll.domain.openid import Asked, Query, Refused, Return, again, asked, proven
from atoll.domain.web import Names
from atoll.doors.front.hosts import check_origin, source_of
from atoll.doors.web.login import Login
from atoll.doors.web.openid.endpoints import AUTHORIZE
from atoll.doors.web.pages import Pages
from atoll.doors.web.sent import read_form
from atoll.doors.web.visitor import Visitors, caller_of
from atoll.services.openid import App
from atoll.services.sessions import Session

CONSENT = "/oauth/consent"
_FIELDS = 40
_QUERY = 8_000


class Agreeing(Protocol):
    """What is needed of atoll.services.openid.OpenId."""

    async def app(self, account: Account, back: Return) -> App | None:
        """The VM, if the account may open the page where its answer goes."""
        ...

    def is_recent(self, session: Session, asked: Asked) -> bool:
        """Whether somebody has signed in as lately as is wanted."""
        ...

    async def has_consent(self, account: Account, app: App, told: Collection[str]) -> bool:
        """Whether the account has agreed before."""
        ...

    async def consent(self, account: Account, app: App, told: Collection[str]) -> None:
        """It agrees now."""
        ...

    def code(self, session: Session, app: App, back: Return, asked: Asked) -> str:
        """A code for the app."""
        ...


class OpenIdPages:
    """The routes."""

    def __init__(
        self,
        *,
        names: Names,
        openid: Agreeing,
        visitors: Visitors,
        pages: Pages,
        login: Login,
    ) -> None:
        self._names = names
        self._issuer = names.url(names.domain, "")
        self._openid = openid
        self._visitors = visitors
        self._pages = pages
        self._login = login

    def routes(self) -> tuple[BaseRoute, ...]:
        """For the cloud's own host."""
        return (
            Route(AUTHORIZE, self.authorize, methods=["GET"]),
            Route(AUTHORIZE, self.sent, methods=["POST"]),
            Route(CONSENT, self.consent, methods=["POST"]),
        )

    async def authorize(self, request: Request) -> Response:
        """An app sends its visitor here to learn who it is."""
        query = _query(request)
        back = proven(query, self._names)
        try:
            return await self._answer(request, query, back)
        except Refused as refused:
            return self._say(back, refused)

    async def sent(self, request: Request) -> Response:
        """The same by a form of the app's (OpenID Connect has both): as if it had been a link."""
        form = await read_form(request)
        query = urlencode([(name, value) for name, values in form.items() for value in values])
        if len(query) > _QUERY:
            raise Invalid(f"the app's request has more than {_QUERY} characters")
        return RedirectResponse(f"{AUTHORIZE}?{query}", status_code=303)

    async def _answer(self, request: Request, query: Query, back: Return) -> Response:
        session = await self._visitors.session(request)
        if session is None:
            if query.get("prompt") == ["none"]:
                raise Refused("login_required", "nobody is signed in")
            return await self._ask(request, _path(request))
        app = await self._openid.app(session.account, back)
        if app is None:
            return self._no_access(request, session.account, back)
        wanted = asked(query)
        if not self._openid.is_recent(session, wanted):
            if "none" in wanted.prompt:
                raise Refused("login_required", "whoever is signed in did so too long ago")
            return await self._ask(request, f"{AUTHORIZE}?{urlencode(again(query))}")
        is_asked = bool(wanted.prompt & {"consent", "select_account"})
        if is_asked or not await self._openid.has_consent(session.account, app, wanted.told):
            if "none" in wanted.prompt:
                raise Refused("consent_required", "this person has not agreed yet")
            return self._question(request, session, app, back, wanted)
        return self._give(session, app, back, wanted)

    async def consent(self, request: Request) -> Response:
        """The answer to the question, from its own page."""
        check_origin(request, self._names.domain)
        query = _query(request)
        back = proven(query, self._names)
        form = await read_form(request)
        session = await self._visitors.session(request)
        if session is None or form.get("account") != [session.account.id]:
            # Signed out meanwhile, or as somebody else: who was asked has not answered.
            return RedirectResponse(_path(request), status_code=303)
        app = await self._openid.app(session.account, back)
        if app is None:
            return self._no_access(request, session.account, back)
        try:
            wanted = asked(query)
            if form.get("answer") != ["allow"]:
                raise Refused("access_denied", "this person did not agree")
        except Refused as refused:
            return self._say(back, refused)
        await self._openid.consent(session.account, app, wanted.told)
        caller = caller_of(session, source=source_of(request))
        words = " ".join(sorted(wanted.told))
        await self._login.witness.granted(caller, f"openid tell {words}", vm=app.vm_name)
        return self._give(session, app, back, wanted)

    def _question(
        self, request: Request, session: Session, app: App, back: Return, wanted: Asked
    ) -> Response:
        return self._pages.page(
            request,
            "openid.html",
            email=None,
            account=session.account,
            app=app,
            client=back.client_id,
            is_email_told="email" in wanted.told,
            action=f"{CONSENT}?{request.url.query}",
        )

    def _give(self, session: Session, app: App, back: Return, wanted: Asked) -> Response:
        code = self._openid.code(session, app, back, wanted)
        return RedirectResponse(back.url(self._issuer, code=code), status_code=303)

    def _say(self, back: Return, refused: Refused) -> Response:
        answer = back.url(self._issuer, error=refused.code, error_description=refused.text)
        return RedirectResponse(answer, status_code=303)

    def _no_access(self, request: Request, account: Account, back: Return) -> Response:
        return self._login.no_access(request, account, back.vm_name, host=back.client_id)

    async def _ask(self, request: Request, path: str) -> Response:
        return await self._login.ask(request, self._names.url(self._names.domain, path))


def _query(request: Request) -> Query:
    try:
        return parse_qs(
            request.url.query, keep_blank_values=True, max_num_fields=_FIELDS, errors="strict"
        )
    except ValueError as error:
        raise Invalid("the app's request cannot be read, or has too many parameters") from error


def _path(request: Request) -> str:
    """The request again, spelled so that it may be kept and followed."""
    return f"{AUTHORIZE}?{quote(request.url.query, safe='%&=+-._~:/')}"
