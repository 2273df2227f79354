"""Signing in by mail: the form that asks for a link, the link, and the code typed in its place.

Invariants: whoever asks gets the same answer for every address; looking at a link changes nothing, only
the POST of its own page does, and only in the browser that asked.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route as Path

from atoll.base.errors import Denied
from atoll.domain.account import Account
from atoll.domain.web import MAILED_PATH
from atoll.doors.front.hosts import check_origin, source_of
from atoll.doors.web.arriving import Arriving
from atoll.doors.web.cookies import set_cookie
from atoll.doors.web.sent import last, read_form
from atoll.doors.web.witness import Witness

ASKED_COOKIE = "__Host-atoll-asked"  # the secret of the browser that asked for a link
_ASKED_S = 900
_HOW = "mail"


class Mailing(Protocol):
    """What is needed of atoll.services.mailed_links.MailedLinks."""

    async def ask(self, email: str, *, source: str) -> str:
        """Somebody wants a link; the secret for the browser's cookie."""
        ...

    async def redeem(self, code: str, *, browser: str) -> Account:
        """The account of a link, once; raises Denied."""
        ...

    async def redeem_typed(self, typed: str, *, browser: str, source: str) -> Account:
        """The account of the short code; raises Denied."""
        ...


class MailedPages:
    """The pages of it."""

    def __init__(
        self,
        *,
        domain: str,
        links: Mailing,
        arriving: Arriving,
        witness: Witness,
    ) -> None:
        self._domain = domain
        self._links = links
        self._arriving = arriving
        self._witness = witness

    def routes(self) -> list[Path]:
        """For the cloud's own host; before `/login/{code}`. Looking at a link is `Login`'s."""
        return [
            Path("/login/mail", self.ask, methods=["POST"]),
            Path("/login/sent", self.sent, methods=["GET"]),
            Path("/login/typed", self.typed, methods=["POST"]),
            Path(f"{MAILED_PATH}{{code}}", self.redeem, methods=["POST"]),
        ]

    async def ask(self, request: Request) -> Response:
        """Take the address; what comes of it is nobody's business who asks."""
        check_origin(request, self._domain)
        email = last(await read_form(request), "email")
        browser = await self._links.ask(email, source=source_of(request))
        response = RedirectResponse("/login/sent", status_code=303)
        set_cookie(response, ASKED_COOKIE, browser, _ASKED_S)
        return response

    async def sent(self, request: Request) -> Response:
        """What to do now, and where to type the code."""
        return await self._arriving.page(request, "sent.html", problem="")

    async def redeem(self, request: Request) -> Response:
        """Use the link."""
        check_origin(request, self._domain)
        browser = request.cookies.get(ASKED_COOKIE, "")
        account = self._links.redeem(request.path_params["code"], browser=browser)
        return await self._signed_in(request, account)

    async def typed(self, request: Request) -> Response:
        """Use the short code."""
        check_origin(request, self._domain)
        typed = last(await read_form(request), "code")
        browser, source = request.cookies.get(ASKED_COOKIE, ""), source_of(request)
        account = self._links.redeem_typed(typed, browser=browser, source=source)
        return await self._signed_in(request, account)

    async def _signed_in(self, request: Request, account: Awaitable[Account]) -> Response:
        try:
            response = await self._arriving.signed_in(request, await account, how=_HOW)
        except Denied as error:
            await self._witness.refused(request, error.code, how=_HOW)
            return await self._arriving.page(request, "sent.html", status=403, problem=str(error))
        set_cookie(response, ASKED_COOKIE, "", 0)
        return response
