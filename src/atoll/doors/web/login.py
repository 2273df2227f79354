"""Signing in: a one-time link makes a session here, a handoff carries it to a VM's own host.

    ssh … browser      ->  /login/<code>            session cookie on the cloud's host
    VM page, no token  ->  /login?to=<VM page>      is it ours, may they? one-time handoff code
                       ->  <VM host>/__atoll/auth   token cookie on that host, back to the page

Invariants: no cookie is shared between hosts; redirects lead to our own hosts only; looking at a
link changes nothing, only the POST of its own page does; a signed-in stranger learns no names.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Protocol
from urllib.parse import quote, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route as Path

from atoll.base.errors import Denied
from atoll.domain.account import Account, Published
from atoll.domain.sharing import may_open
from atoll.domain.web import (
    DOOR_PATH,
    HOST_HEADER,
    SESSION_COOKIE,
    TOKEN_COOKIE,
    TOKEN_S,
    Names,
    Target,
    own_path,
)
from atoll.doors.front.hosts import check_origin
from atoll.doors.web.forms import Forms
from atoll.doors.web.pages import Pages
from atoll.doors.web.visitor import Reading, Visitors
from atoll.services.sessions import Session

_TO_COOKIE = "__Host-atoll-to"  # where somebody was going who must sign in first
_TO_S = 900
_TO_BYTES = 2_000


class SigningIn(Reading, Protocol):
    """What is needed of atoll.services.sessions.Sessions."""

    async def redeem(self, code: str) -> Account:
        """The account of a login code, once; Denied otherwise."""
        ...

    async def new_session(self, account_id: str, *, user_agent: str = "") -> str:
        """A new session's id."""
        ...

    async def revoke(self, session_id: str) -> None:
        """End a session."""
        ...

    async def revoke_key(self, key: str) -> None:
        """End a session by its key."""
        ...

    def session_key_in(self, token: str, *, host: str) -> str | None:
        """The session key in a token of ours for `host`."""
        ...

    def handoff(self, session: Session, *, host: str) -> str:
        """A one-time code that carries the session to `host`."""
        ...

    async def redeem_handoff(self, code: str, *, host: str) -> Session | None:
        """The session behind such a code, once."""
        ...

    def mint(
        self, *, host: str, account: Account, session_id: str, until: float | None = None
    ) -> str:
        """A token for `host`."""
        ...


