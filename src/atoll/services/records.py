"""Reading the audit: some records, those that come, or all of them; a page at a time in memory.

What was done before a question was asked is in its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from atoll.domain.audit import Record, Verifier
from atoll.services.audit import Audit
from atoll.store import audit as rows
from atoll.store.audit import Which
from atoll.store.engine import Store

PAGE = 500  # records held at once


@dataclass(frozen=True, slots=True)
class Mark:
    """Up to where somebody has read."""

    seq: int
    version: int


class Records:
    """What `audit` has written."""

    def __init__(self, *, store: Store, audit: Audit) -> None:
        self._store = store
        self._audit = audit

    async def latest(self, which: Which, *, limit: int) -> tuple[tuple[Record, ...], Mark]:
        """The newest, newest last, and the mark that `after` goes on from."""
        await self._audit.flush()
        version = self._audit.changes.version
        async with self._store.read() as tx:
            seq = (await rows.head(tx)).seq
            found = await rows.latest(tx, which, limit=limit)
        return found[::-1], Mark(seq, version)

    async def after(
        self, which: Callable[[], Awaitable[Which]], mark: Mark
    ) -> AsyncGenerator[tuple[Record, ...], None]:
        """Those beyond the mark as they are written, for ever; `which` is asked each time."""
        seq = mark.seq
        async with aclosing(self._audit.changes.looks(mark.version)) as looks:
            async for _ in looks:
                is_more = True
                while is_more:
                    wanted = await which()
                    async with self._store.read() as tx:
                        end = (await rows.head(tx)).seq
                        found = await rows.after(tx, wanted, seq, limit=PAGE)
                    is_more = len(found) == PAGE
                    seq = found[-1].seq if is_more else end
                    if found:
                        yield found

    async def all(self, which: Which) -> AsyncGenerator[tuple[Record, ...], None]:
        """Every record up to now, oldest first."""
        await self._audit.flush()
        async with self._store.read() as tx:
            end = (await rows.head(tx)).seq
        seq = 0
        while seq < end:
            async with self._store.read() as tx:
                page = await rows.after(tx, which, seq, limit=PAGE)
            found = tuple(record for record in page if record.seq <= end)
            if found:
                yield found
            seq = page[-1].seq if len(page) == PAGE else end

    async def verify(self, verifier: Verifier) -> None:
        """Show the verifier every record there is. Raises Damaged."""
        await self._audit.flush()
        is_more = True
        while is_more:
            async with self._store.read() as tx:
                page = await rows.chain(tx, verifier.head.seq, limit=PAGE)
            for record in page:
                verifier.take(record)
            is_more = len(page) == PAGE
            await asyncio.sleep(0)  # others' turn: hashing a page takes milliseconds
