"""The text of the zones. Pure.

A wildcard answers for every VM, every `<port>-<vm>` and every name that is none, so asking tells nobody
which VMs exist. The exception is wanted by who sets `dns.ipv6_prefix`: an address of its own per VM is
an answer that differs. Knot's modules make addresses of names only reversibly (`synthrecord`), and a
server that computes a keyed one per question would put our code in the path of every packet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

CHALLENGE = "_acme-challenge"
_SERIALS = 1 << 32
_SOA = re.compile(r"^(@ \d+ IN SOA \S+ \S+) (\d+) ", re.MULTILINE)
# Seconds: refresh and retry are for secondary servers, which there are none; an answer that a name has
# no such record is kept a minute.
_TIMES = "3600 600 1209600 60"


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """What the domain's zone says. `vms` holds the address of each VM that has one, by name."""

    domain: str
    name_servers: Sequence[str]
    ipv4: Sequence[IPv4Address]
    ipv6: Sequence[IPv6Address]
    ttl_s: int
    vm_ttl_s: int
    caa: Sequence[str] = ()
    vms: Mapping[str, IPv6Address] = field(default_factory=dict)


def servers(domain: str, configured: Sequence[str]) -> tuple[str, ...]:
    """The names of the NS records."""
    return tuple(configured) or (f"ns1.{domain}",)


def render(zone: Zone, *, serial: int) -> str:
    """The zone file."""
    addresses = [*(f"A {one}" for one in zone.ipv4), *(f"AAAA {one}" for one in zone.ipv6)]
    glue = [name.removesuffix(f".{zone.domain}") for name in zone.name_servers]
    glue = [name for name in glue if "." not in name]  # the others are for other zones to say
    lines = [
        f"$ORIGIN {zone.domain}.",
        _soa(zone.domain, zone.name_servers[0], serial, zone.ttl_s),
        *(f"@ {zone.ttl_s} IN NS {name}." for name in zone.name_servers),
        *(f'@ {zone.ttl_s} IN CAA 0 {tag} "{name}"' for name in zone.caa for tag in _CAA),
        *(f"{CHALLENGE} {zone.ttl_s} IN NS {name}." for name in zone.name_servers),
        *(f"{name} {zone.ttl_s} IN {one}" for name in ("@", "*", *glue) for one in addresses),
    ]
    for name, address in sorted(zone.vms.items()):
        if name not in glue:  # a VM that has the name of a name server must not become it
            lines += [f"{name} {zone.vm_ttl_s} IN A {one}" for one in zone.ipv4]
            lines.append(f"{name} {zone.vm_ttl_s} IN AAAA {address}")
    return "\n".join(lines) + "\n"


def render_challenge(zone: str, name_server: str) -> str:
    """The empty zone that proofs for certificates are put into, by dynamic update."""
    lines = [f"$ORIGIN {zone}.", _soa(zone, name_server, 1, 1), f"@ 1 IN NS {name_server}."]
    return "\n".join(lines) + "\n"


def serial_of(text: str) -> int | None:
    """The serial of a rendered zone."""
    found = _SOA.search(text)
    return int(found[2]) if found else None


def is_same(one: str, other: str) -> bool:
    """Whether two rendered zones say the same, their serials aside."""
    return _SOA.sub(r"\1 ", one) == _SOA.sub(r"\1 ", other)


def next_serial(last: int | None, now: float) -> int:
    """A serial greater than `last` (RFC 1982), whatever the clock says; the time where it can be."""
    clock = int(now) % _SERIALS
    if last is None:
        return clock or 1
    ahead = (clock - last) % _SERIALS
    return clock if 0 < ahead < _SERIALS // 2 and clock else (last + 1) % _SERIALS or 1


_CAA = ("issue", "issuewild")


def _soa(zone: str, name_server: str, serial: int, ttl_s: int) -> str:
    return f"@ {ttl_s} IN SOA {name_server}. hostmaster.{zone}. {serial} {_TIMES}"
