"""Which VM an IPv6 address means, and the other way round.

Addresses are computed from the store at every question: there is no table that could be wrong.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection

from atoll.domain.vm_address import vm_address
from atoll.store import vms
from atoll.store.engine import Store


class VmAddresses:
    """The VMs' part of the network that is routed to this machine."""

    def __init__(
        self,
        *,
        store: Store,
        network: ipaddress.IPv6Network,
        key: bytes,
        own: Callable[[], Collection[ipaddress.IPv4Address | ipaddress.IPv6Address]],
    ) -> None:
        """`own`: the machine's addresses. Inside the network they still mean the cloud, no VM."""
        self._store = store
        self._network = network
        self._key = key
        self._own = own

    def is_for_vms(self, address: str) -> bool:
        """True when a connection to `address` means a VM, though perhaps one that is not."""
        try:
            found = ipaddress.IPv6Address(address.partition("%")[0])
        except ValueError:
            return False
        return found in self._network and found not in self._own()

    async def vm_at(self, address: str) -> str | None:
        """The name of the VM with this address."""
        wanted = ipaddress.IPv6Address(address.partition("%")[0])
        named = await self.by_name()
        return next((name for name, found in named.items() if found == wanted), None)

    async def by_name(self) -> dict[str, ipaddress.IPv6Address]:
        """Every VM that has a name, with its address."""
        async with self._store.read() as tx:
            found = await vms.everywhere(tx)
        return {vm.name: vm_address(self._network, self._key, vm.id) for vm in found if vm.name}
