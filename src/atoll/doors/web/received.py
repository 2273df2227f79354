"""Share links opened in a browser.

Looking at one changes nothing, for mail programs do; its button runs `share accept`.
"""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from atoll.domain.web import Names, login_path
from atoll.doors.front.hosts import check_origin
from atoll.doors.web.view import View


class Received:
    """`/share/<token>`."""

    def __init__(self, view: View, *, names: Names) -> None:
        self._view = view
        self._names = names

    def routes(self) -> tuple[BaseRoute, ...]:
        """For the cloud's own host."""
        return (
            Route("/share/{token}", self.look, methods=["GET"]),
            Route("/share/{token}", self.accept, methods=["POST"]),
        )

    async def look(self, request: Request) -> Response:
        """What it is, after signing in."""
        path = f"/share/{quote(request.path_params['token'], safe='')}"
        session = await self._view.visitors.session(request)
        if session is None:
            here = self._names.url(self._names.domain, path)
            return RedirectResponse(login_path(here), status_code=303)
        return self._view.pages.page(
            request, "share.html", email=session.account.email, action=path
        )

    async def accept(self, request: Request) -> Response:
        """Take what it gives, and go there. Raises NotFound when it is over."""
        check_origin(request, self._names.domain)
        caller = await self._view.visitors.caller(request)
        taken = await self._view.lines.data(
            caller, "share", "accept", "--", request.path_params["token"]
        )
        return RedirectResponse(login_path(taken["url"]), status_code=303)
