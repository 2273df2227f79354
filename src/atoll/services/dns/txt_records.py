"""TXT records set and removed by dynamic update (RFC 2136) with a TSIG key: proof of names by DNS.

Works with every server that takes such updates (Knot, BIND, PowerDNS). A record is there when the
server itself answers with it; what other servers of the zone know is up to their transfers.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
import dns.tsig
import dns.update

from atoll.base.aio import poll
from atoll.base.dns_server import Server
from atoll.base.errors import Denied, Invalid, Unavailable

SECONDS = 10.0
SHOWN_S = 30.0
TTL_S = 60
_LINE = re.compile(r"\s*([a-z0-9-]+):([a-z0-9._-]+):([A-Za-z0-9+/=]+)\s*", re.IGNORECASE)
_BLOCK = re.compile(
    r'key\s+"?([^"\s{]+)"?\s*\{\s*algorithm\s+"?([^";\s]+)"?\s*;\s*secret\s+"?([^";\s]+)"?\s*;',
    re.IGNORECASE,
)


class TxtRecords(Protocol):
    """Somewhere TXT records can be put for the world to see."""

    async def set(self, name: str, value: str) -> None:
        """Add one and return when it can be seen; others of that name stay."""
        ...

    async def remove(self, name: str, value: str) -> None:
        """Take one away; one that is not there is fine."""
        ...


def read_key(path: Path) -> dns.tsig.Key:
    """A TSIG key: `hmac-sha256:name:secret`, or the block that `tsig-keygen` prints.

    Raises Invalid, without the secret.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise Invalid(f"acme.dns_key_file {path}: {error.strerror}") from error
    if line := _LINE.fullmatch(text):
        algorithm, name, secret = line.groups()
    elif block := _BLOCK.search(text):
        name, algorithm, secret = block.groups()
    else:
        raise Invalid(
            f"acme.dns_key_file {path} holds no TSIG key", hint="Write: hmac-sha256:NAME:SECRET"
        )
    try:
        return dns.tsig.Key(name, secret, algorithm=algorithm.lower())
    except (ValueError, dns.exception.DNSException) as error:
        raise Invalid(f"acme.dns_key_file {path}: the key {name} is damaged") from error


class DynamicUpdate:
    """TxtRecords by RFC 2136 on one server."""

    def __init__(self, *, server: Server, key: dns.tsig.Key) -> None:
        self._server = server
        self._key = key

    async def set(self, name: str, value: str) -> None:
        """Add a record, then wait until the server answers with it.

        Raises Denied when the server refuses, Unavailable when it does not answer.
        """
        zone = await self._zone(name)
        update = dns.update.UpdateMessage(zone, keyring=self._key)
        update.add(dns.name.from_text(name), TTL_S, "TXT", _quoted(value))
        await self._send(update, f"{name} TXT")

        async def shown() -> bool | None:
            return (value in await self.values(name)) or None

        await poll(shown, seconds=SHOWN_S, what=f"{self._server} showing {name} TXT", every=0.2)

    async def remove(self, name: str, value: str) -> None:
        """Delete that very record."""
        zone = await self._zone(name)
        update = dns.update.UpdateMessage(zone, keyring=self._key)
        update.delete(dns.name.from_text(name), "TXT", _quoted(value))
        await self._send(update, f"{name} TXT")

    async def values(self, name: str) -> frozenset[str]:
        """The TXT records the server has at `name` now."""
        answer = await self._ask(dns.message.make_query(name, "TXT", flags=0))
        return frozenset(
            b"".join(record.strings).decode(errors="replace")
            for group in answer.answer
            if group.rdtype == dns.rdatatype.TXT
            for record in group
        )

    async def _zone(self, name: str) -> dns.name.Name:
        """The zone of the server that `name` is in: the SOA record says."""
        answer = await self._ask(dns.message.make_query(name, "SOA", flags=0))
        for group in (*answer.answer, *answer.authority):
            if group.rdtype == dns.rdatatype.SOA and answer.flags & dns.flags.AA:
                return group.name
        raise Denied(
            f"the DNS server {self._server} has no zone for {name}",
            hint="Set acme.dns_server to the primary server of the domain",
        )

    async def _send(self, update: dns.update.UpdateMessage, what: str) -> None:
        code = (await self._ask(update)).rcode()
        if code != dns.rcode.NOERROR:
            raise Denied(
                f"the DNS server {self._server} refused to update {what}: {dns.rcode.to_text(code)}",
                hint=f"Let the key {self._key.name} update TXT records of that zone",
            )

    async def _ask(self, message: dns.message.Message) -> dns.message.Message:
        address, port = self._server.address, self._server.port
        try:
            return await dns.asyncquery.tcp(message, address, timeout=SECONDS, port=port)
        except dns.tsig.PeerError as error:
            raise Denied(
                f"the DNS server {self._server} refuses the key {self._key.name}: {error}",
                hint="Compare acme.dns_key_file with the server's key",
            ) from error
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise Unavailable(
                f"the DNS server {self._server} does not answer: {type(error).__name__} {error}"[
                    :300
                ]
            ) from error


def _quoted(value: str) -> str:
    """As in a zone file. Proofs are base64url, so there is nothing to escape."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", value):
        raise Invalid(f"a TXT record cannot be {value[:40]!r}")
    return f'"{value}"'
