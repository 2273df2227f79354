"""Templates to answers. Every value is escaped by Jinja2; no page has inline script or style."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from atoll.base.errors import AtollError
from atoll.base.units import show_size
from atoll.doors.web.assets import Assets, accepts_gzip

_TEMPLATES = Path(__file__).with_name("templates")
_GZIP_FROM = 1024  # bytes
_GZIP_LEVEL = 5
# htmx shows what an error says, in place of what it asked for.
_HTMX = {
    "allowEval": False,
    "allowScriptTags": False,
    "disableInheritance": True,  # what a part of a page does is not what its buttons do
    "includeIndicatorStyles": False,
    "selfRequestsOnly": True,
    "historyCacheSize": 0,
    "responseHandling": [
        {"code": "204", "swap": False},
        {"code": "[23]..", "swap": True},
        {"code": "[45]..", "swap": True, "error": True},
    ],
}


class Pages:
    """Renders; `ssh` is the command that reaches the lobby.

    `elsewhere` has name and label of the providers that people may sign in with.
    """

    def __init__(self, *, assets: Assets, ssh: str, elsewhere: Sequence[tuple[str, str]]) -> None:
        self._ssh = ssh
        self._jinja = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._jinja.globals.update(
            asset=assets.url, ssh=ssh, htmx=json.dumps(_HTMX), elsewhere=tuple(elsewhere)
        )
        self._jinja.filters.update(
            size=show_size, segment=lambda text: quote(text, safe=""), prose=prose
        )

    def page(
        self, request: Request, template: str, *, status: int = 200, **values: Any
    ) -> HTMLResponse:
        """A whole page, or what htmx asked for: see `is_part`."""
        return _answer(request, self.text(template, **values), status=status)

    def text(self, template: str, **values: Any) -> str:
        """A template filled in."""
        return self._jinja.get_template(template).render(values)

    def message(
        self, request: Request, title: str, text: str, *, hint: str = "", status: int = 200
    ) -> HTMLResponse:
        """A page that says one thing and what to type next."""
        values = {"title": title, "text": text, "hint": hint, "email": None}
        return self.page(request, "message.html", status=status, **values)

    def refuse(self, request: Request, error: AtollError, status: int) -> Response | None:
        """An error as people see it; None for programs."""
        if is_part(request):
            part = self.page(request, "parts/error.html", status=status, error=error)
            part.headers["hx-reselect"] = (
                "#error"  # whatever the page wanted to take from the answer
            )
            return part
        if not is_whole(request):
            return None
        return self.message(
            request, "That did not work", error.message, hint=error.hint, status=status
        )


def prose(text: str) -> Markup:
    """A text of ours that marks what is typed with backquotes."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704  escaped


def is_part(request: Request) -> bool:
    """Whether htmx asks, to put the answer into a page that is there."""
    return "hx-request" in request.headers and "hx-boosted" not in request.headers


def is_whole(request: Request) -> bool:
    """Whether a person asks for a page of its own."""
    return not is_part(request) and "text/html" in request.headers.get("accept", "")


def _answer(request: Request, text: str, *, status: int) -> HTMLResponse:
    body = text.encode()
    headers: Mapping[str, str] = {"vary": "accept-encoding, hx-request"}
    if len(body) >= _GZIP_FROM and accepts_gzip(request.headers.get("accept-encoding", "")):
        body = gzip.compress(body, _GZIP_LEVEL, mtime=0)
        headers = {**headers, "content-encoding": "gzip"}
    return HTMLResponse(body, status_code=status, headers=headers)
