"""Which commands run in VMs now, by what let them in: a key that is removed ends them at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TypeAlias

from atoll.base.errors import Denied
from atoll.domain.account import Caller

# On the list while the body runs; the event it yields says that the command must end.
Entered: TypeAlias = Callable[[], AbstractContextManager[asyncio.Event]]


class Running:
    """One event per running command; `end` sets those of a credential."""

    def __init__(self) -> None:
        self._by_credential: dict[str, set[asyncio.Event]] = {}

    def by(self, caller: Caller) -> Entered:
        """What puts a command of this caller on the list, by its key and by its token."""
        credentials = {caller.key_fingerprint or "", caller.token} - {""}
        return partial(self._entered, frozenset(credentials))

    def end(self, credential: str) -> None:
        """The key or token is gone, and so must be what it runs."""
        for event in self._by_credential.get(credential, ()):
            event.set()

    @contextmanager
    def _entered(self, credentials: frozenset[str]) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        for credential in credentials:
            self._by_credential.setdefault(credential, set()).add(event)
        try:
            yield event
        finally:
            for credential in credentials:
                running = self._by_credential[credential]
                running.discard(event)
                if not running:
                    del self._by_credential[credential]


async def ended(event: asyncio.Event) -> None:
    """Wait for `end`. Raises Denied then."""
    await event.wait()
    raise Denied("the key or token of this call was removed")
