"""What happened: written down as it is done or noticed, and read by whoever may see the VM.

Invariant: what a VM came to by itself is written in the transaction that draws the conclusion, and
readers are woken after it; an event that was read once is never written differently.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Collection
from dataclasses import dataclass
from enum import StrEnum

from atoll.domain.account import Account, Caller
from atoll.domain.operation import Json
from atoll.domain.vm import VmRecord
from atoll.services.changes import Changes, Mark, following
from atoll.store import events, vms
from atoll.store.engine import Store, Tx
from atoll.store.events import Happened

BATCH = 100  # rows a follower holds at once


class Unasked(StrEnum):
    """What happens to a VM without a command."""

    POWERED_OFF = "powered-off"  # by its own guest
    CRASHED = "crashed"
    LOST = "lost"  # the engine does not have it
    STARTED = "started"  # it should run, and did not when the engine appeared
    PURGED = "purged"  # its time in the trash is over
    RECEIVED = "received"  # somebody handed it over
    THINNED = "thinned"  # the pool is short of room, and its oldest history goes
    PORT_MOVED = "port-moved"  # its web address follows what listens inside


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Which events: those of VMs by id, and those of VMs that had one of these names then."""

    vms: Collection[str] = ()
    names: Collection[str] = ()

    def covers(self, event: Happened) -> bool:
        """Whether an event is one of them."""
        return event.vm_id in self.vms or event.vm in self.names


class Events:
    """Writes and reads. `changes` goes up with every event that is written."""

    def __init__(
        self, *, store: Store, news: Changes, now: Callable[[], float] = time.time
    ) -> None:
        self.changes = Changes(also=news)
        self._store = store
        self._now = now

    async def record(self, caller: Caller, kind: str, *, act: str, vm_name: str | None) -> None:
        """Note a change that a command has made."""
        account = caller.account.id
        async with self._store.begin() as tx:
            vm_id = None if vm_name is None else await vms.id_of(tx, account, vm_name, act=act)
            event = Happened(
                at=self._now(),
                account=account,
                vm=vm_name,
                vm_id=vm_id,
                kind=kind,
                door=caller.door.value,
                detail={"act": act, "source": caller.source, "by": caller.credential},
            )
            await events.add(tx, event)
        self.changes.bump()

    async def notice(
        self, tx: Tx, vm: VmRecord, kind: Unasked, *, problem: str = "", once: bool = False
    ) -> None:
        """Note what a VM came to by itself; `changes.bump` is the caller's, once `tx` has committed.

        With `once` nothing is noted when that is the last that is known of the VM.
        """
        if once:
            last = await events.latest_of(tx, vm.owner, vms=(vm.id,), names=(), limit=1)
            if last and last[0].kind == kind:
                return
        event = Happened(
            at=self._now(),
            account=vm.owner,
            vm=vm.label,
            vm_id=vm.id,
            kind=kind.value,
            door="",
            detail={"problem": problem} if problem else {},
        )
        await events.add(tx, event)

    async def handed_over(
        self, tx: Tx, vm: VmRecord, now: VmRecord, caller: Caller, *, act: str
    ) -> None:
        """Note for the old owner who gave a VM away, and for the new one that it is theirs.

        `changes.bump` is the caller's, once `tx` has committed.
        """
        detail: dict[str, Json] = {"act": act}
        if caller.account.id == vm.owner:
            detail |= {"source": caller.source, "by": caller.credential}
        given = Happened(
            at=self._now(),
            account=vm.owner,
            vm=vm.label,
            vm_id=vm.id,
            kind="transfer",
            door=caller.door.value if caller.account.id == vm.owner else "",
            detail=detail,
        )
        await events.add(tx, given)
        await self.notice(tx, now, Unasked.RECEIVED)

    async def latest(
        self, account: Account, *, limit: int, about: About | None = None
    ) -> tuple[tuple[Happened, ...], Mark]:
        """An account's newest events, oldest of them first, and the mark that `after` goes on from."""
        version = self.changes.version
        async with self._store.read() as tx:
            newest = await events.newest_id(tx, account.id)
            if about is None:
                found = await events.latest(tx, account.id, limit=limit)
            else:
                found = await events.latest_of(
                    tx, account.id, vms=about.vms, names=about.names, limit=limit
                )
        return tuple(reversed(found)), Mark(newest, version)

    def after(self, account: Account, mark: Mark) -> AsyncGenerator[tuple[Happened, ...], None]:
        """Events of an account beyond the mark, some at a time, for ever."""

        async def page(seen: int) -> tuple[Happened, ...]:
            async with self._store.read() as tx:
                return await events.after(tx, account.id, seen, limit=BATCH)

        return following(self.changes, mark, page, size=BATCH)
