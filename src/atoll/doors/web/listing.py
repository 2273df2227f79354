"""The page of all VMs, and its rows as they change."""

from __future__ import annotations

import functools
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from atoll.commands.registry import Source
from atoll.commands.several import is_pattern
from atoll.domain.account import Caller
from atoll.doors.web.forms import Form
from atoll.doors.web.live import Live, digest
from atoll.doors.web.view import View

_KEPT_ROWS = 4096  # about a kilobyte each


class Listing:
    """`GET /` and `GET /live`."""

    def __init__(self, view: View, *, live: Live) -> None:
        self._view = view
        self._live = live
        # Every open page asks after every change, and most rows are as they were.
        self._row = functools.lru_cache(maxsize=_KEPT_ROWS)(self._rendered)

    def routes(self) -> tuple[BaseRoute, ...]:
        """For the cloud's own host."""
        return (
            Route("/", self.page, methods=["GET"]),
            Route("/live", self.live, methods=["GET"]),
        )

    async def page(self, request: Request) -> Response:
        """Everything at once; a script then keeps it up to date."""
        caller = await self._view.visitors.caller(request)
        words = _words(request)
        rows = await self._rows(caller, words)
        new = self._view.forms.form(
            "new",
            ("name", "image", "cpu", "memory", "disk", "tag", "comment", "setup_script", "env"),
            {},
            choices={"image": ("", *await self._view.choices.names(caller, Source.IMAGE))},
        )
        return self._view.pages.page(
            request,
            "listing.html",
            email=caller.account.email,
            rows=rows,
            line=shlex.join(words),
            match=request.query_params.get("match", ""),
            seen=digest(rows),
            new=new,
            undo=self._view.forms.act("undo"),
        )

    async def live(self, request: Request) -> Response:
        """Rows that are not what they were, in the form htmx swaps them in."""
        words = _words(request)
        return await self._live.stream(
            request, lambda caller: self._rows(caller, words), self._difference
        )

    def _difference(self, shown: Mapping[str, str] | None, rows: Mapping[str, str]) -> str:
        """What turns the page from `shown` to `rows`: changed rows, or all when one came or went."""
        if shown is None or list(shown) != list(rows):
            return self._whole(rows)
        changed = (rows[name] for name in rows if rows[name] != shown[name])
        return "".join(row.replace("<li ", '<li hx-swap-oob="true" ', 1) for row in changed)

    def _whole(self, rows: Mapping[str, str]) -> str:
        return self._view.pages.text("parts/rows.html", rows=rows, is_new=True)

    async def _rows(self, caller: Caller, words: Sequence[str]) -> dict[str, str]:
        """The HTML of each VM that a line of `ls` shows, by name and in order."""
        entries = (await self._view.lines.data(caller, *words))["vms"]
        return {entry["vm_name"]: self._row(json.dumps(entry)) for entry in entries}

    def _rendered(self, entry: str) -> str:
        """A row from its JSON, which is all it depends on."""
        vm = json.loads(entry)
        return self._view.pages.text("parts/vm.html", vm=vm, act=self._next_act(vm))

    def _next_act(self, vm: Mapping[str, Any]) -> Form | None:
        """What one most likely wants to do with a VM in this state."""
        verb = {"running": "pause", "paused": "resume", "stopped": "resume"}.get(vm["status"])
        return self._view.forms.act(verb, vm=vm["vm_name"]) if verb else None


def _words(request: Request) -> tuple[str, ...]:
    """The line that lists what was asked for; a name in part finds all that have it in theirs."""
    match = request.query_params.get("match", "").strip()
    if not match:
        return ("ls", "-l")
    return ("ls", "-l", "--", match if is_pattern(match) else f"*{match}*")
