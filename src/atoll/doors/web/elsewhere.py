"""Signing in with an account of another provider's: there and back.

    GET /login/with/<name>   from our own page; the browser keeps a secret and goes to the provider
    GET /login/from/<name>   the provider's answer, which counts only with that secret

Invariant: what a provider says is shown as text, and its answer is good for one try.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from atoll.base.errors import AtollError, NotFound
from atoll.base.secret import is_secret, new_secret
from atoll.domain.account import Account
from atoll.doors.front.hosts import check_origin
from atoll.doors.web.arriving import Arriving
from atoll.doors.web.cookies import set_cookie
from atoll.doors.web.pages import Pages
from atoll.doors.web.witness import Witness
from atoll.services.elsewhere import Elsewhere, Person

BACK = "/login/from/"
_HOW = "provider"
_COOKIE = "__Host-atoll-elsewhere"
_SECONDS = 600  # to sign in there


class Finding(Protocol):
    """What is needed of atoll.services.identities.Identities."""

    async def account(self, person: Person) -> Account:
        """The account of somebody at a provider; raises Denied."""
        ...


class SignInElsewhere:
    """The routes."""

    def __init__(
        self,
        *,
        host: str,
        providers: Sequence[Elsewhere],
        identities: Finding,
        pages: Pages,
        arriving: Arriving,
        witness: Witness,
    ) -> None:
        self._host = host
        self._providers = {provider.name: provider for provider in providers}
        self._identities = identities
        self._pages = pages
        self._arriving = arriving
        self._witness = witness

    def routes(self) -> tuple[BaseRoute, ...]:
        """For the cloud's own host."""
        return (
            Route("/login/with/{name}", self.begin, methods=["GET"]),
            Route(f"{BACK}{{name}}", self.finish, methods=["GET"]),
        )

    async def begin(self, request: Request) -> Response:
        """Off to the provider."""
        check_origin(request, self._host)  # nobody is sent there by a page of a VM
        secret = new_secret()
        url = await self._provider(request).begin(secret)
        response = RedirectResponse(url, status_code=303)
        set_cookie(response, _COOKIE, secret, _SECONDS)
        return response

    async def finish(self, request: Request) -> Response:
        """Back from it."""
        try:
            account = await self._account(request)
            response = await self._arriving.signed_in(request, account, how=_HOW)
        except AtollError as error:
            await self._witness.refused(request, error.code, how=_HOW)
            response = self._pages.message(
                request, "That did not work", error.message, hint=error.hint, status=error.http
            )
        set_cookie(response, _COOKIE, "", 0)
        return response

    async def _account(self, request: Request) -> Account:
        provider, secret = self._provider(request), request.cookies.get(_COOKIE, "")
        if not is_secret(secret):
            secret = new_secret()  # fits no answer
        person = await provider.finish(secret, request.query_params)
        return await self._identities.account(person)

    def _provider(self, request: Request) -> Elsewhere:
        provider = self._providers.get(request.path_params["name"])
        if provider is None:
            raise NotFound("there is no provider of this name here", hint="Try: /login")
        return provider
