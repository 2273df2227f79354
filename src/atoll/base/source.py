"""Where a client comes from: its address as it is shown, and what counts as one source of tries.

A socket on `::` takes IPv4 as well, and calls `192.0.2.1` `::ffff:192.0.2.1`: the same client.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from atoll.base.errors import Exhausted
from atoll.base.limits import Limits


def plain(source: str) -> str:
    """The address of a client, IPv4 as such; what is no address stays as it is."""
    mapped = _mapped(_address(source))
    return source if mapped is None else str(mapped)


def network_of(source: str) -> str:
    """What one client has: an IPv4 address, or 64 bits of IPv6."""
    address = _address(source)
    if address is None:
        return source[:64]
    if isinstance(address, IPv4Address):
        return str(address)
    return str(_mapped(address) or IPv6Network((int(address) >> 64 << 64, 64)))


def count_try(limits: Limits, source: str) -> None:
    """One more try of a client's. Raises Exhausted when its network has had too many."""
    if wait := limits.wait_s(network_of(source)):
        raise Exhausted("too many tries from your address", hint=f"Try again in {wait} s")


def _address(source: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(source.partition("%")[0])  # without the interface of a link-local one
    except ValueError:
        return None


def _mapped(address: IPv4Address | IPv6Address | None) -> IPv4Address | None:
    return address.ipv4_mapped if isinstance(address, IPv6Address) else None
