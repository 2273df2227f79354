"""The ASGI application: which host, which route, which headers every answer carries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atoll.base import log
from atoll.base.errors import AtollError, Internal, Invalid, NotFound
from atoll.commands.addresses import Addresses
from atoll.commands.library import Library
from atoll.commands.verbs import REGISTRY
from atoll.config import Config
from atoll.domain.account import Published
from atoll.domain.web import HOST_HEADER, SOCKET_PATH, STYLE_NONCE, Names
from atoll.doors.api import pages
from atoll.doors.api.docs import Docs
from atoll.doors.api.endpoints import endpoints
from atoll.doors.api.exec import Callers, Exec, Executing
from atoll.doors.api.limits import Limits
from atoll.doors.api.login import Login, SigningIn
from atoll.doors.api.once import Keeping
from atoll.doors.api.run import VmRunner

_STATIC = Path(__file__).with_name("static")

_log = log.get("api")


class Publishing(Protocol):
    """What is needed of atoll.services.cloud.Cloud."""

    async def published(self) -> tuple[Published, ...]:
        """Every VM that has a name."""
        ...


class Api:
    """Builds the application. `ca` is the file users trust, `runner` runs `ssh <vm> <cmd>`."""

    def __init__(
        self,
        *,
        config: Config,
        language: Executing,
        sessions: SigningIn,
        callers: Callers,
        answers: Keeping,
        cloud: Publishing,
        ca: Path,
        runner: VmRunner | None = None,
        limits: Limits | None = None,
        routes: Sequence[BaseRoute] = (),
    ) -> None:
        """`routes` are those of other doors on the cloud's own host."""
        self._routes = routes
        self._names = names_of(config)
        port = "" if config.ssh.port == 22 else f"-p {config.ssh.port} "
        self._login = Login(
            names=self._names,
            ssh=f"ssh {port}{config.ssh.host or 'localhost'}",
            session_seconds=config.https.session_hours * 3600,
            sessions=sessions,
            published=cloud.published,
        )
        self._docs = Docs(Library(registry=REGISTRY, addresses=Addresses(config)))
        execute = self._exec = Exec(
            language=language, callers=callers, answers=answers, runner=runner, limits=limits
        )
        self._endpoints = endpoints(
            execute.__call__, ca=ca, url=self._names.url(self._names.domain, "")
        )

    def end(self, credential: str) -> None:
        """A key or token was removed: end what it runs in VMs."""
        self._exec.end(credential)

    def app(self) -> ASGIApp:
        """One application per kind of host, chosen by the header HAProxy sets."""
        cloud = _starlette(
            [
                *self._login.cloud_routes(),
                *self._docs.routes(),
                *(endpoint.route for endpoint in self._endpoints),
                *self._routes,  # before the folder, which answers for all below its path
                Mount("/static", StaticFiles(directory=_STATIC)),
            ]
        )
        return _Hosts(names=self._names, cloud=cloud, vm=_starlette(self._login.vm_routes()))


def names_of(config: Config) -> Names:
    """The hosts and ports of this cloud."""
    https = config.https
    ports = range(https.vm_port_first, https.vm_port_last + 1) if https.vm_ports else None
    return Names(domain=https.domain, public_port=https.public_port or https.port, vm_ports=ports)


class _Hosts:
    """Dispatches by host and puts the safety headers on every answer.

    A request without the header came from this machine, not through HAProxy; it sees the cloud's
    host, where nothing depends on where it came from.
    """

    def __init__(self, *, names: Names, cloud: ASGIApp, vm: ASGIApp) -> None:
        self._names = names
        self._cloud = cloud
        self._vm = vm

    def _policy(self, nonce: str) -> str:
        """`nonce` is of a page whose script makes style elements: they carry it."""
        named = f" 'nonce-{nonce}'" if nonce else ""
        return (
            f"default-src 'none'; style-src 'self'{named}; script-src 'self'; connect-src 'self';"
            " img-src 'self' data:; font-src 'self'; base-uri 'none';"
            # a form's redirect to a VM's host counts as its action
            f" form-action 'self' https://*.{self._names.domain}:*; frame-ancestors 'none'"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        host = Headers(scope=scope).get(HOST_HEADER, self._names.domain)
        app = self._cloud if host == self._names.domain else self._vm
        if app is self._vm and self._names.vm_of(host) is None:
            await _elsewhere(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("cache-control", "no-store")
                headers.setdefault("referrer-policy", "same-origin")
                headers["content-security-policy"] = self._policy(scope.get(STYLE_NONCE, ""))
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


_elsewhere = JSONResponse({"code": "not-found", "error": "not served here"}, status_code=421)

Handler = Callable[[Request, Exception], Awaitable[Response]]


def _starlette(routes: Sequence[BaseRoute]) -> Starlette:
    handlers: dict[int | type[Exception], Handler] = {
        AtollError: _failed,
        HTTPException: _http,
        Exception: _defect,
    }
    return Starlette(routes=routes, exception_handlers=handlers)


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, AtollError)
    return _refusal(request, error, error.http)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    allowed = (error.headers or {}).get("Allow", "")
    said: AtollError = Invalid(f"{error.status_code}: {error.detail}")
    if error.status_code == 404:
        said = NotFound("there is nothing at this path", hint="Try: POST /exec, or /openapi.json")
    elif error.status_code == 405:
        said = Invalid(f"{request.method} does not work here", hint=f"Try: {allowed}")
    response = _refusal(request, said, error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _defect(request: Request, error: Exception) -> Response:
    _log.error("request failed", path=request.url.path.split("/")[1], exc_info=error)
    return _refusal(request, Internal("a defect of ours; the log of control says more"), 500)


def _refusal(request: Request, error: AtollError, status: int) -> Response:
    if "text/html" in request.headers.get("accept", ""):
        return pages.message("That did not work", error.message, hint=error.hint, status=status)
    return JSONResponse(error.to_wire(), status_code=status)
