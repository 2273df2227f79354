"""Signing in: a one-time link makes a session here, a handoff carries it to a VM's own host.

    ssh … browser      ->  /login/<code>            session cookie on the cloud's host
    VM page, no token  ->  /login?to=<VM page>      is it ours, may they? one-time handoff code
                       ->  <VM host>/__atoll/auth   token cookie on that host, back to the page

Invariants: no cookie is shared between hosts; redirects lead to our own hosts only; looking at a
link changes nothing, only the POST of its own page does; a signed-in stranger learns no names.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route as Path

from atoll.base.errors import Denied
from atoll.domain.account import Account, Published
from atoll.domain.web import (
    DOOR_PATH,
    HOST_HEADER,
    SESSION_COOKIE,
    TOKEN_COOKIE,
    TOKEN_S,
    Names,
    own_path,
)
from atoll.doors.front.hosts import check_origin
from atoll.doors.web.onward import Onward, set_cookie
from atoll.doors.web.pages import Pages
from atoll.doors.web.visitor import Reading, Visitors
from atoll.services.sessions import Session


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
        session_seconds: float,
        sessions: SigningIn,
        published: Callable[[], Awaitable[tuple[Published, ...]]],
    ) -> None:
        self._names = names
        self._ssh = ssh
        self._visitors = visitors
        self._pages = pages
        self._session_s = int(session_seconds)
        self._sessions = sessions
        self._published = published
        self._onward = Onward(names)

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
        return await self.enter(request, account)

    async def enter(self, request: Request, account: Account) -> Response:
        """Sign this browser in as whoever has proven to be `account`, and lead on."""
        agent = request.headers.get("user-agent", "")
        session_id = await self._sessions.new_session(account.id, user_agent=agent)
        response = RedirectResponse(self._onward.kept(request), status_code=303)
        set_cookie(response, SESSION_COOKIE, session_id, self._session_s)
        self._onward.forget(response)
        return response

    async def login(self, request: Request) -> Response:
        """Send a signed-in person on: to a path of ours, or to a VM page with a code for its host."""
        to = request.query_params.get("to", "")
        if to and not self._onward.is_ours(to):
            return self._pages.message(
                request, "Not one of our pages", "This link leads to something that is not a VM here.",
                status=400,
            )  # fmt: skip
        session = await self._visitors.session(request)
        if session is None:
            return self.ask(request, to)
        target = self._onward.target(to)
        if target is None:
            return RedirectResponse(self._onward.path(to) or "/", status_code=303)
        if not await self._may_open(session.account, target.vm_name):
            return self._pages.message(
                request,
                "No access",
                f"There is no VM at {target.host}, or it is not shared with you.",
                hint=f"{self._ssh} ls",
                status=403,
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
        set_cookie(response, TOKEN_COOKIE, token, int(TOKEN_S))
        return response

    async def vm_logout(self, request: Request) -> Response:
        """Sign this browser out, from a VM's own page: the whole session ends."""
        host = request.headers[HOST_HEADER]
        check_origin(request, host)
        key = self._sessions.session_key_in(request.cookies.get(TOKEN_COOKIE, ""), host=host)
        if key is not None:
            await self._sessions.revoke_key(key)
        response = RedirectResponse(self._names.url(self._names.domain), status_code=303)
        set_cookie(response, TOKEN_COOKIE, "", 0)
        return response

    async def logout(self, request: Request) -> Response:
        """Sign this browser out everywhere."""
        check_origin(request, self._names.domain)
        await self._sessions.revoke(request.cookies.get(SESSION_COOKIE, ""))
        response = RedirectResponse("/", status_code=303)
        set_cookie(response, SESSION_COOKIE, "", 0)
        return response

    async def _may_open(self, account: Account, vm_name: str) -> bool:
        return any(
            vm.vm_name == vm_name and (vm.is_public or account.id in vm.accounts)
            for vm in await self._published()
        )

    def ask(self, request: Request, to: str) -> Response:
        """The page to sign in on, also for somebody who is; leads on to `to`."""
        response = self._sign_in_first(request)
        self._onward.keep(response, to)
        return response

    def _sign_in_first(self, request: Request) -> Response:
        return self._pages.sign_in(
            request, "This page is private. Type this where your SSH key is, and open the link it"
            " prints.", hint=f"{self._ssh} browser",
        )  # fmt: skip
