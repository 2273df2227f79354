"""The machine's own addresses: where Knot listens and what names resolve to. Pure but for `found`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from atoll.base.proc import run
from atoll.config import Address, Config

# Of the whole 127/8 some address where no resolver of the host is: updates come, and control asks, here.
LOOPBACK = IPv4Address("127.53.0.1")
_IP_S = 10.0


async def found(config: Config) -> tuple[Address, ...]:
    """The global addresses of the interfaces, without those of our VMs' networks."""
    listed = await run(["ip", "-j", "addr"], seconds=_IP_S)
    return parse(listed.out, config)


def parse(listed: bytes, config: Config) -> tuple[Address, ...]:
    """The same from what `ip -j addr` printed. Temporary IPv6 addresses are no address to publish."""
    addresses = [
        ip_address(one["local"])
        for interface in json.loads(listed)
        for one in interface.get("addr_info", [])
        if one.get("scope") == "global" and not one.get("temporary") and not one.get("deprecated")
    ]
    return tuple(one for one in addresses if one not in config.network.block)


def listening(config: Config, own: Sequence[Address]) -> tuple[Address, ...]:
    """Where Knot listens."""
    return (LOOPBACK, *(config.dns.listen or own))


def public_ipv4(config: Config, own: Sequence[Address]) -> tuple[IPv4Address, ...]:
    """The A records of every name."""
    public = (one for one in own if isinstance(one, IPv4Address) and one.is_global)
    return config.dns.ipv4 or tuple(public)


def public_ipv6(config: Config, own: Sequence[Address]) -> tuple[IPv6Address, ...]:
    """The AAAA records; without a door that takes IPv6 they would lead nowhere."""
    if not (":" in config.ssh.listen and ":" in config.https.listen):
        return config.dns.ipv6
    public = (one for one in own if isinstance(one, IPv6Address) and one.is_global)
    return config.dns.ipv6 or tuple(public)