class Login:
    """The sign-in pages."""

    def __init__(
        self,
        *,
        names: Names,
        ssh: str,
        visitors: Visitors,
        pages: Pages,
        forms: Forms,
        session_seconds: float,
        sessions: SigningIn,
        published: Callable[[], Awaitable[tuple[Published, ...]]],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._names = names
        self._ssh = ssh
        self._visitors = visitors
        self._pages = pages
        self._forms = forms
        self._now = now
        self._session_s = int(session_seconds)
        self._sessions = sessions
        self._published = published

    def cloud_routes(self) -> list[Path]:
        """For the cloud's own host."""
        return [
            Path("/login", self.login, methods=["GET"]),
            Path("/login/{code}", self.look, methods=["GET"]),
            Path("/login/{code}", self.redeem, methods=["POST"]),
            Path("/logout", self.logout, methods=["POST"]),
        ]

    def vm_routes(self) -> list[Path]:
        """For every VM's host."""
        return [
            Path(f"{DOOR_PATH}auth", self.auth, methods=["GET"]),
            Path(f"{DOOR_PATH}logout", self.vm_logout, methods=["POST"]),
        ]

    async def look(self, request: Request) -> Response:
        """A sign-in link opened: a page that posts the code, which a mere preview does not.

        Where somebody is signed in they are asked: whoever made them open the link may be another.
        """
        action = f"/login/{quote(request.path_params['code'], safe='')}"
        session = await self._visitors.session(request)
        now = session.account.email if session else ""
        return self._pages.page(request, "confirm.html", action=action, email=None, now=now)

    async def redeem(self, request: Request) -> Response:
        """Use the code: a new session, then on to where the person was going."""
        check_origin(request, self._names.domain)
        try:
            account = await self._sessions.redeem(request.path_params["code"])
        except Denied as error:
            return self._pages.message(
                request, "This link is over", error.message, hint=f"{self._ssh} browser", status=403
            )
        agent = request.headers.get("user-agent", "")
        session_id = await self._sessions.new_session(account.id, user_agent=agent)
        response = RedirectResponse(self._onward(request), status_code=303)
        _set_cookie(response, SESSION_COOKIE, session_id, self._session_s)
        _set_cookie(response, _TO_COOKIE, "", 0)
        return response

    def _onward(self, request: Request) -> str:
        """Where somebody was going who had to sign in first."""
        to = request.cookies.get(_TO_COOKIE, "")
        target = self._names.target(to)
        if target is not None:
            return f"/login?to={_url(target.authority, target.path)}"
        return self._names.page(to) or "/"

    async def login(self, request: Request) -> Response:
        """Send a signed-in person on to the page in `to`; to a VM's with a code for that host."""
        to = request.query_params.get("to", "")
        target, page = self._names.target(to), self._names.page(to)
        if to and target is None and page is None:
            return self._pages.message(
                request, "Not one of our pages", "This link leads to something that is not a VM here.",
                status=400,
            )  # fmt: skip
        session = await self._visitors.session(request)
        if session is None:
            response = self._sign_in_first(request)
            if to and len(to) <= _TO_BYTES:
                _set_cookie(response, _TO_COOKIE, to, _TO_S)
            return response
        if target is None:
            return RedirectResponse(page or "/", status_code=303)
        if not await self._may_open(session.account, target):
            return self._pages.page(
                request,
                "no-access.html",
                status=403,
                email=session.account.email,
                host=target.host,
                ask=self._forms.form("share ask", ("message",), {"vm": target.vm_name}),
            )
        code = self._sessions.handoff(session, host=target.host)
        onward = f"{DOOR_PATH}auth?code={code}&to={quote(target.path, safe='')}"
        return RedirectResponse(f"https://{target.authority}{onward}", status_code=303)

    async def auth(self, request: Request) -> Response:
        """On a VM's host: trade the handoff code for this host's token."""
        host = request.headers[HOST_HEADER]
        code = request.query_params.get("code", "")
        session = await self._sessions.redeem_handoff(code, host=host)
        path = own_path(request.query_params.get("to", "/"))
        response = RedirectResponse(path, status_code=303)  # without a token: round once more
        if session is None:
            return self._pages.message(
                request, "This link is over", "Open the page again to sign in.", hint=f"https://{host}",
                status=403,
            )  # fmt: skip
        token = self._sessions.mint(
            host=host, account=session.account, session_id=session.id, until=session.expires_at
        )
        _set_cookie(response, TOKEN_COOKIE, token, int(TOKEN_S))
        return response

    async def vm_logout(self, request: Request) -> Response:
        """Sign this browser out, from a VM's own page: the whole session ends."""
        host = request.headers[HOST_HEADER]
        check_origin(request, host)
        key = self._sessions.session_key_in(request.cookies.get(TOKEN_COOKIE, ""), host=host)
        if key is not None:
            await self._sessions.revoke_key(key)
        response = RedirectResponse(self._names.url(self._names.domain), status_code=303)
        _set_cookie(response, TOKEN_COOKIE, "", 0)
        return response

    async def logout(self, request: Request) -> Response:
        """Sign this browser out everywhere."""
        check_origin(request, self._names.domain)
        await self._sessions.revoke(request.cookies.get(SESSION_COOKIE, ""))
        response = RedirectResponse("/", status_code=303)
        _set_cookie(response, SESSION_COOKIE, "", 0)
        return response

    async def _may_open(self, account: Account, target: Target) -> bool:
        path = urlsplit(target.path).path
        for vm in await self._published():
            if vm.vm_name == target.vm_name:
                port = target.port or vm.port
                return may_open(vm.openings, account.id, port=port, path=path, now=self._now())
        return False

    def _sign_in_first(self, request: Request) -> Response:
        return self._pages.message(
            request, "Sign in", "This page is private. Type this where your SSH key is, and open the"
            " link it prints.", hint=f"{self._ssh} browser", status=401,
        )  # fmt: skip


def _url(authority: str, path: str) -> str:
    return quote(f"https://{authority}{path}", safe="")


def _set_cookie(response: Response, name: str, value: str, seconds: int) -> None:
    response.set_cookie(
        name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite="lax"
    )
