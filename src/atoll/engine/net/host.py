"""The host's own side of the VMs' network: service address, forwarding, and what may be in the way.

Invariant: reads other people's routes and rules, changes none of them.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from pathlib import Path

from atoll.base import proc
from atoll.base.aio import together
from atoll.base.errors import Conflict
from atoll.engine.net import kernel
from atoll.engine.net.address import Layout
from atoll.engine.net.rules import PROBES, Features

_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_AFFECTED = {"forward": "VMs reaching out", "input": "DNS of VMs"}


async def probe() -> Features:
    """Which optional parts of nftables this kernel has."""
    names = tuple(PROBES)
    known = await together(*(kernel.accepts(PROBES[name]) for name in names))
    return Features(**dict(zip(names, known, strict=True)))


def forward() -> None:
    """Let the host pass packets on. Writing the setting resets others, so only when it is off."""
    if _FORWARD.read_text().strip() != "1":
        _FORWARD.write_text("1")


async def add_service_link(layout: Layout) -> None:
    """An interface that only carries the service address; one that is there is kept."""
    link = layout.service_link
    if not (kernel.LINKS / link).exists():
        try:
            await kernel.ip(f"link add {link} type dummy")
        except proc.ToolFailed:  # small kernels lack it; a bridge without ports does the same
            await kernel.ip(f"link add {link} type bridge")
    await kernel.ip(
        f"link set {link} addrgenmode none",
        f"addr replace {layout.service}/32 dev {link}",
        f"link set {link} up",
    )


async def check_routes(layout: Layout) -> None:
    """Raises Conflict when somebody else's route inside the block would swallow the VMs there."""
    listed = await proc.run(["ip", "-4", "-j", "route"], seconds=kernel.TOOL_SECONDS)
    for route in json.loads(listed.out or b"[]"):
        link, target = str(route.get("dev", "")), str(route.get("dst", ""))
        if link == layout.service_link or layout.number_of_veth(link) is not None:
            continue
        if target != "default" and IPv4Network(target).subnet_of(layout.block):
            raise Conflict(
                f"network.block {layout.block} is in use: {target} is routed to {link or 'nowhere'}",
                hint="Try: another network.block in the configuration",
            )


async def foreign_firewalls(layout: Layout) -> tuple[str, ...]:
    """Chains of others that drop by default: not ours to change, but an operator should know."""
    listed = await proc.run(
        ["nft", "-j", "list", "chains"], seconds=kernel.TOOL_SECONDS, check=False
    )
    if listed.code != 0:
        return ()
    found = []
    for entry in json.loads(listed.out).get("nftables", ()):
        chain = entry.get("chain", {})
        effect = _AFFECTED.get(chain.get("hook"))
        if effect is None or chain.get("policy") != "drop" or chain["table"] == layout.instance:
            continue
        if chain.get("family") in ("ip", "inet"):
            name = f"{chain['family']} {chain['table']} {chain['name']}"
            found.append(
                f"firewall chain `{name}` drops by default and may stop {effect}:"
                f' allow interfaces "{layout.veths}" there'
            )
    return tuple(found)
