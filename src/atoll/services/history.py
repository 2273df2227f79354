"""What was typed at the prompt before, for the next session of the same account.

A key that is made for one VM, or for some commands, neither reads nor adds lines: they speak of the
whole account.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from atoll.domain.account import Caller, Scope
from atoll.domain.history import LINES, may_be_kept
from atoll.store import history
from atoll.store.engine import Store


class History:
    """Lines of accounts, the newest LINES of each."""

    def __init__(self, *, store: Store, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now = now

    async def recent(self, caller: Caller) -> tuple[str, ...]:
        """Lines of earlier sessions, oldest first."""
        if caller.scope != Scope():
            return ()
        async with self._store.read() as tx:
            return await history.latest(tx, caller.account.id, limit=LINES)

    async def add(self, caller: Caller, line: str) -> None:
        """Keep a line, unless it may hold a secret."""
        if caller.scope != Scope() or not may_be_kept(line):
            return
        async with self._store.begin() as tx:
            await history.add(tx, caller.account.id, line, now=self._now(), keep=LINES)
