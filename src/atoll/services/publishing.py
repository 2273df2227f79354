"""What is open to whom now: VMs with their addresses for the edge, and who may enter which for SSH.

Everything is read afresh from the store, grants, people and teams in one transaction: what comes out
is of one moment.
"""

from __future__ import annotations

from collections.abc import Collection

from atoll.domain.account import Account, Published
from atoll.domain.sharing import Grant, Level, Opening, Who, openings, whom
from atoll.domain.vm import Phase, VmRecord
from atoll.rpc.messages import VmState
from atoll.services.facts import Facts
from atoll.store import grants, teams, vms
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

    async def named(self, name: str) -> Published | None:
        """The VM of this name, if it lives."""
        async with self._store.read() as tx:
            vm = await vms.named(tx, name)
            those = await openings_of(tx, vm) if vm is not None else None
        return None if vm is None or those is None else self._published(vm, those)

    async def entering(self) -> frozenset[tuple[str, str]]:
        """(account, VM) ids of who may have a shell where."""
        async with self._store.read() as tx:
            roots = {
                vm: tuple(grant for grant in given if grant.level is Level.ROOT)
                for vm, given in (await grants.everywhere(tx)).items()
            }
            found = await _opened(tx, await vms.everywhere(tx), roots)
        return frozenset((one.account, vm.id) for vm, those in found for one in those)

    def _published(self, vm: VmRecord, those: frozenset[Opening]) -> Published:
        facts = self._facts.get(vm.id)
        is_up = facts is not None and facts.state is VmState.RUNNING
        return Published(
            vm_name=vm.label,
            address=facts.address if facts is not None and is_up else None,
            port=vm.port,
            openings=those,
        )


async def openings_of(tx: Tx, vm: VmRecord) -> frozenset[Opening] | None:
    """What is open of one VM, to whom; None while it does not live."""
    return await openings_by(tx, vm, await grants.of_vm(tx, vm.id)) if _lives(vm) else None


async def openings_by(tx: Tx, vm: VmRecord, given: Collection[Grant]) -> frozenset[Opening]:
    """What these grants of one VM come to now, its owner's own included, whether it lives or not."""
    return openings(
        given,
        owner=vm.owner,
        port=vm.port,
        accounts=await grants.receivers(tx, whom(given, Who.PERSON)),
        teams=await teams.everybody(tx, whom(given, Who.TEAM)),
    )


async def entered_by(tx: Tx, account: Account) -> tuple[VmRecord, ...]:
    """The VMs an account has or will have a shell in, those in the making too: its own, and those
    shared with it at level root.
    """
    received = await grants.received(tx, account)
    shared = await vms.some(tx, {one.vm for one in received if one.level is Level.ROOT})
    others = [vm for vm in shared if vm.owner != account.id and vm.phase is not Phase.TRASHED]
    return (*await vms.owned(tx, account.id), *others)


async def _opened(
    tx: Tx, records: tuple[VmRecord, ...], given: dict[str, tuple[Grant, ...]]
) -> list[tuple[VmRecord, frozenset[Opening]]]:
    """Those of the VMs that live and have a name, each with what these grants by VM come to."""
    accounts = await grants.receivers(tx)
    members = await teams.everybody(tx)
    return [
        (
            vm,
            openings(
                given.get(vm.id, ()), owner=vm.owner, port=vm.port, accounts=accounts, teams=members
            ),
        )
        for vm in records
        if _lives(vm)
    ]


def _lives(vm: VmRecord) -> bool:
    return vm.name is not None and vm.phase is Phase.LIVE
