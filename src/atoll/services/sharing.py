"""Sharing: who gives whom which VM, and until when.

Invariants: only a VM's owner changes who may open it. A grant counts from the commit that holds it to
the one that takes it away, or to its last second: `changes` goes up with each, and whatever goes on by
a right that is lost is ended by who follows them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from atoll.base import ids, log
from atoll.base.errors import AtollError, Conflict, NotFound
from atoll.base.timeout import timeout
from atoll.domain.account import Account, Caller
from atoll.domain.sharing import Grant, Level, Link, Place, Who, whom
from atoll.domain.vm import VmRecord
from atoll.services.access import Access, find
from atoll.services.changes import Changes
from atoll.services.granting import Granting
from atoll.store import accounts, grants, teams, vms
from atoll.store.engine import Store, Tx
from atoll.store.grants import Asking

LOOK_S = 60.0  # a clock that jumps is noticed after this
RETRY_S = 1.0
_log = log.get("sharing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """All there is about who may open a VM."""

    vm: VmRecord
    grants: tuple[Grant, ...]
    links: tuple[Link, ...]
    asking: tuple[Asking, ...]
    addresses: Mapping[str, str]  # of people that have an account, to its id
    teams: Mapping[str, str]  # names of those it is shared with, by id


class Sharing:
    """Gives and takes."""

    def __init__(
        self,
        *,
        store: Store,
        access: Access,
        granting: Granting,
        changes: Changes,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._access = access
        self._granting = granting
        self._changes = changes
        self._now = now

    async def of(self, caller: Caller, name: str) -> Shared:
        """Who may open the caller's VM. Raises NotFound."""
        vm = await self._access.find(caller, name)
        async with self._store.read() as tx:
            given = await grants.of_vm(tx, vm.id)
            return Shared(
                vm=vm,
                grants=given,
                links=await grants.links_of(tx, vm.id),
                asking=await grants.asking(tx, vm.label),
                addresses=await grants.receivers(tx, whom(given, Who.PERSON)),
                teams=await teams.names(tx, whom(given, Who.TEAM)),
            )

    async def with_me(self, account: Account) -> tuple[tuple[VmRecord, Account, Grant], ...]:
        """VMs of others that are shared with an account: each with its owner, by name."""
        now = self._now()
        async with self._store.read() as tx:
            received = await grants.received(tx, account)
            given = [grant for grant in received if not grant.is_over(now)]
            found = {vm.id: vm for vm in await vms.some(tx, {grant.vm for grant in given})}
            owners = await accounts.some(tx, {vm.owner for vm in found.values()})
        listed = [
            (found[g.vm], owners[found[g.vm].owner], g)
            for g in given
            if found[g.vm].name is not None and found[g.vm].owner != account.id
        ]
        return tuple(sorted(listed, key=lambda one: (one[0].label, one[2].port, one[2].path)))

    async def is_awaited(self, tx: Tx, email: str) -> bool:
        """Whether something that has not ended is shared with this address."""
        return await grants.is_awaited(tx, email, now=self._now())

    async def give(
        self,
        caller: Caller,
        name: str,
        kind: Who,
        who: str,
        place: Place,
        *,
        called: str = "",
        level: Level = Level.WEB,
        until: float | None = None,
        act: str,
    ) -> Grant:
        """Let a person, a team or everybody open a place of the caller's VM.

        `called` is what a message calls the receiver, if not `who`.

        Raises NotFound, Conflict for the owner, or Exhausted.
        """
        async with self._store.begin() as tx:
            vm = await find(tx, caller, name)
            if kind is Who.PERSON and who == caller.account.email:
                raise Conflict(f"{vm.title} is yours already", hint=f"Try: share show {name}")
            grant = Grant(
                id=ids.new("grant"),
                vm=vm.id,
                kind=kind,
                who=who,
                level=level,
                port=place.port,
                path=place.path,
                created_at=self._now(),
                created_by=caller.account.id,
                expires_at=until,
            )
            if level is Level.WEB and _has_root(await grants.of_vm(tx, vm.id), grant):
                raise Conflict(
                    f"{called or who} has root access to {vm.title}, which is more",
                    hint=f"To take that away: share remove {name} {called or who} --root",
                )
            await self._granting.put(tx, vm, grant, act=act)
        await self._granting.changed(grant)
        return grant

    async def take(
        self,
        caller: Caller,
        name: str,
        kind: Who,
        who: str,
        place: Place | None,
        *,
        act: str,
    ) -> tuple[Grant, ...]:
        """Take away what a receiver has of a VM: everything, or one place. Returns what it was.

        Raises NotFound for the VM.
        """
        async with self._store.begin() as tx:
            vm = await find(tx, caller, name)
            taken = tuple(
                grant
                for grant in await grants.of_vm(tx, vm.id)
                if (grant.kind, grant.who) == (kind, who)
                and place in (None, Place(port=grant.port, path=grant.path))
            )
            if not taken:
                return ()
            await self._granting.remove(tx, vm, taken, act=act)
        await self._granting.changed(*taken)
        return taken

    async def lower(
        self, caller: Caller, name: str, kind: Who, who: str, *, called: str = "", act: str
    ) -> Grant:
        """Make a grant of level `root` one of level `web`. Raises NotFound when there is none."""
        async with self._store.begin() as tx:
            vm = await find(tx, caller, name)
            given = await grants.of_vm(tx, vm.id)
            root = next(
                (g for g in given if (g.kind, g.who, g.level) == (kind, who, Level.ROOT)), None
            )
            if root is None:
                raise NotFound(
                    f"{(called or who)[:60]} has no root access to {vm.title}",
                    hint=f"Try: share show {name}",
                )
            await self._granting.remove(tx, vm, (root,), act=act)
            lowered = replace(root, level=Level.WEB)
            await grants.put(tx, lowered)
        await self._granting.changed(root)
        return lowered

    async def run(self) -> None:
        """Take away what has ended, to the second, until cancelled."""
        while True:
            version = self._changes.version
            try:
                seconds = await self._end()
            except AtollError as error:
                _log.warning("ended grants stay for now", reason=str(error))
                seconds = RETRY_S
            with contextlib.suppress(TimeoutError):
                async with timeout(seconds):
                    await self._changes.wait_beyond(version)

    async def _end(self) -> float:
        """Forget what is over; seconds to wait for the next end."""
        now = self._now()
        async with self._store.read() as tx:
            end = await grants.next_end(tx)
        if end is not None and end <= now:
            async with self._store.begin() as tx:
                over = await grants.over(tx, now=now)
                for vm in await vms.some(tx, {grant.vm for grant in over}):
                    taken = [grant for grant in over if grant.vm == vm.id]
                    await self._granting.remove(tx, vm, taken, act=ids.new("act"))
                await grants.end_links(tx, now=now)
                end = await grants.next_end(tx)
            _log.info("grants ended", count=len(over))
            await self._granting.changed(*over)
        return LOOK_S if end is None else min(max(end - now, 0.01), LOOK_S)


def _has_root(given: Iterable[Grant], grant: Grant) -> bool:
    return any(
        (one.kind, one.who, one.level) == (grant.kind, grant.who, Level.ROOT) for one in given
    )
