"""A small DNS server for tests: answers over UDP from a table that the test changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


@dataclass
class Zone(asyncio.DatagramProtocol):
    """`records`: name -> type -> values, as zone files spell them; a name without any does not exist."""

    records: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    port: int = 0
    is_silent: bool = False
    asked: list[str] = field(default_factory=list)
    _transport: asyncio.DatagramTransport | None = None

    @property
    def address(self) -> str:
        """As settings name it."""
        return f"127.0.0.1:{self.port}"

    def put(self, name: str, kind: str, *values: str) -> None:
        """Replace the records of a name and type."""
        self.records.setdefault(name, {})[kind] = list(values)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer one question."""
        query = dns.message.from_wire(data)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append(f"{name} {kind}")
        if self.is_silent:
            return
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.AA | dns.flags.RA
        if name not in self.records:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif values := self.records[name].get(kind):
            answer.answer.append(dns.rrset.from_text(question.name, 1, "IN", kind, *values))
        assert self._transport is not None
        self._transport.sendto(answer.to_wire(), addr)


@asynccontextmanager
async def dns_server() -> AsyncIterator[Zone]:
    """Serve on a free port of 127.0.0.1 while the body runs."""
    zone = Zone()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: zone, local_addr=("127.0.0.1", 0))
    zone.port = transport.get_extra_info("sockname")[1]
    try:
        yield zone
    finally:
        transport.close()
