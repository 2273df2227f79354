"""Asking: somebody who may not open a VM lets its owner know that they would like to.

Invariant: asking is the same whether there is such a VM or not. A request is kept by the name asked
for, and whoever owns that VM sees it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from atoll.base.errors import Exhausted
from atoll.domain.account import Account
from atoll.services.changes import Changes
from atoll.store import grants
from atoll.store.engine import Store
from atoll.store.grants import Request

KEPT_S = 14 * 86400.0
MOST = 50  # of one account at a time


class Asking:
    """Notes who asks; `share show` lists them."""

    def __init__(
        self, *, store: Store, news: Changes, now: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._news = news
        self._now = now

    async def ask(self, account: Account, vm_name: str, message: str) -> None:
        """Note that an account would like to open a VM. Raises Exhausted."""
        now = self._now()
        wanted = Request(vm_name=vm_name, account=account.id, created_at=now, message=message)
        async with self._store.begin() as tx:
            await grants.forget_asked(tx, before=now - KEPT_S)
            asked = await grants.asked_by(tx, account.id)
            if len(asked) >= MOST and vm_name not in {one.vm_name for one in asked}:
                raise Exhausted(
                    f"you ask for {len(asked)} VMs, which is the most", hint="Wait for an answer"
                )
            await grants.ask(tx, wanted)
        self._news.bump()
