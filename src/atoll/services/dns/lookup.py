"""Where a domain leads and who serves it, by the system's resolvers or by those of a setting."""

from __future__ import annotations

from collections.abc import Sequence

import dns.asyncquery
import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.rdtypes.ANY.SOA
import dns.resolver

from atoll.base.dns_server import Server, server
from atoll.base.errors import Unavailable
from atoll.domain.custom_domain import Found

SECONDS = 6.0
MOST_ALIASES = 8
_ADDRESSES = ("A", "AAAA")


class Lookup:
    """Asks. `resolvers` empty: those of /etc/resolv.conf."""

    def __init__(self, resolvers: Sequence[str] = (), *, seconds: float = SECONDS) -> None:
        self._servers = [server(text) for text in resolvers]
        self._seconds = seconds

    async def find(self, domain: str) -> Found:
        """The CNAMEs from `domain` on, and the addresses at their end; nothing for a name that is not.

        Raises Unavailable when no resolver answers.
        """
        aliases: list[str] = []
        name = domain
        while len(aliases) < MOST_ALIASES and (answers := await self._ask(name, "CNAME")):
            name = answers[0]
            aliases.append(name)
        addresses = [one for kind in _ADDRESSES for one in await self._ask(name, kind)]
        return Found(tuple(aliases), frozenset(addresses))

    async def name_servers(self, zone: str) -> frozenset[str]:
        """The names of a zone's NS records; none when there is no such zone.

        Raises Unavailable when no resolver answers.
        """
        return frozenset(await self._ask(zone, "NS"))

    async def _ask(self, name: str, kind: str) -> list[str]:
        try:
            answer = await self._resolver().resolve(
                name, kind, raise_on_no_answer=False, search=False
            )
        except (dns.resolver.NXDOMAIN, dns.resolver.YXDOMAIN):
            return []
        except (dns.exception.DNSException, OSError, UnicodeError) as error:
            said = str(error).split("\n", 1)[0][:200]
            raise Unavailable(f"DNS does not answer for {name}: {said}") from error
        if answer.rrset is None:
            return []
        kind_wanted = dns.rdatatype.from_text(kind)
        return [_text(one) for one in answer.rrset if one.rdtype == kind_wanted]

    def _resolver(self) -> dns.asyncresolver.Resolver:
        """Made anew for each question: /etc/resolv.conf may have changed, and nothing is cached."""
        try:
            resolver = dns.asyncresolver.Resolver(configure=not self._servers)
        except dns.resolver.NoResolverConfiguration as error:
            raise Unavailable(f"no DNS resolver is set: {error}") from error
        if self._servers:
            resolver.nameservers = [
                dns.nameserver.Do53Nameserver(one.address, one.port) for one in self._servers
            ]
        resolver.lifetime = self._seconds
        return resolver


async def serial(zone: str, *, at: Server, seconds: float) -> int | None:
    """The serial of the zone that this one server answers with; None when it has no such zone.

    Raises Unavailable when it does not answer.
    """
    question = dns.message.make_query(zone, "SOA", flags=0)
    try:
        answer = await dns.asyncquery.udp(question, at.address, port=at.port, timeout=seconds)
    except (dns.exception.DNSException, OSError, EOFError) as error:
        raise Unavailable(f"no DNS server answers at {at}: {type(error).__name__}") from error
    for group in answer.answer:
        for record in group:
            if isinstance(record, dns.rdtypes.ANY.SOA.SOA):
                return int(record.serial)
    return None


def _text(record: object) -> str:
    """An address, or a name in lower case without the root's dot."""
    target = getattr(record, "target", None)
    if isinstance(target, dns.name.Name):
        return target.canonicalize().to_text(omit_final_dot=True)
    return str(record)
