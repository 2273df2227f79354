"""The page of one VM: what it is and may be told at once, what must be measured after that."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from atoll.base.errors import Conflict, NotFound
from atoll.base.units import show_size
from atoll.domain.account import Caller
from atoll.domain.usage import Range
from atoll.domain.web import Names
from atoll.doors.web.charts import charts
from atoll.doors.web.forms import Form
from atoll.doors.web.live import Live, digest
from atoll.doors.web.pages import is_part
from atoll.doors.web.shared import Shared
from atoll.doors.web.view import View

RANGES = tuple(map(str, Range))
_POWER = {
    "running": ("pause", "restart"),
    "paused": ("resume",),
    "stopped": ("resume",),
}


class MachinePage:
    """`GET /vm/<name>` and its parts."""

    def __init__(
        self, view: View, *, names: Names, live: Live, now: Callable[[], float] = time.time
    ) -> None:
        self._view = view
        self._names = names
        self._now = now
        self._live = live

    def routes(self) -> tuple[BaseRoute, ...]:
        """For the cloud's own host."""
        return (
            Route("/vm/{vm}", self.page, methods=["GET"]),
            Route("/vm/{vm}/live", self.live, methods=["GET"]),
            Route("/vm/{vm}/now", self.now, methods=["GET"]),
            Route("/vm/{vm}/charts", self.charts, methods=["GET"]),
            Route("/vm/{vm}/events", self.events, methods=["GET"]),
            Route("/vm/{vm}/log", self.log, methods=["GET"]),
        )

    async def page(self, request: Request) -> Response:
        """What is known without asking the VM."""
        caller = await self._view.visitors.caller(request)
        try:
            state = await self._state(caller, request.path_params["vm"])
        except NotFound as error:
            if not is_part(request):
                raise
            return self._gone(request, error)
        vm, share = state["vm"], state["share"]
        name = vm["vm_name"]
        return self._view.pages.page(
            request,
            "machine.html",
            email=caller.account.email,
            vm=vm,
            seen=digest(state),
            share=share,
            power=[self._view.forms.act(verb, vm=name) for verb in _POWER.get(vm["status"], ())],
            sharing=self._sharing(share),
            shared=Shared.of(self._view.forms, share),
            changing=list(self._changing(vm, share)),
            copy=self._view.forms.form("cp", ("new",), {"source": name}),
            rm=self._view.forms.act("rm", vm=name),
        )

    async def live(self, request: Request) -> Response:
        """A word whenever what `page` shows has changed."""
        name = request.path_params["vm"]
        return await self._live.stream(
            request,
            lambda caller: self._state_if_any(caller, name),
            lambda _shown, _vm: "changed",
        )

    async def now(self, request: Request) -> Response:
        """What it uses, and the ports that are open inside."""
        caller, name = await self._view.visitors.caller(request), request.path_params["vm"]
        stat: dict[str, Any] = {"status": "", "points": None}
        with contextlib.suppress(Conflict):  # it stops this very moment
            stat = await self._view.lines.data(caller, "stat", name)
        open_inside = [port for point in stat["points"] or () for port in point["ports"]]
        ports = [(port, self._names.port_url(name, port)) for port in open_inside]
        return self._part(
            request, caller, "now", title=f"stat {name}", stat=stat, ports=ports, vm=name
        )

    async def charts(self, request: Request) -> Response:
        """What it used over a time."""
        caller, name = await self._view.visitors.caller(request), request.path_params["vm"]
        asked = request.query_params.get("range", RANGES[0])
        range_ = Range(asked) if asked in RANGES else Range.DAY
        stat = await self._view.lines.data(caller, "stat", name, f"--range={range_}")
        return self._part(
            request,
            caller,
            "charts",
            title=f"stat {name} --range={range_}",
            vm=name,
            ranges=RANGES,
            range=range_,
            charts=charts(stat["points"] or (), range_, now=self._now()),
        )

    async def events(self, request: Request) -> Response:
        """What happened to it."""
        caller, name = await self._view.visitors.caller(request), request.path_params["vm"]
        found = await self._view.lines.data(caller, "events", name)
        return self._part(
            request, caller, "events", title=f"events {name}", events=found["events"], vm=name
        )

    async def log(self, request: Request) -> Response:
        """What it wrote on its console."""
        caller, name = await self._view.visitors.caller(request), request.path_params["vm"]
        log, trouble = "", ""
        try:
            log = (await self._view.lines.data(caller, "vm-logs", name))["log"]
        except Conflict as error:  # it does not run, which is no trouble of the page
            trouble = error.message
        return self._part(
            request, caller, "log", title=f"vm-logs {name}", log=log, trouble=trouble, vm=name
        )

    async def _state(self, caller: Caller, name: str) -> dict[str, Any]:
        """What `ls -l` and `share show` say; raises NotFound."""
        for vm in (await self._view.lines.data(caller, "ls", "-l", "--", name))["vms"]:
            if vm["vm_name"] == name:
                share = await self._view.lines.data(caller, "share", "show", name)
                return {"vm": vm, "share": share}
        raise NotFound(f"you have no VM {name[:60]!r}", hint="Try: undo, or see the list")

    def _gone(self, request: Request, error: NotFound) -> Response:
        """In place of all of a page that is open."""
        name = request.path_params["vm"]
        answer = self._view.pages.page(
            request, "parts/gone.html", status=error.http, error=error, vm=name
        )
        answer.headers.update(
            {"hx-retarget": "#main", "hx-reselect": "#gone", "hx-reswap": "innerHTML"}
        )
        return answer

    async def _state_if_any(self, caller: Caller, name: str) -> dict[str, Any] | None:
        try:
            return await self._state(caller, name)
        except NotFound:  # that is news as well
            return None

    def _part(
        self, request: Request, caller: Caller, name: str, *, title: str, **values: Any
    ) -> Response:
        """A part of the page, or a page of its own where no script put it there."""
        part = f"parts/{name}.html"
        if is_part(request):
            return self._view.pages.page(request, part, **values)
        return self._view.pages.page(
            request, "part.html", email=caller.account.email, part=part, title=title, **values
        )

    def _sharing(self, share: Mapping[str, Any]) -> Form:
        other = "private" if share["status"] == "public" else "public"
        return self._view.forms.act(f"share set-{other}", vm=share["vm_name"])

    def _changing(self, vm: Mapping[str, Any], share: Mapping[str, Any]) -> Iterator[Form]:
        name = vm["vm_name"]
        yield self._view.forms.form(
            "share port", ("port",), {"vm": name}, values={"port": str(share["port"])}
        )
        yield self._view.forms.form("rename", ("new",), {"old": name})
        yield self._view.forms.form(
            "comment", ("text",), {"vm": name}, values={"text": vm["comment"]}
        )
        yield self._view.forms.form("tag", ("tag", "delete"), {"vm": name})
        yield self._view.forms.form(
            "resize",
            ("cpu", "memory", "disk"),
            {"vm": name},
            values={
                "cpu": str(vm["cpus"]),
                "memory": show_size(vm["memory_bytes"]),
                "disk": show_size(vm["disk_bytes"]),
            },
        )
