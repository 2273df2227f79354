"""Ends the open streams of those who lost access; HAProxy checks a request only when it begins.

Invariant: whose streams must end is written down before HAProxy is told of the change, and stays so until
they have ended: whatever fails or dies between the two, the next control to reach HAProxy does it.
"""

from __future__ import annotations

import contextlib

from atoll.base import log
from atoll.doors.edge.files import Files, publish
from atoll.doors.edge.runtime import Runtime

_log = log.get("edge")


class Cutting:
    """Owes and ends."""

    def __init__(self, files: Files, runtime: Runtime) -> None:
        self._path = files.owed
        self._runtime = runtime

    def owe(self, addresses: frozenset[str]) -> None:
        """Note addresses of VMs whose open streams have to end. Raises OSError."""
        if addresses:
            publish(self._path, "\n".join(sorted(addresses | self._owed())).encode())

    async def settle(self) -> None:
        """End all that is owed, also from before this process. Raises Unavailable, OSError."""
        owed = self._owed()
        ended = await self._runtime.end_streams(owed)
        if ended:
            _log.info("streams ended", count=ended)
        if owed:
            self._path.unlink(missing_ok=True)

    def _owed(self) -> frozenset[str]:
        with contextlib.suppress(FileNotFoundError):
            return frozenset(self._path.read_text().split())
        return frozenset()
