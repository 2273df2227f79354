"""Packet rules as nft text: what a VM may reach, and who may reach it. Pure.

Invariant: each text replaces one whole table of ours in one transaction and touches no other table,
so applying it twice, or after a crash, gives the same rules and there is never a moment without.

Two tables per VM path. The table in the VM's own namespace says "what leaves this tap is what the
VM was given": its MAC, its address, IPv4 and ARP only, a bounded number of connections. The root
table says where it may go: out, to DNS, to services for VMs and to the edge; never to another VM, to
anything else of the host, or to link-local addresses (the metadata service of the cloud this host may
itself run in).

VMs have no IPv6 yet: it is off inside the namespaces and dropped at the host's side.
"""

from __future__ import annotations

from dataclasses import dataclass

from atoll.engine.net.address import (
    FORKED_GROUP,
    GUEST,
    GUEST_DNS,
    GUEST_GATEWAY,
    GUEST_MAC,
    TAP,
    UPLINK,
    Layout,
)
from atoll.engine.net.services import HTTP_PORT, Services

# Link-local, loopback, multicast and reserved: nothing a VM needs, much it should not find.
FORBIDDEN = "127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/3"
INNER_TABLE = "vm"
DNS_TCP_PER_VM = 4  # dnsmasq forks for each and takes 20 at once, for all VMs together
SERVICES_PER_VM = 256  # open connections to what is below, of one VM
DNS_PACKETS_PER_SECOND = 200  # one VM's share of a resolver all VMs use


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Connection limits of one VM; a burst of twice the rate passes."""

    connections: int
    new_per_second: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Optional parts of nftables this kernel has; see PROBES."""

    ingress: bool = True
    count: bool = True
    rate: bool = True
    reverse_path: bool = True

    def problems(self) -> tuple[str, ...]:
        """What the missing ones cost, for the operator."""
        missing = {
            "ingress": "kernel lacks NFT ingress: ARP spoofing inside a VM's own link is possible",
            "count": "kernel lacks NFT_CONNLIMIT: one VM can fill the connection table",
            "rate": "kernel lacks NFT_LIMIT: the rate of new connections of a VM is not bounded",
            "reverse_path": "kernel lacks NFT_FIB: source checks rest on rp_filter alone",
        }
        return tuple(text for name, text in missing.items() if not getattr(self, name))


_PROBE = "table inet probe {{\n chain c {{\n type filter hook forward priority 0;\n {}\n }}\n}}\n"
PROBES: dict[str, str] = {
    "ingress": (
        'table netdev probe {\n chain c {\n type filter hook ingress device "lo" priority 0;\n'
        " arp saddr ether 02:00:00:00:00:01 drop\n }\n}\n"
    ),
    "count": _PROBE.format("ct count over 16 drop"),
    "rate": _PROBE.format("limit rate over 5/second burst 10 packets drop"),
    "reverse_path": (
        "table inet probe {\n chain c {\n type filter hook prerouting priority 0;\n"
        " fib saddr . iif oif missing drop\n }\n}\n"
    ),
}


def render_root(layout: Layout, limits: Limits, features: Features, services: Services) -> str:
    """The table of the host's own namespace, named after the instance."""
    ours = f'"{layout.veths}"'
    out = [
        *_replace(f"inet {layout.instance}"),
        f"table inet {layout.instance} {{",
        *(_per_vm_set("connections") if features.count else ()),
        *(_per_vm_set("dns_tcp") if features.count else ()),
        *(_per_vm_set("services") if features.count else ()),
        "\tchain sources {",
        "\t\ttype filter hook prerouting priority raw; policy accept;",
        f"\t\tiifname != {ours} accept",
        "\t\tmeta nfproto != ipv4 drop",
        "\t\tfib saddr type != unicast drop" if features.reverse_path else "",
        "\t\tfib saddr . iif oif missing drop" if features.reverse_path else "",
        "\t}",
        "\tchain input {",
        "\t\ttype filter hook input priority filter; policy accept;",
        f"\t\tiifname {ours} goto vm_to_host",
        f'\t\tiifname != "lo" ip daddr {layout.block} drop',
        "\t}",
        "\tchain vm_to_host {",
        "\t\tct state established,related accept",
        f"\t\tip daddr {layout.service} udp dport 53 accept",
        f"\t\tct state new tcp dport 53 add @dns_tcp {{ ip saddr ct count over {DNS_TCP_PER_VM} }}"
        " drop"
        if features.count
        else "",
        f"\t\tip daddr {layout.service} tcp dport 53 accept",
        f"\t\tct state new add @services {{ ip saddr ct count over {SERVICES_PER_VM} }} drop"
        if features.count
        else "",
        f"\t\tip daddr {layout.service} tcp dport {services.port} accept",
        f"\t\tip daddr {services.edge} tcp dport {services.edge_port} accept",
        "\t\tdrop",
        "\t}",
        "\tchain forward {",
        "\t\ttype filter hook forward priority filter; policy accept;",
        f"\t\tiifname {ours} goto vm_to_world",
        f"\t\toifname {ours} goto world_to_vm",
        "\t}",
        "\tchain vm_to_world {",
        f"\t\toifname {ours} drop",
        f"\t\tip daddr {{ {FORBIDDEN}, {layout.block} }} drop",
        "\t\tct state invalid drop",  # it would leave untranslated
        f"\t\tct state new add @connections {{ ip saddr ct count over {limits.connections} }} drop"
        if features.count
        else "",
        "\t\taccept",
        "\t}",
        "\tchain world_to_vm {",
        "\t\tct state established,related accept",
        "\t\tdrop",
        "\t}",
        "\tchain translate {",
        "\t\ttype nat hook postrouting priority srcnat; policy accept;",
        f"\t\toifname != {ours} ip saddr {layout.block} ip daddr != {layout.block} masquerade",
        "\t}",
        "}",
    ]
    return _text(out)


