"""Questions to DNS servers, by dnspython. Every question has a deadline."""

from __future__ import annotations

import dns.asyncquery
import dns.asyncresolver
import dns.exception
import dns.message
import dns.rdatatype
import dns.rdtypes.ANY.SOA
import dns.resolver

from atoll.base.errors import Unavailable


async def serial(zone: str, *, address: str, port: int, seconds: float) -> int | None:
    """The serial of the zone that a server answers with; None when it has no such zone.

    Raises Unavailable when nobody answers.
    """
    question = dns.message.make_query(zone, "SOA", flags=0)
    try:
        answer = await dns.asyncquery.udp(question, address, port=port, timeout=seconds)
    except (dns.exception.DNSException, OSError, EOFError) as error:
        raise Unavailable(
            f"no DNS server answers at {address} port {port}: {type(error).__name__}"
        ) from error
    for group in answer.answer:
        for record in group:
            if isinstance(record, dns.rdtypes.ANY.SOA.SOA):
                return int(record.serial)
    return None


async def name_servers(
    zone: str, *, seconds: float, server: tuple[str, int] | None = None
) -> frozenset[str]:
    """The names of a zone's NS records as the world sees them; none when there is no such zone.

    `server` is asked in place of the system's resolvers. Raises Unavailable without an answer.
    """
    resolver = dns.asyncresolver.Resolver(configure=server is None)
    if server is not None:
        resolver.nameservers, resolver.port = [server[0]], server[1]
    try:
        answer = await resolver.resolve(zone + ".", "NS", lifetime=seconds)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return frozenset()
    except (dns.exception.DNSException, OSError, EOFError) as error:
        raise Unavailable(f"cannot ask for NS of {zone}: {type(error).__name__}") from error
    return frozenset(record.target.to_text(omit_final_dot=True).lower() for record in answer)
