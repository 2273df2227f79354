"""The names of the cloud: does our server answer, and does the world ask it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from atoll.base.dns_server import Server
from atoll.base.errors import AtollError
from atoll.config import Config
from atoll.doctor.finding import Finding, degraded, missing, ok
from atoll.doors.names.addresses import LOOPBACK
from atoll.doors.names.zone import servers
from atoll.services.dns.lookup import Lookup, serial

ASK_S = 5.0
_NO_IPV6 = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")


async def examine(config: Config, *, resolvers: Sequence[str] = ()) -> list[Finding]:
    """Nothing where no DNS is asked for. `resolvers` are asked in place of the system's."""
    if not config.dns.enabled:
        return []
    findings = [await _server(config), await _delegation(config, Lookup(resolvers, seconds=ASK_S))]
    return [*findings, *_addresses(config)]


async def _server(config: Config) -> Finding:
    domain, knot = config.https.domain, Server(str(LOOPBACK), config.dns.port)
    try:
        found = await serial(domain, at=knot, seconds=ASK_S)
    except AtollError as error:
        return missing("DNS server", error.message, "atoll status")
    if found is None:
        return missing("DNS server", f"answers, but not for {domain}", "atoll status")
    return ok("DNS server", f"{domain}, serial {found}")


async def _delegation(config: Config, lookup: Lookup) -> Finding:
    domain = config.https.domain
    ours = frozenset(servers(domain, config.dns.name_servers))
    wanted = f"at the registrar of {domain}: NS {', '.join(sorted(ours))} (docs/names.md)"
    try:
        found = await lookup.name_servers(domain)
    except AtollError as error:
        return degraded("DNS delegation", error.message, f"kdig NS {domain}")
    if found == ours:
        return ok("DNS delegation", ", ".join(sorted(found)))
    shown = ", ".join(sorted(found)) or "nobody"
    return degraded("DNS delegation", f"{domain} is asked of {shown}", wanted)


def _addresses(config: Config) -> list[Finding]:
    network = config.dns.vm_network
    if network is None:
        return []
    if not _NO_IPV6.exists() or _NO_IPV6.read_text().strip() == "1":
        return [missing("VM addresses", "IPv6 is off", "sysctl net.ipv6.conf.all.disable_ipv6=0")]
    deaf = [
        name
        for name, listen in (("ssh", config.ssh.listen), ("https", config.https.listen))
        if ":" not in listen
    ]
    if deaf:
        keys = " and ".join(f"{name}.listen" for name in deaf)
        return [degraded("VM addresses", f"{keys} takes no IPv6", f'set {keys} to "::"')]
    return [ok("VM addresses", str(network))]
