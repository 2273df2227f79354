"""Who looks at a page: the session in the cookie, as a caller of the language."""

from __future__ import annotations

from typing import ClassVar, Protocol

from starlette.requests import HTTPConnection

from atoll.base.errors import Denied
from atoll.domain.account import Account, Caller, Door
from atoll.domain.web import SESSION_COOKIE
from atoll.doors.front.hosts import source_of
from atoll.services.sessions import Session, credential


class SignInFirst(Denied):
    """Nobody is signed in here."""

    http: ClassVar[int] = 401


class Signed(Protocol):
    """A browser session."""

    @property
    def id(self) -> str:
        """Its secret."""

    @property
    def key(self) -> str:
        """What it is called."""

    @property
    def account(self) -> Account:
        """Whose it is."""


def caller_of(session: Signed, *, source: str) -> Caller:
    """Whoever is signed in, as a caller from that address."""
    return signed_in_as(session.account, session.key, source=source)


def signed_in_as(account: Account, key: str, *, source: str) -> Caller:
    """The caller that a session called `key` is, or was."""
    return Caller(account=account, door=Door.WEB, source=source, token=credential(key))


class Reading(Protocol):
    """What is needed of atoll.services.sessions.Sessions."""

    async def session(self, session_id: str) -> Session | None:
        """The live session with this id."""
        ...

    async def seen(self, session: Session, *, source: str) -> None:
        """Note that its browser was here."""
        ...


class Visitors:
    """Knows callers by their cookie; `ssh` is the command that reaches the lobby."""

    def __init__(self, *, sessions: Reading, ssh: str) -> None:
        self._sessions = sessions
        self._ssh = ssh

    async def session(self, request: HTTPConnection) -> Session | None:
        """The session of this browser."""
        session = await self._sessions.session(request.cookies.get(SESSION_COOKIE, ""))
        if session is not None:
            await self._sessions.seen(session, source=source_of(request))
        return session

    async def caller(self, request: HTTPConnection) -> Caller:
        """Who acts; raises SignInFirst."""
        session = await self.session(request)
        if session is None:
            raise SignInFirst("nobody is signed in here", hint=f"{self._ssh} browser")
        return caller_of(session, source=source_of(request))
