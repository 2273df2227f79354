"""Which VMs a caller may see and touch: its account's, and of those the ones its scope names.

Others may be open to it (see `services.sharing`), and those shared with it at level root it may enter;
what changes a VM is its owner's alone.

What a caller may not see is "not found", never "denied": names of others are nobody's business.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from atoll.base.errors import NotFound
from atoll.domain.account import Caller
from atoll.domain.sharing import Level
from atoll.domain.vm import VmRecord, title
from atoll.services.journal import Journal
from atoll.services.locks import VmLocks
from atoll.store import grants, vms
from atoll.store.engine import Store, Tx


class Access:
    """Finds VMs for callers, and holds one while it is changed."""

    def __init__(
        self,
        *,
        store: Store,
        locks: VmLocks,
        journal: Journal,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._now = now
        self._locks = locks
        self._journal = journal

    async def visible(self, caller: Caller) -> tuple[VmRecord, ...]:
        """The caller's VMs by name, without the trash."""
        async with self._store.read() as tx:
            owned = await vms.owned(tx, caller.account.id)
        return tuple(vm for vm in owned if may_touch(caller, vm))

    async def ever(self, caller: Caller) -> tuple[VmRecord, ...]:
        """The same, and those in the trash."""
        async with self._store.read() as tx:
            owned = await vms.owned(tx, caller.account.id)
            trashed = await vms.trashed(tx, caller.account.id)
        return tuple(vm for vm in (*owned, *trashed) if may_touch(caller, vm))

    async def find(self, caller: Caller, name: str) -> VmRecord:
        """The caller's VM of this name, or NotFound with the nearest one it has."""
        async with self._store.read() as tx:
            return await find(tx, caller, name)

    async def find_root(self, caller: Caller, name: str) -> VmRecord:
        """A VM that the caller may have a shell in: its own, or one shared with it at level root.

        Raises NotFound.
        """
        async with self._store.read() as tx:
            vm = await vms.named(tx, name)
            if vm is not None and (may_touch(caller, vm) or await self._may_enter(tx, caller, vm)):
                return vm
            return await find(tx, caller, name)

    async def _may_enter(self, tx: Tx, caller: Caller, vm: VmRecord) -> bool:
        # Tags are their owner's words: a key limited to a tag of its own account means no other's VM.
        if not (caller.scope.is_whole or caller.scope.vm == vm.id):
            return False
        return any(
            one.vm == vm.id and one.level is Level.ROOT and not one.is_over(self._now())
            for one in await grants.received(tx, caller.account)
        )

    @asynccontextmanager
    async def exclusively(
        self, caller: Caller, name: str, *, doing: str
    ) -> AsyncIterator[VmRecord]:
        """Hold the VM for one change; nothing unfinished is left on it when the body starts.

        Raises NotFound, or Conflict naming what runs.
        """
        vm = await self.find(caller, name)
        async with self._locks.hold(vm.id, label=name, doing=doing):
            await self._journal.settle(vm)
            now = await self.find(caller, name)  # the wait may have renamed or removed it
            if now.id != vm.id:
                raise NotFound(f"{title(name)} not found", hint="Try: ls")
            yield now


async def find(tx: Tx, caller: Caller, name: str) -> VmRecord:
    """`Access.find` inside a transaction."""
    vm = await vms.named(tx, name)
    if vm is not None and may_touch(caller, vm):
        return vm
    owned = await vms.owned(tx, caller.account.id)
    names = [vm.label for vm in owned if may_touch(caller, vm)]
    near = difflib.get_close_matches(name[:60], names, n=1)
    raise NotFound(
        f"{title(name)} not found", hint=f"Did you mean {near[0]}?" if near else "Try: ls"
    )


def may_touch(caller: Caller, vm: VmRecord) -> bool:
    """True when the VM is the caller's and inside its scope."""
    return vm.owner == caller.account.id and caller.scope.covers(vm.id, vm.tags)
