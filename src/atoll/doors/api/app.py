"""The API's routes: POST /exec, the pages about the commands, and the few files beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from starlette.routing import BaseRoute

from atoll.base.limits import Limits
from atoll.commands.library import Library
from atoll.doors.api.docs import Docs
from atoll.doors.api.endpoints import endpoints
from atoll.doors.api.exec import Callers, Exec, Executing
from atoll.doors.api.once import Keeping
from atoll.doors.api.run import VmRunner


class Api:
    """The door. `ca` is the file users trust, `url` the cloud's own, `runner` runs `ssh <vm> <cmd>`."""

    def __init__(
        self,
        *,
        url: str,
        library: Library,
        language: Executing,
        callers: Callers,
        answers: Keeping,
        ca: Path,
        runner: VmRunner | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._docs = Docs(library)
        self._exec = Exec(
            language=language, callers=callers, answers=answers, runner=runner, limits=limits
        )
        self._endpoints = endpoints(self._exec.__call__, ca=ca, url=url)

    def end(self, credential: str) -> None:
        """A key or token was removed: end what it runs in VMs, and what goes on for it."""
        self._exec.end(credential)

    def routes(self) -> Sequence[BaseRoute]:
        """To be served on the cloud's own host."""
        return (*self._docs.routes(), *(endpoint.route for endpoint in self._endpoints))
