"""The page of what VMs use of the pool."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from atoll.doors.web.view import View


class UsagePage:
    """`GET /usage`."""

    def __init__(self, view: View) -> None:
        self._view = view

    def routes(self) -> tuple[BaseRoute, ...]:
        """For the cloud's own host."""
        return (Route("/usage", self.page, methods=["GET"]),)

    async def page(self, request: Request) -> Response:
        """The pool, and each VM's part."""
        caller = await self._view.visitors.caller(request)
        usage = await self._view.lines.data(caller, "billing", "usage", "--group=vm")
        return self._view.pages.page(request, "usage.html", email=caller.account.email, usage=usage)
