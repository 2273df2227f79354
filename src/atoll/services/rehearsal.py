"""Dry runs: the real services, on a store that never commits and an engine that is only asked.

Every change is checked and written down in one transaction before the engine is asked for anything
(intent first). A rehearsal runs the very code of the change up to the end of that transaction,
looks at what it would have written, and rolls it back. So no command can forget to be harmless, and
what is checked is what the change checks. What only the engine can refuse is not foreseen.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import TypeVar

from atoll.base.errors import AtollError, Conflict, Internal
from atoll.domain.operation import OpKind
from atoll.domain.vm import VmRecord
from atoll.rpc.messages import Console, Event, GetVm, ListVms, Message, NodeInfo, StatVm
from atoll.services.difference import TABLES, difference, pictures
from atoll.services.facts import Engine
from atoll.services.journal import Journal
from atoll.services.step import Step
from atoll.store import operations
from atoll.store.engine import Store, Tx
from atoll.store.written import tables_written

R = TypeVar("R", bound=Message)
QUESTIONS = (GetVm, ListVms, StatVm, Console, NodeInfo)


class Rehearsed(Exception):
    """A dry run came to the point of no return, and ends here; these steps would follow.

    `errors` are those of VMs, by name, that the same command could not have changed.
    """

    def __init__(
        self, steps: Iterable[Step], errors: Mapping[str, AtollError] = MappingProxyType({})
    ) -> None:
        super().__init__("a dry run ends here")
        self.steps = tuple(steps)
        self.errors = errors


class RehearsalStore(Store):
    """Reads the real store; the first transaction that would change something ends the dry run."""

    def __init__(self, store: Store, *, account: str) -> None:
        self._real = store
        self._account = account

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Tx]:
        """A transaction that is rolled back.

        Raises Rehearsed with what it would have changed; one that changes nothing just ends.
        """
        try:
            async with self._real.begin() as tx:
                tables = tables_written(tx)
                yield tx
                async with self._real.read() as kept:  # nobody else writes meanwhile
                    before, after = await pictures(kept, tx, self._account)
                steps = difference(before, after)
                raise _RollBackError(steps, tables - TABLES, missed=not steps and before != after)
        except _RollBackError as done:
            result = done
        if result.unknown:
            names = ", ".join(sorted(result.unknown))
            raise Internal(f"a dry run does not know the table {names}")
        if result.missed:
            raise Internal("a dry run has no word for what this changes")
        if result.steps:
            raise Rehearsed(result.steps)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Tx]:
        """As the real one."""
        async with self._real.read() as tx:
            yield tx

    async def migrate(self) -> None:
        """Not its business."""
        raise Internal("a dry run cannot migrate the store")

    async def close(self) -> None:
        """Whoever opened the real one closes it."""


class _RollBackError(Exception):
    """Ends a transaction without a commit."""

    def __init__(self, steps: tuple[Step, ...], unknown: set[str], *, missed: bool) -> None:
        super().__init__("rolled back")
        self.steps = steps
        self.unknown = unknown
        self.missed = missed


class RehearsalEngine:
    """Answers questions. A change that comes this far is a defect, and is refused."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def call(self, request: Message, answer: type[R], *, seconds: float) -> R:
        """Ask the real engine what changes nothing there."""
        if not isinstance(request, QUESTIONS):
            raise Internal(f"a dry run asked the engine for {type(request).__name__}")
        return await self._engine.call(request, answer, seconds=seconds)

    def events(self) -> AsyncIterator[Event]:
        """As the real one."""
        return self._engine.events()


class RehearsalJournal(Journal):
    """Leaves unfinished operations as they are."""

    async def settle(self, vm: VmRecord) -> None:
        """The change itself would first end what is unfinished; its outcome cannot be known.

        Raises Conflict then. New keys and names that a VM is still to be told are no obstacle.
        """
        async with self._store.read() as tx:
            unfinished = await operations.unfinished(tx, vm=vm.id)
        for op in unfinished:
            if op.kind is not OpKind.IDENTIFY:
                raise Conflict(
                    f"{vm.title}: an earlier `{op.kind}` is not finished, and a dry run waits for none",
                    hint="Try again in a moment",
                )
