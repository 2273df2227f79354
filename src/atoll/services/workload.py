"""Which VM asks, by where it asks from; and tokens that say so to others.

Invariant: a VM's outer address alone says who it is, and the engine confirms it at each use: an address
that was another VM's a moment ago, or that two seem to have, names nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atoll.base.errors import Conflict, Invalid, NotFound
from atoll.domain.account import Account
from atoll.domain.vm import Phase, VmRecord
from atoll.domain.web import Names
from atoll.rpc.messages import VmState
from atoll.services.facts import Facts
from atoll.services.issuer import Issuer
from atoll.store import accounts, vms
from atoll.store.engine import Store

TOKEN_S = 600.0
_AUDIENCE = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """A running VM that asks, and whose it is."""

    vm: VmRecord
    owner: Account


class Workload:
    """Names VMs and signs for them."""

    def __init__(self, *, store: Store, facts: Facts, issuer: Issuer, names: Names) -> None:
        self._store = store
        self._facts = facts
        self._issuer = issuer
        self._names = names

    async def at(self, address: str) -> Asking:
        """The running VM at this outer address. Raises NotFound; Conflict while it has no name."""
        vm = await self._vm_at(address)
        async with self._store.read() as tx:
            record = await vms.get(tx, vm)
            owner = await accounts.by_id(tx, record.owner) if record is not None else None
        if record is None or owner is None:
            raise NotFound("no VM of this cloud asks from this address")
        if record.name is None or record.phase is not Phase.LIVE:
            raise Conflict(f"{record.title} is being made or removed", hint="Try again in a moment")
        return Asking(vm=record, owner=owner)

    async def about(self, address: str) -> dict[str, Any]:
        """What the VM at this address is."""
        asking = await self.at(address)
        vm = asking.vm
        return {
            "id": vm.id,
            "name": vm.name,
            "tags": sorted(vm.tags),
            "port": vm.port,
            "url": self._names.url(f"{vm.name}.{self._names.domain}"),
            "owner": {"id": asking.owner.id, "email": asking.owner.email},
            "issuer": self._issuer.url,
        }

    async def token(self, address: str, *, audience: str) -> str:
        """A token for `audience` that names the VM at this address."""
        self._check(audience)
        asking = await self.at(address)
        claims = {
            "sub": f"vm:{asking.vm.id}",
            "vm_name": asking.vm.name,
            "tags": sorted(asking.vm.tags),
            "account": asking.owner.id,
            "owner_email": asking.owner.email,
        }
        return self._issuer.sign(claims, audience=audience, seconds=TOKEN_S)

    def _check(self, audience: str) -> None:
        if not 1 <= len(audience) <= _AUDIENCE or not audience.isprintable():
            raise Invalid(
                f"an audience has 1 to {_AUDIENCE} printable characters",
                hint="Try: /token?audience=https://api.example.com",
            )
        host = audience.strip().lower()
        if self._names.vm_of(host) is not None:
            # The same keys sign who people are, to apps that are called like this.
            raise Invalid(
                f"{host} is what tokens about people are for, not tokens about VMs",
                hint=f"Try: /token?audience=https://{host}",
            )

    async def _vm_at(self, address: str) -> str:
        """The one VM that runs there now, as the engine says when it is asked about it."""
        there = await self._confirmed(address)
        if len(there) != 1:
            await self._facts.refresh()  # it may have got the address a moment ago
            there = await self._confirmed(address)
        if len(there) != 1:
            raise NotFound("no VM of this cloud asks from this address")
        return there[0]

    async def _confirmed(self, address: str) -> list[str]:
        now = [await self._facts.fresh(vm) for vm in self._facts.at(address)]
        return [
            vm.vm
            for vm in now
            if vm is not None and vm.state is VmState.RUNNING and vm.address == address
        ]
