"""Which calls go on now (in VMs, or until the client leaves), by what let them in.

A key or token that is removed ends them at once, and so does the end of a token's time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TypeAlias

from atoll.base.errors import Denied
from atoll.domain.account import Caller


class End(asyncio.Event):
    """Says that a call must end."""

    why = ""

    def come(self, why: str) -> None:
        """It must, and the key or token is why: it `was removed`."""
        self.why = why
        self.set()


# On the list while the body runs.
Entered: TypeAlias = Callable[[], AbstractContextManager[End]]


class Running:
    """One `End` per call that goes on; `end` lets those of a credential come."""

    def __init__(self) -> None:
        self._by_credential: dict[str, set[End]] = {}
        self._removed: dict[str, int] = {}  # credential -> the mark before its removal
        self._mark = 0

    @property
    def mark(self) -> int:
        """Taken before a caller is looked up, it tells which removals the look-up may have missed."""
        return self._mark

    def by(self, caller: Caller, *, since: int | None = None) -> Entered:
        """What puts a call of this caller on the list, by its key and by its token.

        To be asked for as soon as the caller is known, `since` the mark from before: the client decides
        how long its line takes to arrive.
        """
        credentials = frozenset({caller.key_fingerprint or "", caller.token} - {""})
        until = None
        if caller.good_for_s is not None:
            until = asyncio.get_running_loop().time() + caller.good_for_s
        return partial(self._entered, credentials, self._mark if since is None else since, until)

    def end(self, credential: str) -> None:
        """The key or token is gone, and so must be what it runs."""
        self._removed[credential] = self._mark
        self._mark += 1
        for event in self._by_credential.get(credential, ()):
            event.come("was removed")

    @contextmanager
    def _entered(
        self, credentials: frozenset[str], since: int, until: float | None
    ) -> Iterator[End]:
        event = End()
        if any(self._removed.get(credential, -1) >= since for credential in credentials):
            event.come("was removed")
        timer = None
        if until is not None:
            timer = asyncio.get_running_loop().call_at(until, event.come, "has ended")
        for credential in credentials:
            self._by_credential.setdefault(credential, set()).add(event)
        try:
            yield event
        finally:
            if timer is not None:
                timer.cancel()
            for credential in credentials:
                running = self._by_credential[credential]
                running.discard(event)
                if not running:
                    del self._by_credential[credential]


async def ended(event: End) -> None:
    """Wait for the end. Raises Denied then."""
    await event.wait()
    raise Denied(f"the key or token of this call {event.why}")
