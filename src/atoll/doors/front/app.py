"""The ASGI application: which host, which route, which headers every answer carries."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atoll.base import log
from atoll.base.errors import AtollError, Internal, Invalid, NotFound
from atoll.domain.web import FORM_TARGET, HOST_HEADER, SOCKET_PATH, STYLE_NONCE, Names

# What people see of an error, with a status; None: they are a program, and get JSON.
Refuse: TypeAlias = Callable[[Request, AtollError, int], Awaitable[Response | None]]
Handler: TypeAlias = Callable[[Request, Exception], Awaitable[Response]]

# Domains that stand for a VM -> its name.
Custom: TypeAlias = Callable[[], Awaitable[Mapping[str, str]]]

_log = log.get("front")


async def no_custom() -> Mapping[str, str]:
    """Of a cloud without custom domains."""
    return {}


class Front:
    """One application per kind of host, chosen by the header HAProxy sets."""

    def __init__(
        self,
        *,
        names: Names,
        cloud: Sequence[BaseRoute],
        vm: Sequence[BaseRoute],
        refuse: Refuse,
        custom: Custom = no_custom,
    ) -> None:
        """`cloud` is served on the cloud's own host, `vm` on every VM's."""
        self._refuse = refuse
        self._hosts = Hosts(
            names=names, cloud=self._starlette(cloud), vm=self._starlette(vm), custom=custom
        )

    def app(self) -> ASGIApp:
        """To be served."""
        return self._hosts

    def _starlette(self, routes: Sequence[BaseRoute]) -> Starlette:
        handlers: dict[int | type[Exception], Handler] = {
            AtollError: self._failed,
            HTTPException: self._http,
            Exception: self._defect,
        }
        return Starlette(routes=routes, exception_handlers=handlers)

    async def _failed(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, AtollError)
        return await self._refusal(request, error, error.http)

    async def _http(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        allowed = (error.headers or {}).get("Allow", "")
        said: AtollError = Invalid(f"{error.status_code}: {error.detail}")
        if error.status_code == 404:
            said = NotFound(
                "there is nothing at this path", hint="Try: POST /exec, or /openapi.json"
            )
        elif error.status_code == 405:
            said = Invalid(f"{request.method} does not work here", hint=f"Try: {allowed}")
        response = await self._refusal(request, said, error.status_code)
        response.headers.update(error.headers or {})
        return response

    async def _defect(self, request: Request, error: Exception) -> Response:
        _log.error("request failed", path=request.url.path.split("/")[1], exc_info=error)
        said = Internal("a defect of ours; the log of control says more")
        return await self._refusal(request, said, 500)

    async def _refusal(self, request: Request, error: AtollError, status: int) -> Response:
        page = await self._refuse(request, error, status)
        return page or JSONResponse(error.to_wire(), status_code=status)


class Hosts:
    """Dispatches by host and puts the safety headers on every answer.

    A request without the header came from this machine, not through HAProxy; it sees the cloud's
    host, where nothing depends on where it came from.
    """

    def __init__(self, *, names: Names, cloud: ASGIApp, vm: ASGIApp, custom: Custom) -> None:
        self._names = names
        self._cloud = cloud
        self._vm = vm
        self._custom = custom

    def _policy(self, nonce: str, target: str) -> str:
        """`nonce` is of a page whose script makes style elements: they carry it.

        `target` is a custom domain to which a form of this page may lead.
        """
        custom = f" https://{target}" if target else ""
        named = f" 'nonce-{nonce}'" if nonce else ""
        return (
            f"default-src 'none'; style-src 'self'{named}; script-src 'self'; connect-src 'self';"
            " img-src 'self' data:; font-src 'self'; base-uri 'none';"
            # a form's redirect to a VM's host counts as its action
            f" form-action 'self' https://*.{self._names.domain}:*{custom}; frame-ancestors 'none'"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            scope = {**scope, "headers": _with_plain_cookies(scope["headers"])}
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        host = Headers(scope=scope).get(HOST_HEADER, self._names.domain)
        if host == self._names.domain:
            app = self._cloud
        elif self._names.vm_of(host) is not None or host in await self._custom():
            app = self._vm
        else:
            await _elsewhere(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("cache-control", "no-store")
                headers.setdefault("referrer-policy", "same-origin")
                headers["content-security-policy"] = self._policy(
                    scope.get(STYLE_NONCE, ""), scope.get(FORM_TARGET, "")
                )
                headers["x-content-type-options"] = "nosniff"
            await send(message)

        await app(scope, receive, send_safely)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let through what may be a WebSocket; its route checks origin and session."""
        host = Headers(scope=scope).get(HOST_HEADER, self._names.domain)
        if host == self._names.domain and SOCKET_PATH.fullmatch(scope["path"]):
            await self._cloud(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: 403


def _with_plain_cookies(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers without cookies that hold anything but printable ASCII.

    Starlette strips each name by Python's idea of a blank, so it would read `\\xa0__Host-x` as
    `__Host-x`: a name that browsers let every page of a VM set for the whole domain.
    """
    plain = []
    for name, value in headers:
        if name == b"cookie" and not _PLAIN.fullmatch(value):
            value = b";".join(pair for pair in value.split(b";") if _PLAIN.fullmatch(pair))
        plain.append((name, value))
    return plain


_PLAIN = re.compile(rb"[ -~]*")
_elsewhere = JSONResponse({"code": "not-found", "error": "not served here"}, status_code=421)