def remove_root(layout: Layout) -> str:
    """Takes the root table away; fine when it is not there."""
    return _text(_replace(f"inet {layout.instance}"))


def render_inner(layout: Layout, limits: Limits, features: Features, services: Services) -> str:
    """The table inside a VM's namespace: the same text for every slot."""
    new = f'iifname "{TAP}" ct state new'
    # The middle of a connection that began elsewhere: see `kernel.open_tap`.
    astray = "ct state new tcp flags & (fin | syn | rst | ack) != syn reject with tcp reset"
    burst = 2 * limits.new_per_second
    out = [
        *_replace(f"inet {INNER_TABLE}"),
        *(_ingress() if features.ingress else ()),
        f"table inet {INNER_TABLE} {{",
        "\tchain sources {",
        "\t\ttype filter hook prerouting priority raw; policy accept;",
        f'\t\tiifname "{TAP}" ether saddr != {GUEST_MAC} drop',
        f'\t\tiifname "{TAP}" ip saddr != {GUEST} drop',
        f'\t\tiifname "{TAP}" icmp type redirect drop',
        "\t\tmeta nfproto != ipv4 drop",
        "\t}",
        "\tchain to_vm {",
        "\t\ttype nat hook prerouting priority dstnat; policy accept;",
        f'\t\tiifname "{UPLINK}" dnat ip to {GUEST}',
        f'\t\tiifname "{TAP}" ip daddr {GUEST_DNS.ip} meta l4proto {{ tcp, udp }} th dport 53'
        f" dnat ip to {layout.service}",
        f'\t\tiifname "{TAP}" ip daddr {GUEST_DNS.ip} tcp dport {HTTP_PORT}'
        f" dnat ip to {layout.service}:{services.port}",
        f'\t\tiifname "{TAP}" ip daddr {GUEST_DNS.ip} tcp dport {services.seen_port}'
        f" dnat ip to {services.edge}:{services.edge_port}",
        "\t}",
        "\tchain from_vm {",
        "\t\ttype nat hook postrouting priority srcnat; policy accept;",
        f'\t\toifname "{UPLINK}" masquerade',
        "\t}",
        "\tchain input {",
        "\t\ttype filter hook input priority filter; policy drop;",
        "\t\tct state established,related accept",
        f'\t\tiifname "{TAP}" ip daddr {GUEST_GATEWAY.ip} icmp type echo-request accept',
        "\t}",
        "\tchain forward {",
        "\t\ttype filter hook forward priority filter; policy drop;",
        "\t\tct state invalid drop",
        f'\t\tiifname "{TAP}" iifgroup {FORKED_GROUP} {astray}',
        f'\t\toifname "{TAP}" oifgroup {FORKED_GROUP} {astray}',
        f"\t\t{new} limit rate over {limits.new_per_second}/second burst {burst} packets drop"
        if features.rate
        else "",
        f"\t\t{new} ct count over {limits.connections} drop" if features.count else "",
        f'\t\tiifname "{TAP}" ip daddr {layout.service} meta l4proto udp limit rate over'
        f" {DNS_PACKETS_PER_SECOND}/second burst {2 * DNS_PACKETS_PER_SECOND} packets drop"
        if features.rate
        else "",
        "\t\tct state established,related accept",
        f'\t\tiifname "{TAP}" oifname "{UPLINK}" ip daddr != {{ {FORBIDDEN} }} accept',
        f'\t\tiifname "{UPLINK}" oifname "{TAP}" ct status dnat accept',
        "\t}",
        "}",
    ]
    return _text(out)


def _ingress() -> tuple[str, ...]:
    """Before anything else looks at a frame: our MAC, our address, IPv4 or ARP."""
    table = f"netdev {INNER_TABLE}"
    return (
        *_replace(table),
        f"table {table} {{",
        "\tchain ingress {",
        f'\t\ttype filter hook ingress device "{TAP}" priority -500; policy drop;',
        f"\t\tether saddr {GUEST_MAC} ether type ip ip saddr {GUEST} accept",
        f"\t\tether saddr {GUEST_MAC} ether type arp arp saddr ether {GUEST_MAC}"
        f" arp saddr ip {{ 0.0.0.0, {GUEST} }} accept",
        "\t}",
        "}",
    )


def _per_vm_set(name: str) -> tuple[str, ...]:
    """A set that counts by outer address; the kernel drops elements whose connections ended."""
    return (
        f"\tset {name} {{",
        "\t\ttype ipv4_addr",
        "\t\tsize 131072",
        "\t\tflags dynamic",
        "\t}",
    )


def _replace(table: str) -> tuple[str, str]:
    """Declaring first makes the removal succeed when there is nothing to remove."""
    return f"table {table}", f"delete table {table}"


def _text(lines: list[str] | tuple[str, ...]) -> str:
    return "\n".join(line for line in lines if line) + "\n"
