"""A browser that has just signed in: its session, its cookies, and on to where the person was going."""

from __future__ import annotations

from typing import Protocol
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from atoll.domain.account import Account
from atoll.domain.web import SESSION_COOKIE, Names, Target
from atoll.doors.front.hosts import source_of

TO_COOKIE = "__Host-atoll-to"  # where somebody was going who must sign in first


class Beginning(Protocol):
    """What is needed of atoll.services.sessions.Sessions."""

    async def new_session(
        self, account_id: str, *, user_agent: str = "", source: str = "", how: str = ""
    ) -> str:
        """A new session's id."""
        ...


class Arriving:
    """Begins sessions."""

    def __init__(self, *, names: Names, sessions: Beginning, session_seconds: float) -> None:
        self._names = names
        self._sessions = sessions
        self._session_s = int(session_seconds)

    async def signed_in(self, request: Request, account: Account, *, how: str) -> Response:
        """A new session of `account` in this browser, then on to where the person was going."""
        session_id = await self._sessions.new_session(
            account.id,
            user_agent=request.headers.get("user-agent", ""),
            source=source_of(request),
            how=how,
        )
        target = self._names.target(request.cookies.get(TO_COOKIE, ""))
        response = RedirectResponse(_onward(target), status_code=303)
        set_cookie(response, SESSION_COOKIE, session_id, self._session_s)
        set_cookie(response, TO_COOKIE, "", 0)
        return response


def _onward(target: Target | None) -> str:
    if target is None:
        return "/"
    return "/login?to=" + quote(f"https://{target.authority}{target.path}", safe="")


def set_cookie(response: Response, name: str, value: str, seconds: int) -> None:
    """A cookie of this host alone, that no script reads."""
    response.set_cookie(
        name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite="lax"
    )
