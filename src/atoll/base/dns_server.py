"""Addresses of DNS servers as settings spell them: `127.0.0.1`, `127.0.0.1:5353`, `[::1]:53`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from atoll.base.errors import Invalid

PORT = 53


@dataclass(frozen=True, slots=True)
class Server:
    """One server."""

    address: str
    port: int = PORT

    def __str__(self) -> str:
        return f"{self.address} port {self.port}"


def server(text: str) -> Server:
    """Read a setting. Raises Invalid for anything but an IP address with or without a port."""
    match = re.fullmatch(r"\[([0-9a-fA-F:.]+)\](?::([0-9]{1,5}))?|([0-9.]+):([0-9]{1,5})", text)
    address, port = (match[1] or match[3], match[2] or match[4]) if match else (text, None)
    number = int(port or PORT)
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        known = None
    if known is None or not 1 <= number <= 65535:
        raise Invalid(
            f"{text[:80]!r} is not the address of a DNS server",
            hint="Try: 192.0.2.53 or [::1]:5353",
        )
    return Server(str(known), number)
