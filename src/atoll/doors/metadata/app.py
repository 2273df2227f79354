"""The ASGI application behind `http://metadata.int`, for VMs alone.

    GET /                      what this VM is, as JSON
    GET /token?audience=...    a token that names it: text, or JSON for who accepts that

Who asks is the peer's address of the connection and nothing else. Invariants: a request that somebody
passed on, or that a browser was lured into by a name of its attacker's (DNS rebinding), is refused.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from atoll.base import log
from atoll.base.errors import AtollError, Denied, Exhausted, Internal, Invalid, NotFound
from atoll.base.limits import Limits
from atoll.domain.web import METADATA_HOST
from atoll.services.workload import TOKEN_S

URL = f"http://{METADATA_HOST}"
_PASSED_ON = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
_log = log.get("metadata")


class Naming(Protocol):
    """What is needed of atoll.services.workload.Workload."""

    async def about(self, address: str) -> dict[str, Any]:
        """What the VM at this address is; raises NotFound."""
        ...

    async def token(self, address: str, *, audience: str) -> str:
        """A token that names it; raises NotFound or Invalid."""
        ...


class Metadata:
    """The application; `more` are routes where it does not matter which VM asks: OpenID Connect's."""

    def __init__(self, *, workload: Naming, limits: Limits, more: Sequence[BaseRoute] = ()) -> None:
        self._workload = workload
        self._limits = limits
        self._more = more

    def app(self) -> ASGIApp:
        """To be served where VMs connect from their outer addresses, with no proxy between."""
        routes = (
            Route("/", self.about, methods=["GET"]),
            Route("/token", self.token, methods=["GET"]),
            *self._more,
        )
        handlers: dict[int | type[Exception], Any] = {
            AtollError: self._failed,
            HTTPException: self._no_route,
            Exception: self._defect,
        }
        return Starlette(routes=routes, exception_handlers=handlers)

    async def about(self, request: Request) -> Response:
        """What this VM is."""
        return JSONResponse(await self._workload.about(self._peer(request)), headers=_HEADERS)

    async def token(self, request: Request) -> Response:
        """A token that names this VM."""
        peer, audiences = self._peer(request), request.query_params.getlist("audience")
        if len(audiences) != 1:
            raise Invalid("say for whom, once", hint="Try: /token?audience=https://api.example.com")
        token = await self._workload.token(peer, audience=audiences[0])
        if "application/json" in request.headers.get("accept", ""):
            said = {"token": token, "expires_in": int(TOKEN_S)}
            return JSONResponse(said, headers=_HEADERS)
        return PlainTextResponse(token, headers=_HEADERS)

    def _peer(self, request: Request) -> str:
        """The VM's address; raises Denied, or Exhausted when it asks too often."""
        if any(name in request.headers for name in _PASSED_ON):
            raise Denied("a request that was passed on says nothing about who asks")
        host = request.headers.get("host", "").partition(":")[0].lower()
        if host != METADATA_HOST and not _is_address(host):
            raise Denied(f"this is {METADATA_HOST}, not {host[:80]!r}", hint=f"Try: curl {URL}/")
        if request.client is None:
            raise Denied("who asks has no address")
        if seconds := self._limits.wait_s(request.client.host):
            raise Exhausted("this VM asks too often", hint=f"Try again in {seconds} s")
        return request.client.host

    async def _failed(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, AtollError)
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse(error.to_wire(), status_code=error.http, headers=_HEADERS)
        return PlainTextResponse(f"{error}\n", status_code=error.http, headers=_HEADERS)

    async def _no_route(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            return PlainTextResponse("only GET works here\n", status_code=405, headers=_HEADERS)
        said = NotFound("there is nothing at this path", hint="Try: / or /token?audience=…")
        return await self._failed(request, said)

    async def _defect(self, request: Request, error: Exception) -> Response:
        _log.error("request failed", exc_info=error)
        return await self._failed(
            request, Internal("a defect of ours; the log of control says more")
        )


_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


def _is_address(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True
