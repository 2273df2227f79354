"""Ends what goes on by a right that is no more: shells of people who may no longer enter a VM.

It follows the same changes as the edge and compares who may enter before and after, so it does not
matter what took the right away: a grant, a team, the end of its time, a new owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from atoll.base import log
from atoll.base.errors import AtollError
from atoll.services.changes import Changes

RETRY_S = 0.5
_log = log.get("withdrawal")

Entering: TypeAlias = Callable[[], Awaitable[frozenset[tuple[str, str]]]]  # (account, VM) ids


class Withdrawal:
    """Tells who has lost what."""

    def __init__(self, *, changes: Changes, entering: Entering) -> None:
        self._changes = changes
        self._entering = entering
        self._ends: list[Callable[[str, str], None]] = []
        self.version = 0  # of the changes it has seen; tests read it

    def when_lost(self, end: Callable[[str, str], None]) -> None:
        """Call `end` with the account and the VM (ids) whenever one may no longer enter the other."""
        self._ends.append(end)

    async def run(self) -> None:
        """Until cancelled. While the store does not answer it is asked again: nothing is forgotten."""
        known: frozenset[tuple[str, str]] = frozenset()
        version = -1
        while True:
            version = await self._changes.wait_beyond(version)
            try:
                now = await self._entering()
            except AtollError as error:
                _log.warning("who may enter is not known", reason=str(error))
                version = -1
                await asyncio.sleep(RETRY_S)
                continue
            for account, vm in sorted(known - now):
                for end in self._ends:
                    end(account, vm)
            known, self.version = now, version
