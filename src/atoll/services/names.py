"""The hosts and ports of this cloud, as it is configured."""

from __future__ import annotations

from atoll.config import Config
from atoll.domain.web import Names


def names_of(config: Config) -> Names:
    """What every URL of the cloud is made of."""
    https = config.https
    ports = range(https.vm_port_first, https.vm_port_last + 1) if https.vm_ports else None
    return Names(domain=https.domain, public_port=https.seen_port, vm_ports=ports)
