"""The pages that sign a browser in; then its session and cookies, and on to where somebody was going."""

from __future__ import annotations

from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from atoll.domain.account import Account
from atoll.domain.web import FORM_TARGET, SESSION_COOKIE, Names, Target, login_path
from atoll.doors.front.app import Custom
from atoll.doors.front.hosts import source_of
from atoll.doors.web.cookies import set_cookie
from atoll.doors.web.pages import Pages
from atoll.doors.web.witness import Witness
from atoll.services.sessions import key_of

TO_COOKIE = "__Host-atoll-to"  # where somebody was going who must sign in first


class Beginning(Protocol):
    """What is needed of atoll.services.sessions.Sessions."""

    async def new_session(
        self, account_id: str, *, user_agent: str = "", source: str = "", how: str = ""
    ) -> str:
        """A new session's id."""
        ...


class Arriving:
    """Shows who signs in where to, and begins sessions."""

    def __init__(
        self,
        *,
        names: Names,
        sessions: Beginning,
        session_seconds: float,
        pages: Pages,
        witness: Witness,
        custom: Custom,
    ) -> None:
        self._names = names
        self._pages = pages
        self._sessions = sessions
        self._witness = witness
        self._custom = custom
        self._session_s = int(session_seconds)

    async def signed_in(self, request: Request, account: Account, *, how: str) -> Response:
        """A new session of `account` in this browser, then on to where the person was going."""
        session_id = await self._sessions.new_session(
            account.id,
            user_agent=request.headers.get("user-agent", ""),
            source=source_of(request),
            how=how,
        )
        await self._witness.signed_in(request, account, key_of(session_id), how=how)
        response = RedirectResponse(await self._onward(request), status_code=303)
        set_cookie(response, SESSION_COOKIE, session_id, self._session_s)
        set_cookie(response, TO_COOKIE, "", 0)
        return response

    async def target(self, to: str) -> Target | None:
        """The VM page in a `to`: on a host of ours, or on a custom domain exactly as it is registered."""
        return self._names.target(to, await self._custom()) if to else None

    async def page(
        self, request: Request, template: str, *, to: str = "", status: int = 200, **values: Any
    ) -> Response:
        """A page with a form that signs in; `to` is where that leads if not where somebody was going.

        A form's redirects count as its action, and the way may end at a custom domain.
        """
        target = await self.target(to or request.cookies.get(TO_COOKIE, ""))
        if target is not None:
            request.scope[FORM_TARGET] = target.authority
        return self._pages.page(request, template, status=status, email=None, **values)

    async def _onward(self, request: Request) -> str:
        """Where somebody was going who had to sign in first."""
        to = request.cookies.get(TO_COOKIE, "")
        target = await self.target(to)
        if target is not None:
            return login_path(target.url)
        return self._names.page(to) or "/"
