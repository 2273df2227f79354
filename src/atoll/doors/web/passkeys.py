"""Passkeys on the page: what a script asks for first, and the forms it then sends."""

from __future__ import annotations

from typing import Protocol

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route as Path

from atoll.base.errors import Denied
from atoll.domain.account import Account
from atoll.doors.front.hosts import check_origin, source_of
from atoll.doors.web.arriving import Arriving
from atoll.doors.web.cookies import set_cookie
from atoll.doors.web.sent import last, read_form
from atoll.doors.web.visitor import Visitors
from atoll.doors.web.witness import Witness
from atoll.services.passkeys import CHALLENGE_S
from atoll.store.passkeys import Passkey

COOKIE = "__Host-atoll-passkey"  # the secret of the browser that a challenge was made for
_HOW = "passkey"


class Keeping(Protocol):
    """What is needed of atoll.services.passkeys.Passkeys."""

    async def offer(self, account: Account) -> tuple[str, str]:
        """What a passkey is made of (JSON), and the cookie's secret."""
        ...

    async def add(self, account: Account, credential: str, *, browser: str, name: str) -> Passkey:
        """Keep what was made of it; raises AtollError."""
        ...

    def question(self, *, source: str) -> tuple[str, str]:
        """What passkeys are asked (JSON), and the cookie's secret; raises Exhausted."""
        ...

    async def account(self, credential: str, *, browser: str) -> Account:
        """Who answered; raises Denied."""
        ...


class PasskeyPages:
    """Every route is a POST of our own page."""

    def __init__(
        self,
        *,
        domain: str,
        passkeys: Keeping,
        visitors: Visitors,
        arriving: Arriving,
        witness: Witness,
    ) -> None:
        self._domain = domain
        self._passkeys = passkeys
        self._visitors = visitors
        self._arriving = arriving
        self._witness = witness

    def routes(self) -> list[Path]:
        """For the cloud's own host; before `/login/{code}`."""
        return [
            Path("/login/passkey/question", self.question, methods=["POST"]),
            Path("/login/passkey", self.sign_in, methods=["POST"]),
            Path("/passkeys/offer", self.offer, methods=["POST"]),
            Path("/passkeys", self.add, methods=["POST"]),
        ]

    async def question(self, request: Request) -> Response:
        """Somebody wants to sign in."""
        check_origin(request, self._domain)
        return _json(*self._passkeys.question(source=source_of(request)))

    async def sign_in(self, request: Request) -> Response:
        """A passkey has answered."""
        check_origin(request, self._domain)
        credential = last(await read_form(request), "credential")
        browser = request.cookies.get(COOKIE, "")
        try:
            account = await self._passkeys.account(credential, browser=browser)
        except Denied as error:
            await self._witness.refused(request, error.code, how=_HOW)
            raise
        response = await self._arriving.signed_in(request, account, how=_HOW)
        set_cookie(response, COOKIE, "", 0)
        return response

    async def offer(self, request: Request) -> Response:
        """Somebody signed in wants a passkey."""
        check_origin(request, self._domain)
        caller = await self._visitors.caller(request)
        return _json(*await self._passkeys.offer(caller.account))

    async def add(self, request: Request) -> Response:
        """It was made."""
        check_origin(request, self._domain)
        caller = await self._visitors.caller(request)
        form = await read_form(request)
        made = await self._passkeys.add(
            caller.account,
            last(form, "credential"),
            browser=request.cookies.get(COOKIE, ""),
            name=last(form, "name").strip(),
        )
        await self._witness.granted(caller, f"passkey add {made.name}")
        response = RedirectResponse("/keys", status_code=303)
        set_cookie(response, COOKIE, "", 0)
        return response


def _json(text: str, browser: str) -> Response:
    response = Response(text, media_type="application/json")
    set_cookie(response, COOKIE, browser, int(CHALLENGE_S))
    return response
