"""What giving and taking have in common: the rows of one VM change, and whoever must know is told."""

from __future__ import annotations

from collections.abc import Sequence

from atoll.base.errors import Exhausted
from atoll.domain.sharing import Grant, Level, Who
from atoll.domain.vm import VmRecord
from atoll.services.changes import Changes
from atoll.services.journal import Journal
from atoll.store import accounts, grants
from atoll.store.engine import Tx

MAX_GRANTS = 500  # of one VM: more people than that are a team


class Granting:
    """Writes grants; the caller owns the transaction, and calls `changed` once it has committed.

    A VM is not held while it is shared: nothing that goes on with it may hold a withdrawal up.
    """

    def __init__(self, *, journal: Journal, changes: Changes) -> None:
        self._journal = journal
        self._changes = changes

    async def put(self, tx: Tx, vm: VmRecord, grant: Grant, *, act: str) -> None:
        """Give. Raises Exhausted."""
        given = await grants.of_vm(tx, vm.id)
        if len(given) >= MAX_GRANTS:
            raise Exhausted(
                f"{vm.title} is shared {MAX_GRANTS} times, which is the most",
                hint="Share it with a team, or: share remove",
            )
        await grants.put(tx, grant)
        await self._answer(tx, vm, grant)
        await self._tell_vm(tx, vm, (grant,), act)

    async def remove(self, tx: Tx, vm: VmRecord, taken: Sequence[Grant], *, act: str) -> None:
        """Take away."""
        await grants.remove(tx, [grant.id for grant in taken])
        await self._tell_vm(tx, vm, taken, act)

    async def changed(self, *those: Grant) -> None:
        """These grants came, went or changed; returns when the edge does so, too."""
        self._changes.bump()
        if _roots(those):
            self._journal.wake()
        await self._changes.in_force()

    async def _answer(self, tx: Tx, vm: VmRecord, grant: Grant) -> None:
        """Who is given something no longer asks for it."""
        if grant.kind is not Who.PERSON:
            return
        account = await accounts.by_email(tx, grant.who)
        if account is not None:
            await grants.withdraw(tx, vm_name=vm.label, account=account.id)

    async def _tell_vm(self, tx: Tx, vm: VmRecord, those: Sequence[Grant], act: str) -> None:
        if _roots(those):
            await self._journal.inform(tx, vm, act=act)


def _roots(those: Sequence[Grant]) -> bool:
    return any(grant.level is Level.ROOT for grant in those)
