"""The pages about the commands, as Markdown for anybody: they say nothing of this cloud but its address.

`/docs.md` lists them, `/docs/<page>.md` is one, `/docs/all.md` and `/llms-full.txt` are all,
`/llms.txt` is the list for programs that read such.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from atoll.base.errors import NotFound
from atoll.commands.library import ALL, Library

_MARKDOWN = "text/markdown"
_AGE = {"cache-control": "public, max-age=300"}  # an upgrade changes them


class Docs:
    """Serves one library."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def routes(self) -> Sequence[BaseRoute]:
        """To be served on the cloud's own host."""
        return (
            Route("/docs.md", self._index, methods=["GET"]),
            Route("/docs/{slug}.md", self._page, methods=["GET"]),
            Route("/llms.txt", self._llms, methods=["GET"]),
            Route("/llms-full.txt", self._whole, methods=["GET"]),
        )

    async def _index(self, _request: Request) -> Response:
        return _markdown(self._library.index())

    async def _page(self, request: Request) -> Response:
        slug = str(request.path_params["slug"])
        if slug == ALL:
            return _markdown(self._library.whole())
        page = self._library.get(slug)
        if page is None:
            raise NotFound(f"no page {slug[:60]!r}", hint="See /docs.md")
        return _markdown(page.text)

    async def _llms(self, _request: Request) -> Response:
        return PlainTextResponse(self._library.llms_txt() + "\n", headers=_AGE)

    async def _whole(self, _request: Request) -> Response:
        return PlainTextResponse(self._library.whole() + "\n", headers=_AGE)


def _markdown(text: str) -> Response:
    return Response(f"{text}\n", media_type=_MARKDOWN, headers=_AGE)
