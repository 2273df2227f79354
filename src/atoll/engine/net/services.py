"""What of this machine a VM may reach besides DNS: services for VMs, and the edge. Pure.

Inside, both are at the DNS address, which every VM has: `http://<name>.int/` on port 80, and the cloud's
own names on the port that users see. The slot translates to the service address and masquerades, so
that the peer's address says which VM asks and nothing that the VM sends can.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from atoll.config import Config
from atoll.domain.web import METADATA_HOST
from atoll.engine.net.address import GUEST_DNS

HTTP_PORT = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Where they listen on this machine."""

    port: int  # of control, at the service address
    edge: IPv4Address
    edge_port: int
    seen_port: int  # of the edge, in URLs
    domain: str

    @classmethod
    def of(cls, config: Config) -> Services:
        """As configured."""
        https = config.https
        return cls(
            port=config.control.services_port,
            edge=https.address_of_its_own or config.network.service,
            edge_port=https.port,
            seen_port=https.seen_port,
            domain=https.domain,
        )

    def records(self) -> tuple[str, ...]:
        """dnsmasq's arguments for the names."""
        at = GUEST_DNS.ip
        return (f"--host-record={METADATA_HOST},{at}", f"--address=/{self.domain}/{at}")
