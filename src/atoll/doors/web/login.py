"""Signing in: a one-time link makes a session here, a handoff carries it to a VM's own host.

    ssh … browser      ->  /login/<code>            session cookie on the cloud's host
                           (by mail: doors.web.mailed; by passkey: doors.web.passkeys)
    VM page, no token  ->  /login?to=<VM page>      is it ours, may they?
                       ->  <VM host>/__atoll/login  a secret for this browser on that host
                       ->  /login?to=…&way=…        one-time handoff code, good with that secret
                       ->  <VM host>/__atoll/auth   token cookie on that host, back to the page

Invariants: no cookie is shared between hosts; redirects lead to our own hosts only; looking at a
link changes nothing, only the POST of its own page does; a signed-in stranger learns no names.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Protocol
from urllib.parse import quote, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route as Path

from atoll.base.errors import Denied
from atoll.domain.account import Account, Published
from atoll.domain.web import (
    DOOR_PATH,
    HOST_HEADER,
    MAILED_PATH,
    SESSION_COOKIE,
    TOKEN_COOKIE,
    TOKEN_S,
    Names,
    Target,
    login_path,
    own_path,
)
from atoll.doors.front.hosts import check_origin
from atoll.doors.web.arriving import TO_COOKIE, Arriving, Beginning
from atoll.doors.web.cookies import set_cookie
from atoll.doors.web.forms import Forms
from atoll.doors.web.pages import Pages
from atoll.doors.web.visitor import Reading, Visitors
from atoll.doors.web.witness import Witness
from atoll.services.sessions import Session

_TO_S = 900
_TO_BYTES = 3_000  # a browser keeps cookies of 4 KiB
_HOW = "link"
_WAY_COOKIE = (
    "__Host-atoll-way"  # on a VM's host: the secret of a browser that is to be signed in there
)
_WAY = re.compile(r"[A-Za-z0-9_-]{22}")


class SigningIn(Reading, Beginning, Protocol):
    """What is needed of atoll.services.sessions.Sessions."""

    async def redeem(self, code: str) -> Account:
        """The account of a login code, once; Denied otherwise."""
        ...

    async def revoke(self, session_id: str) -> None:
        """End a session."""
        ...

    async def revoke_key(self, key: str) -> None:
        """End a session by its key."""
        ...

    async def account_of_key(self, key: str) -> Account | None:
        """Whose live session this is."""
        ...

    def session_key_in(self, token: str, *, host: str) -> str | None:
        """The session key in a token of ours for `host`."""
        ...

    def handoff(self, session: Session, *, host: str, way: str) -> str:
        """A one-time code that carries the session to `host`."""
        ...

    async def redeem_handoff(self, code: str, *, host: str, way: str) -> Session | None:
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
        arriving: Arriving,
        sessions: SigningIn,
        published: Callable[[str], Awaitable[Published | None]],
        witness: Witness,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._names = names
        self._ssh = ssh
        self._visitors = visitors
        self._pages = pages
        self._forms = forms
        self._now = now
        self._arriving = arriving
        self._sessions = sessions
        self._published = published
        self.witness = witness

    def cloud_routes(self) -> list[Path]:
        """For the cloud's own host."""
        return [
            Path("/login", self.login, methods=["GET"]),
            Path("/login/{code}", self.look, methods=["GET"]),
            Path(f"{MAILED_PATH}{{code}}", self.look, methods=["GET"]),
            Path("/login/{code}", self.redeem, methods=["POST"]),
            Path("/logout", self.logout, methods=["POST"]),
        ]

    def vm_routes(self) -> list[Path]:
        """For every VM's host."""
        return [
            Path(f"{DOOR_PATH}login", self.begin, methods=["GET"]),
            Path(f"{DOOR_PATH}auth", self.auth, methods=["GET"]),
            Path(f"{DOOR_PATH}logout", self.vm_logout, methods=["POST"]),
        ]

    async def look(self, request: Request) -> Response:
        """A sign-in link opened: a page that posts to it, which previews and mail scanners do not.

        Where somebody is signed in they are asked: whoever made them open the link may be another.
        """
        action = quote(request.scope["path"])
        session = await self._visitors.session(request)
        now = session.account.email if session else ""
        return await self._arriving.page(request, "confirm.html", action=action, now=now)

    async def redeem(self, request: Request) -> Response:
        """Use the code: a new session, then on to where the person was going."""
        check_origin(request, self._names.domain)
        try:
            account = await self._sessions.redeem(request.path_params["code"])
        except Denied as error:
            await self.witness.refused(request, error.code, how=_HOW)
            return self._pages.message(
                request, "This link is over", error.message, hint=f"{self._ssh} browser", status=403
            )
        return await self._arriving.signed_in(request, account, how=_HOW)

    async def login(self, request: Request) -> Response:
        """Send a signed-in person on to the page in `to`; to a VM's with a code for that host."""
        to = request.query_params.get("to", "")
        target, page = await self._arriving.target(to), self._names.page(to)
        if to and target is None and page is None:
            return self._not_ours(request)
        session = await self._visitors.session(request)
        if session is None:
            return await self.ask(request, to)
        if target is None:
            return RedirectResponse(page or "/", status_code=303)
        if not await self._may_open(session.account, target):
            url, vm = f"https://{target.host}", target.vm_name
            await self.witness.opened(request, session, vm=vm, url=url, result=Denied.code)
            return self.no_access(request, session.account, target.vm_name, host=target.host)
        way = request.query_params.get("way", "")
        if not _WAY.fullmatch(way):
            begin = f"https://{target.authority}{DOOR_PATH}login?to={quote(target.path, safe='')}"
            return RedirectResponse(begin, status_code=303)
        code = self._sessions.handoff(session, host=target.host, way=way)
        onward = f"{DOOR_PATH}auth?code={code}&to={quote(target.path, safe='')}"
        return RedirectResponse(f"https://{target.authority}{onward}", status_code=303)

    async def begin(self, request: Request) -> Response:
        """On a VM's host: give this browser a secret, which a code must be made for, and lead on."""
        path = own_path(request.query_params.get("to", "/"))
        target = await self._arriving.target(f"https://{request.headers.get('host', '')}{path}")
        if target is None or target.host != request.headers[HOST_HEADER]:
            return self._not_ours(request)
        way = request.cookies.get(_WAY_COOKIE, "")
        if not _WAY.fullmatch(way):  # else another tab is on its way, too
            way = secrets.token_urlsafe(16)
        onward = self._names.url(self._names.domain, f"{login_path(target.url)}&way={way}")
        response = RedirectResponse(onward, status_code=303)
        set_cookie(response, _WAY_COOKIE, way, _TO_S)
        return response

    async def auth(self, request: Request) -> Response:
        """On a VM's host: trade the handoff code for this host's token."""
        host = request.headers[HOST_HEADER]
        code = request.query_params.get("code", "")
        way = request.cookies.get(_WAY_COOKIE, "")
        session = await self._sessions.redeem_handoff(code, host=host, way=way)
        path = own_path(request.query_params.get("to", "/"))
        response = RedirectResponse(path, status_code=303)  # without a token: round once more
        if session is None:
            return self._pages.message(
                request, "This link is over", "Open the page again to sign in.", hint=f"https://{host}",
                status=403,
            )  # fmt: skip
        vm = self._names.vm_of(host)
        await self.witness.opened(request, session, vm=vm, url=f"https://{host}")
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
            account = await self._sessions.account_of_key(key)
            await self._sessions.revoke_key(key)
            await self.witness.signed_out(request, account, key)
        response = RedirectResponse(self._names.url(self._names.domain), status_code=303)
        set_cookie(response, TOKEN_COOKIE, "", 0)
        return response

    async def logout(self, request: Request) -> Response:
        """Sign this browser out everywhere."""
        check_origin(request, self._names.domain)
        session = await self._visitors.session(request)
        await self._sessions.revoke(request.cookies.get(SESSION_COOKIE, ""))
        if session is not None:
            await self.witness.signed_out(request, session.account, session.key)
        response = RedirectResponse("/", status_code=303)
        set_cookie(response, SESSION_COOKIE, "", 0)
        return response

    async def _may_open(self, account: Account, target: Target) -> bool:
        vm = await self._published(target.vm_name)
        path = urlsplit(target.path).path
        return vm is not None and vm.may_be_opened(
            account.id, port=target.port, path=path, now=self._now()
        )

    def _not_ours(self, request: Request) -> Response:
        text = "This link leads to something that is not a VM here."
        return self._pages.message(request, "Not one of our pages", text, status=400)

    def no_access(self, request: Request, account: Account, vm_name: str, *, host: str) -> Response:
        """There is no such VM, or it is not theirs to open: the same page, with a way to ask."""
        return self._pages.page(
            request,
            "no-access.html",
            status=403,
            email=account.email,
            host=host,
            ask=self._forms.form("share ask", ("message",), {"vm": vm_name}),
        )

    async def ask(self, request: Request, to: str = "") -> Response:
        """The page to sign in on, also for somebody who is; leads on to `to`, a URL of ours."""
        kept = to if len(to) <= _TO_BYTES else ""
        response = await self._arriving.page(request, "sign-in.html", to=kept, status=401)
        if kept:
            set_cookie(response, TO_COOKIE, kept, _TO_S)
        return response
