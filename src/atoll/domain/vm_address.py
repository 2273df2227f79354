"""One IPv6 address per VM: a keyed hash of its id, so it is stable and no table holds it. Pure.

A rename keeps the address, a copy has its own, and who does not have the key cannot tell from a VM's
address what another's is. At 64 bits two of a million VMs share one with a chance of 1 in 37 million.
"""

from __future__ import annotations

import hashlib
import hmac
from ipaddress import IPv6Address, IPv6Network


def vm_address(network: IPv6Network, key: bytes, vm: str) -> IPv6Address:
    """The address of a VM, by id; never the network's first, which means "any router" (RFC 4291)."""
    digest = hmac.digest(key, f"address of {vm}".encode(), hashlib.sha256)
    host = int.from_bytes(digest, "big") >> (8 * len(digest) - (128 - network.prefixlen))
    return network[host or 1]
