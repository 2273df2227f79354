"""What is open to whom now: VMs with their addresses for the edge, and who may enter which for SSH.

Everything is read afresh from the store, grants, people and teams in one transaction: what comes out
is of one moment.
"""

from __future__ import annotations

from atoll.domain.account import Published
from atoll.domain.sharing import Grant, Level, Opening, openings
from atoll.domain.vm import Phase, VmRecord
from atoll.rpc.messages import VmState
from atoll.services.facts import Facts
from atoll.store import grants, vms
from atoll.store.engine import Store, Tx


class Publishing:
    """Reads; changes nothing."""

    def __init__(self, *, store: Store, facts: Facts) -> None:
        self._store = store
        self._facts = facts

    async def published(self) -> tuple[Published, ...]:
        """Every VM the edge should know, with its address while it runs."""
        async with self._store.read() as tx:
            found = await _opened(tx, await vms.everywhere(tx), await grants.everywhere(tx))
        return tuple(self._published(vm, opened) for vm, opened in found)

    async def of_vm(self, vm: VmRecord) -> Published:
        """One VM."""
        async with self._store.read() as tx:
            given = {vm.id: await grants.of_vm(tx, vm.id)}
            ((_, opened),) = await _opened(tx, (vm,), given)
        return self._published(vm, opened)

    async def entering(self) -> frozenset[tuple[str, str]]:
        """(account, VM) ids of who may have a shell where."""
        async with self._store.read() as tx:
            roots = {
                vm: tuple(grant for grant in given if grant.level is Level.ROOT)
                for vm, given in (await grants.everywhere(tx)).items()
            }
            found = await _opened(tx, await vms.everywhere(tx), roots)
        return frozenset((one.account, vm.id) for vm, opened in found for one in opened)

    def _published(self, vm: VmRecord, opened: frozenset[Opening]) -> Published:
        facts = self._facts.get(vm.id)
        is_up = facts is not None and facts.state is VmState.RUNNING
        return Published(
            vm_name=vm.label,
            address=facts.address if facts is not None and is_up else None,
            port=vm.port,
            openings=opened,
        )


async def _opened(
    tx: Tx, records: tuple[VmRecord, ...], given: dict[str, tuple[Grant, ...]]
) -> list[tuple[VmRecord, frozenset[Opening]]]:
    accounts = await grants.receivers(tx)
    return [
        (
            vm,
            openings(
                given.get(vm.id, ()), owner=vm.owner, port=vm.port, accounts=accounts, teams={}
            ),
        )
        for vm in records
        if vm.name is not None and vm.phase is Phase.LIVE
    ]
