"""The pages of the reference, for reading: the same Markdown that `/docs/<page>.md` serves."""

from __future__ import annotations

import functools
import re
from typing import Any

from markdown_it import MarkdownIt
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from atoll.base.errors import NotFound
from atoll.commands.library import Library
from atoll.doors.web.view import View

_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")


class Books:
    """`GET /docs` and `GET /docs/<page>`; anybody may read."""

    def __init__(self, view: View, *, library: Library) -> None:
        self._view = view
        self._library = library

    def routes(self) -> tuple[BaseRoute, ...]:
        """For the cloud's own host."""
        return (
            Route("/docs", self.index, methods=["GET"]),
            Route("/docs/{slug}", self.page, methods=["GET"]),
        )

    async def index(self, request: Request) -> Response:
        """Every page with one line."""
        return await self._show(request, "book-index.html", books=tuple(self._library))

    async def page(self, request: Request) -> Response:
        """One page."""
        slug = str(request.path_params["slug"])
        found = self._library.get(slug)
        if found is None:
            raise NotFound(f"no page {slug[:60]!r}", hint="See /docs")
        return await self._show(request, "book.html", book=found, html=rendered(found.text))

    async def _show(self, request: Request, template: str, **values: Any) -> Response:
        session = await self._view.visitors.session(request)
        email = session.account.email if session else None
        return self._view.pages.page(request, template, email=email, **values)


@functools.cache
def rendered(text: str) -> str:
    """Markdown of ours as HTML. What looks like a tag in it is text."""
    # A block of code can be scrolled sideways, so a keyboard must be able to reach it.
    return re.sub(r"<pre>", '<pre tabindex="0">', _MARKDOWN.render(text))
