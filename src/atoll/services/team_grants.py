"""What membership means for the VMs that are shared with a team.

Who may open them is read from the members at every look (services.publishing, services.access). What
is written down follows here, in the transaction that changes the membership: whoever leaves takes back
what they shared, a team that ends leaves no grants behind, and running VMs that its members may log in
to are told whose keys open them now.
"""

from __future__ import annotations

from collections.abc import Collection

from atoll.base import ids
from atoll.domain.sharing import Grant, Level
from atoll.services.journal import Journal
from atoll.store import grants, vms
from atoll.store.engine import Tx


class TeamGrants:
    """Writes in transactions of others, who call `Journal.wake` and bump `changes` after them."""

    def __init__(self, *, journal: Journal) -> None:
        self._journal = journal

    async def joined(self, tx: Tx, team: str) -> None:
        """Somebody is in the team now."""
        await self._tell(tx, await grants.to_team(tx, team))

    async def left(self, tx: Tx, team: str, account: str) -> None:
        """Somebody is not any more, and shares nothing of theirs with it."""
        given = await grants.to_team(tx, team)
        owned = {vm.id for vm in await vms.some(tx, _vms(given)) if vm.owner == account}
        await grants.remove(tx, [grant.id for grant in given if grant.vm in owned])
        await self._tell(tx, given)

    async def ended(self, tx: Tx, team: str) -> None:
        """There is no such team any more."""
        given = await grants.to_team(tx, team)
        await grants.remove(tx, [grant.id for grant in given])
        await self._tell(tx, given)

    async def _tell(self, tx: Tx, given: Collection[Grant]) -> None:
        roots = [grant for grant in given if grant.level is Level.ROOT]
        for vm in await vms.some(tx, _vms(roots)):
            await self._journal.inform(tx, vm, act=ids.new("act"))


def _vms(given: Collection[Grant]) -> set[str]:
    return {grant.vm for grant in given}
