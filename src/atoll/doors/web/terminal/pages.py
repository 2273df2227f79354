"""The pages of terminals: open, list, look, close. What one runs is the command in its title."""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from atoll.base.errors import Invalid
from atoll.domain.web import STYLE_NONCE, Names
from atoll.doors.front.hosts import check_origin, source_of
from atoll.doors.web.sent import Sent, last, read_form
from atoll.doors.web.terminal.pool import Terminals
from atoll.doors.web.terminal.socket import Sockets
from atoll.doors.web.terminal.terminal import Terminal
from atoll.doors.web.view import View
from atoll.doors.web.visitor import Signed, caller_of

# One word to the language; what it names is looked up there.
_VM = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")

Page: TypeAlias = Callable[[Request, Signed], Awaitable[Response]]


class TerminalPages:
    """Their routes, WebSocket included."""

    def __init__(self, view: View, *, names: Names, terminals: Terminals) -> None:
        self._view = view
        self._names = names
        self._terminals = terminals
        self._sockets = Sockets(names=names, visitors=view.visitors, terminals=terminals)

    def routes(self) -> list[BaseRoute]:
        """For the cloud's own host."""
        return [
            Route("/terminal", self._signed(self._list), methods=["GET"]),
            Route("/terminal", self._signed(self._open), methods=["POST"]),
            Route("/terminal/{id}", self._signed(self._look), methods=["GET"]),
            Route("/terminal/{id}/close", self._signed(self._close), methods=["POST"]),
            WebSocketRoute("/terminal/{id}/socket", self._sockets.serve),
        ]

    def _signed(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        """A page for who is signed in; a form only from a page of ours."""

        async def answer(request: Request) -> Response:
            if request.method == "POST":
                check_origin(request, self._names.domain)
            session = await self._view.visitors.session(request)
            if session is None:
                return _login()
            return await page(request, session)

        return answer

    async def _list(self, request: Request, session: Signed) -> Response:
        listed = await self._view.lines.data(caller_of(session, source=source_of(request)), "ls")
        running = [vm["vm_name"] for vm in listed["vms"] if vm["status"] == "running"]
        rows = [
            {"id": one.id, "title": one.title, "state": _state(one)}
            for one in self._terminals.of(session.account)
        ]
        return self._page(request, session, "terminals.html", terminals=rows, vms=running)

    async def _open(self, request: Request, session: Signed) -> Response:
        line = _line(await read_form(request))
        if (
            await self._view.visitors.session(request) is None
        ):  # the form may have taken long to arrive
            return _login()
        terminal = await self._terminals.open(session, line, source=source_of(request))
        return RedirectResponse(f"/terminal/{terminal.id}", status_code=303)

    async def _look(self, request: Request, session: Signed) -> Response:
        terminal = self._terminals.find(session.account, request.path_params["id"])
        nonce = request.scope[STYLE_NONCE] = secrets.token_urlsafe(16)
        return self._page(
            request,
            session,
            "terminal.html",
            id=terminal.id,
            title=terminal.title,
            kind="vm" if terminal.vm else "prompt",
            vm=terminal.title.removeprefix("ssh ") if terminal.vm else "",
            nonce=nonce,
        )

    async def _close(self, request: Request, session: Signed) -> Response:
        self._terminals.close(self._terminals.find(session.account, request.path_params["id"]))
        return RedirectResponse("/terminal", status_code=303)

    def _page(self, request: Request, session: Signed, name: str, **values: Any) -> Response:
        return self._view.pages.page(request, name, email=session.account.email, **values)


def _login() -> Response:
    return RedirectResponse("/login", status_code=303)


def _line(form: Sent) -> str:
    """The command a form stands for; empty for the prompt. Raises Invalid."""
    match form.get("kind"):
        case ["prompt"]:
            return ""
        case ["vm"]:
            if not _VM.fullmatch(vm := last(form, "vm")):
                raise Invalid(f"{vm[:60]!r} is no VM's name", hint="Try: ls")
            return f"ssh {vm}"
        case _:
            raise Invalid("kind is vm or prompt", hint="Load the page again")


def _state(terminal: Terminal) -> str:
    if terminal.over:
        return terminal.over
    if not terminal.clients:
        return "in the background"
    return f"in {len(terminal.clients)} pages" if len(terminal.clients) > 1 else "in one page"
