"""Numbers and names of VM networks: a slot is one VM's place in the block of outer addresses.

Invariant: a slot number alone decides every name and address below, so nothing has to be recorded
to find, check or remove what a slot left in the kernel. Pure: no I/O.

The first 256 addresses of the block are for services (block + 1 is the DNS address of all VMs);
slot i owns the four from block + 256 + 4i: network, host side, VM's outer address, broadcast.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from atoll.base.errors import Exhausted, Invalid

SERVICES = 256  # addresses kept from the slots
PER_SLOT = 4
MAX_SLOTS = 100_000  # five digits: `<8 letters>h<5 digits>` fits the kernel's 15 characters

# Inside, all VMs are alike, so that a clone is right the moment it resumes.
GUEST_MAC = "52:54:00:a7:01:01"
GUEST = IPv4Address("10.0.2.15")
GUEST_GATEWAY = IPv4Interface("10.0.2.2/24")
GUEST_DNS = IPv4Interface("10.0.2.3/24")
TAP_MAC = "02:00:00:a7:00:01"  # fixed: it is in the ARP cache of every template
TAP = "t0"
UPLINK = "u0"
FORKED_GROUP = 7  # of the tap of a VM whose memory has run elsewhere, or before


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One VM's network. `address` is how host and edge reach it, `gateway` the host's own side."""

    number: int
    netns: str
    veth: str
    gateway: IPv4Interface
    outer: IPv4Interface

    @property
    def address(self) -> IPv4Address:
        """The outer address without its prefix."""
        return self.outer.ip


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where an Atoll's slots lie. Raises Invalid for a label or block that cannot work."""

    instance: str
    block: IPv4Network

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9]{0,7}", self.instance):
            raise Invalid(
                f"network.instance {self.instance!r} is not 1 to 8 small letters and digits"
            )
        if self.block.num_addresses < 2 * SERVICES:
            raise Invalid(
                f"network.block {self.block} has no room for VMs", hint="Try: 10.213.0.0/16"
            )
        for taken in (GUEST_GATEWAY.network, *_NEVER):
            if self.block.overlaps(taken):
                raise Invalid(
                    f"network.block {self.block} overlaps {taken}", hint="Try: 10.213.0.0/16"
                )

    @property
    def capacity(self) -> int:
        """How many slots there are."""
        return min((self.block.num_addresses - SERVICES) // PER_SLOT, MAX_SLOTS)

    @property
    def service(self) -> IPv4Address:
        """The address of services for VMs."""
        return self.block.network_address + 1

    @property
    def service_link(self) -> str:
        """The dummy interface that carries `service`."""
        return f"{self.instance}0"

    @property
    def veths(self) -> str:
        """nft's pattern for the host side of every slot."""
        return f"{self.instance}h*"

    def slot(self, number: int) -> Slot:
        """Raises Exhausted for a number beyond the block."""
        if not 0 <= number < self.capacity:
            raise Exhausted(
                f"slot {number} does not exist: {self.block} has {self.capacity}",
                hint="Try: a larger network.block in the configuration",
            )
        base = self.block.network_address + SERVICES + PER_SLOT * number
        return Slot(
            number=number,
            netns=f"{self.instance}-{number}",
            veth=f"{self.instance}h{number}",
            gateway=IPv4Interface((base + 1, 30)),
            outer=IPv4Interface((base + 2, 30)),
        )

    def number_of_netns(self, name: str) -> int | None:
        """The slot a namespace belongs to; None when it is not one of ours."""
        return self._number(f"{self.instance}-", name)

    def number_of_veth(self, name: str) -> int | None:
        """The slot an interface belongs to; None when it is not one of ours."""
        return self._number(f"{self.instance}h", name)

    def number_of_address(self, address: IPv4Address) -> int | None:
        """The slot whose VM has this outer address; None when no VM can have it."""
        if address not in self.block:
            return None
        number, part = divmod(int(address) - int(self.block.network_address) - SERVICES, PER_SLOT)
        return number if part == 2 and 0 <= number < self.capacity else None

    def _number(self, prefix: str, name: str) -> int | None:
        match = re.fullmatch(re.escape(prefix) + r"(0|[1-9][0-9]{0,5})", name)
        number = int(match[1]) if match else self.capacity
        return number if number < self.capacity else None


_NEVER = (
    IPv4Network("0.0.0.0/8"),
    IPv4Network("127.0.0.0/8"),
    IPv4Network("169.254.0.0/16"),
    IPv4Network("224.0.0.0/3"),
)
