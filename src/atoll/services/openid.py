"""Atoll as an OpenID provider: tells apps in VMs who signs in there, to whom that person agreed.

Invariants: a code works once, for CODE_S, for the app, address and challenge it was made for; a second
use ends what the first gave. A code and an access token are worth nothing once their browser session has
ended or its account may no longer open the VM. ID tokens cannot be called back and so are short.
Codes and access tokens are lost with the process: an app then sends its visitor round once more.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Protocol

from atoll.domain.account import Account, Published
from atoll.domain.openid import Asked, Refused, Return, fits, half_hash
from atoll.services.issuer import Issuer
from atoll.services.sessions import Session
from atoll.services.shelf import Shelf
from atoll.store import accounts, consents, vms
from atoll.store.engine import Store

CODE_S = 60.0
TOKEN_S = 600.0
_EACH = 50  # of one session: as many tabs as a browser opens at once


class Reading(Protocol):
    """What is needed of atoll.services.sessions.Sessions."""

    async def session(self, session_id: str) -> Session | None:
        """The live session with this id."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """A VM whose app asks, as the person who is asked may know it."""

    vm: str  # id
    vm_name: str
    owner: str  # account id
    owner_email: str


@dataclass(slots=True, kw_only=True)
class _Grant:
    """What a code stands for; `given` is the access token it was traded for."""

    session_id: str
    app: App
    asked: Asked
    back: Return
    until: float
    uses: int = 0
    given: str = field(default="", repr=False)


class OpenId:
    """Codes, tokens and consents."""

    def __init__(
        self,
        *,
        store: Store,
        issuer: Issuer,
        sessions: Reading,
        published: Callable[[str], Awaitable[Published | None]],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._issuer = issuer
        self._sessions = sessions
        self._published = published
        self._now = now
        self._codes: Shelf[_Grant] = Shelf(each=_EACH, now=now)
        self._tokens: Shelf[_Grant] = Shelf(each=_EACH, now=now)

    async def app(self, account: Account, back: Return) -> App | None:
        """The VM that asks, if the account may open the page where its answer goes."""
        shown = await self._published(back.vm_name)
        if shown is None or not shown.may_be_opened(
            account.id, port=back.port, path=back.path, now=self._now()
        ):
            return None
        async with self._store.read() as tx:
            vm = await vms.named(tx, back.vm_name)
            owner = await accounts.by_id(tx, vm.owner) if vm is not None else None
        if vm is None or owner is None:
            return None
        return App(vm=vm.id, vm_name=back.vm_name, owner=owner.id, owner_email=owner.email)

    def is_recent(self, session: Session, asked: Asked) -> bool:
        """Whether its person has signed in as lately as the app wants."""
        if "login" in asked.prompt:
            return False
        age = self._now() - session.created_at
        return asked.max_age is None or age <= asked.max_age

    async def has_consent(self, account: Account, app: App, told: Collection[str]) -> bool:
        """Whether this account has agreed that this app is told that."""
        async with self._store.read() as tx:
            scope = await consents.scope_of(tx, account=account.id, vm=app.vm, owner=app.owner)
        return scope.issuperset(told)

    async def consent(self, account: Account, app: App, told: Collection[str]) -> None:
        """The account agrees."""
        async with self._store.begin() as tx:
            named = {"account": account.id, "vm": app.vm, "owner": app.owner}
            scope = await consents.scope_of(tx, **named)
            words = " ".join(sorted(scope | set(told)))
            await consents.put(tx, **named, scope=words, now=self._now())

    def code(self, session: Session, app: App, back: Return, asked: Asked) -> str:
        """A code that the app trades for tokens."""
        until = self._now() + CODE_S
        grant = _Grant(session_id=session.id, app=app, asked=asked, back=back, until=until)
        # Kept as long as what it may give, so that a second use is noticed.
        return self._codes.put(grant, owner=session.id, seconds=CODE_S + TOKEN_S)

    async def redeem(
        self, code: str, *, client_id: str, redirect_uri: str, verifier: str
    ) -> dict[str, Any]:
        """Trade a code for tokens. Raises Refused; the code is then over, whatever was wrong."""
        grant = self._codes.get(code)
        if grant is None:
            raise _over()
        grant.uses += 1
        self._tokens.drop(grant.given)
        if grant.uses > 1 or grant.until <= self._now():
            raise _over()
        if (client_id, redirect_uri) != (grant.back.client_id, grant.back.redirect_uri):
            raise Refused("invalid_grant", "the code was made for another client or redirect_uri")
        if not fits(verifier, grant.asked.challenge):
            raise Refused("invalid_grant", "code_verifier does not fit the code_challenge")
        session = await self._entitled(grant)
        if session is None or grant.uses > 1:
            raise _over()
        grant.given = self._tokens.put(grant, owner=session.id, seconds=TOKEN_S)
        return {
            "access_token": grant.given,
            "token_type": "Bearer",
            "expires_in": int(TOKEN_S),
            "scope": " ".join(grant.asked.told),
            "id_token": self._id_token(session, grant),
        }

    async def userinfo(self, token: str) -> dict[str, Any] | None:
        """What an access token tells; None when it is over."""
        grant = self._tokens.get(token)
        session = await self._entitled(grant) if grant is not None else None
        if grant is None or session is None:
            return None
        return _claims(session.account, grant.asked.told)

    async def _entitled(self, grant: _Grant) -> Session | None:
        """The session, if it is live and may still open that very VM, which is still that owner's."""
        session = await self._sessions.session(grant.session_id)
        if session is None or await self.app(session.account, grant.back) != grant.app:
            return None
        return session

    def _id_token(self, session: Session, grant: _Grant) -> str:
        nonce = {} if grant.asked.nonce is None else {"nonce": grant.asked.nonce}
        claims = {
            **_claims(session.account, grant.asked.told),
            **nonce,
            "auth_time": int(session.created_at),
            "sid": session.key,
            "at_hash": half_hash(grant.given),
        }
        return self._issuer.sign(claims, audience=grant.back.client_id, seconds=TOKEN_S)


def _claims(account: Account, told: Collection[str]) -> dict[str, Any]:
    email = {"email": account.email, "email_verified": True} if "email" in told else {}
    return {"sub": account.id, **email}


def _over() -> Refused:
    return Refused("invalid_grant", "the code was used, has ended or never was one")
