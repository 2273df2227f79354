"""Where forms go: a form becomes a line, the line is shown, run as an act, and its result shown.

POST /run/<verb>   the act, at once; without a script 303 to its page
GET  /acts/<id>    how far it is, after a moment's wait: most acts are over by then
POST /line/<verb>  only the line, as the form is being filled in
"""

from __future__ import annotations

import contextlib
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from atoll.base.errors import AtollError
from atoll.base.timeout import timeout
from atoll.commands.registry import Command, Source
from atoll.domain.account import Caller
from atoll.domain.web import own_path
from atoll.doors.front.hosts import check_origin
from atoll.doors.web.acts import Act, Acts
from atoll.doors.web.pages import is_part
from atoll.doors.web.sent import read_form
from atoll.doors.web.view import View

_MOMENT_S = 0.8  # people wait that long without wondering


class Running:
    """The routes above, and a page with a form for every verb."""

    def __init__(self, view: View, *, host: str, acts: Acts) -> None:
        self._view = view
        self._host = host
        self._acts = acts

    def routes(self) -> tuple[BaseRoute, ...]:
        """For the cloud's own host."""
        return (
            Route("/run", self.verbs, methods=["GET"]),
            Route("/run/{verb}", self.verb, methods=["GET"]),
            Route("/run/{verb}", self.run, methods=["POST"]),
            Route("/line/{verb}", self.line, methods=["POST"]),
            Route("/acts/{id}", self.act, methods=["GET"]),
        )

    async def verbs(self, request: Request) -> Response:
        """Every verb that a form can stand for."""
        caller = await self._view.visitors.caller(request)
        return self._view.pages.page(
            request, "run.html", email=caller.account.email, commands=tuple(self._view.forms)
        )

    async def verb(self, request: Request) -> Response:
        """One verb, with all its parameters."""
        caller = await self._view.visitors.caller(request)
        command = self._view.forms.command(request.path_params["verb"])
        form = self._view.forms.whole(
            request.path_params["verb"], choices=await self._offered(caller, command)
        )
        return self._view.pages.page(request, "verb.html", email=caller.account.email, form=form)

    async def line(self, request: Request) -> Response:
        """The line a form stands for as it is filled in now, or what is wrong with it."""
        check_origin(request, self._host)
        await self._view.visitors.caller(request)
        slug = request.path_params["verb"]
        self._view.forms.command(slug)
        try:
            composed = self._view.forms.composed(slug, await read_form(request))
        except AtollError as error:
            return self._view.pages.page(request, "parts/line.html", line="", trouble=error.message)
        return self._view.pages.page(request, "parts/line.html", line=composed.line, trouble="")

    async def run(self, request: Request) -> Response:
        """Run what a form stands for."""
        check_origin(request, self._host)
        await self._view.visitors.caller(request)
        slug = request.path_params["verb"]
        composed = self._view.forms.composed(slug, await read_form(request))
        # Once more: a browser may take long to send its form, and be signed out meanwhile.
        caller = await self._view.visitors.caller(request)
        act = self._acts.start(
            caller,
            composed.line,
            command=self._view.forms.command(slug).name,
            stdin=composed.stdin,
            back=_sent_from(request),
        )
        # At once: a browser on this machine drops what it waits for when a VM's network is made.
        if is_part(request):
            return self._shown(request, caller, act)
        return RedirectResponse(f"/acts/{act.id}", status_code=303)

    async def act(self, request: Request) -> Response:
        """How far an act is."""
        caller = await self._view.visitors.caller(request)
        act = self._acts.get(caller, request.path_params["id"])
        with contextlib.suppress(TimeoutError):
            async with timeout(_MOMENT_S):
                await act.over.wait()
        return self._shown(request, caller, act)

    def _shown(self, request: Request, caller: Caller, act: Act) -> Response:
        template = "parts/act.html" if is_part(request) else "act.html"
        response = self._view.pages.page(
            request,
            template,
            email=caller.account.email,
            act=act,
            back=_back(act),
            seconds=self._acts.seconds(act),
            undo=self._view.forms.act("undo") if _can_undo(act) else None,
        )
        if act.command == "rename" and _back(act) != act.back:
            response.headers["hx-redirect"] = _back(act)  # its page is now at another address
        elif act.is_over:
            response.headers["hx-trigger"] = "acted"
        return response

    async def _offered(self, caller: Caller, command: Command) -> dict[str, tuple[str, ...]]:
        """What to choose from for parameters that take one of few names."""
        offered = {}
        for parameter in command.parameters:
            if parameter.source in (Source.VM, Source.IMAGE) and not parameter.is_many:
                names = await self._view.choices.names(caller, parameter.source)
                offered[parameter.name] = names if parameter.is_required else ("", *names)
        return offered


def _sent_from(request: Request) -> str:
    """The page of ours a form was on; the list when that is not known."""
    try:
        return own_path(urlsplit(request.headers.get("referer", "")).path)
    except ValueError:  # no URL
        return "/"


def _back(act: Act) -> str:
    """The page it was asked on, where that is now; the list when there is none any more."""
    if act.reply is None or not isinstance(act.reply.data, dict) or not act.back.startswith("/vm/"):
        return act.back
    if act.command == "rename" and act.back == f"/vm/{act.reply.data.get('old_name')}":
        return f"/vm/{act.reply.data['new_name']}"
    return "/" if _can_undo(act) else act.back


def _can_undo(act: Act) -> bool:
    return act.command == "rm" and act.reply is not None and "--dry-run" not in act.line.split()
