"""What the zone says, its serial, and which addresses are whose."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address, IPv6Network

import dns.zone
import pytest

from atoll.config import Config
from atoll.domain.vm_address import vm_address
from atoll.doors.names.addresses import parse, public_ipv4, public_ipv6
from atoll.doors.names.zone import Zone, is_same, next_serial, render, serial_of
from atoll.doors.ssh.target import Target, of_address

NETWORK = IPv6Network("fd5a:1:2:3::/64")
ZONE = Zone(
    domain="isle.example",
    name_servers=("ns1.isle.example", "ns.other.example"),
    ipv4=(IPv4Address("192.0.2.7"),),
    ipv6=(),
    ttl_s=300,
    vm_ttl_s=10,
    vms={"web": NETWORK[7], "ns1": NETWORK[8]},
)


def test_a_zone_reads_back() -> None:
    zone = dns.zone.from_text(render(ZONE, serial=5))
    assert {str(name) for name in zone} == {"@", "*", "ns1", "web", "_acme-challenge"}
    assert str(zone.find_rdataset("web", "AAAA")[0]) == str(NETWORK[7])
    assert zone.get_rdataset("ns1", "AAAA") is None  # a VM of that name is no name server


def test_the_serial_is_not_what_a_zone_says() -> None:
    one, other = render(ZONE, serial=5), render(ZONE, serial=6)
    assert (serial_of(one), is_same(one, other)) == (5, True)
    assert not is_same(one, one.replace("192.0.2.7", "192.0.2.8"))


@pytest.mark.parametrize(
    ("last", "now", "next_one"),
    [
        (None, 100.5, 100),
        (50, 100, 100),
        (100, 100, 101),
        (100, 50, 101),
        (2**32 - 1, 2**31 + 1, 1),
    ],
)
def test_serials_only_grow(last: int | None, now: float, next_one: int) -> None:
    assert next_serial(last, now) == next_one


def test_a_vm_keeps_its_address_and_shares_it_with_nobody() -> None:
    found = {vm_address(NETWORK, b"key", f"vm-{n}") for n in range(1000)}
    assert len(found) == 1000
    assert all(address in NETWORK for address in found)
    assert vm_address(NETWORK, b"key", "vm-1") in found
    assert vm_address(NETWORK, b"other", "vm-1") not in found


def test_what_is_published_is_public() -> None:
    def one(address: str, **more: object) -> dict[str, object]:
        return {"local": address, "scope": "global", **more}

    info = [one("10.213.0.1"), one("10.0.0.5"), one("8.8.4.4"), one("2600::5"),
            one("2600::6", temporary=True), {"local": "fe80::1", "scope": "link"}]  # fmt: skip
    own = parse(json.dumps([{"addr_info": info}]).encode(), Config())
    assert [str(a) for a in own] == ["10.0.0.5", "8.8.4.4", "2600::5"]
    assert public_ipv4(Config(), own) == (IPv4Address("8.8.4.4"),)
    assert public_ipv6(Config(), own) == ()  # no door takes IPv6
    both = Config.model_validate({"ssh": {"listen": "::"}, "https": {"listen": "::"}})
    assert public_ipv6(both, own) == (IPv6Address("2600::5"),)


def test_an_address_of_nobody_is_no_way_to_the_lobby() -> None:
    assert of_address("fd00::1", None) == Target("", must_exist=True, address="fd00::1")
