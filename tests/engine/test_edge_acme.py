"""Certificates by proof on port 80, through the real edge: HAProxy answers, a real ACME server asks."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from atoll.base.aio import poll
from atoll.config import Acme
from atoll.domain.certificate import Proof, Wanted
from atoll.services.certificates.issuer import Issuer
from atoll.services.certificates.proofs import HttpProofs
from atoll.services.certificates.renewing import Names, Renewing
from atoll.services.certificates.shelf import Shelf
from framework.acme_server import acme_server
from framework.clients import listening
from framework.edge import Edge, running_edge
from framework.knot import knot, loopback

pytestmark = pytest.mark.timeout(120)
OWN, SHOP = "atoll.localhost", "shop.test"


@dataclass
class World:
    """An edge on port 80 of an address that the ACME server is led to."""

    edge: Edge
    address: str
    renewing: Renewing
    shelf: Shelf
    wanted: list[str]
    ahead_s: float = 0.0

    def now(self) -> float:
        """A clock that tests set."""
        return time.time() + self.ahead_s

    async def issuer_of(self, host: str) -> str:
        """Who signed what HAProxy shows for a name."""
        _, writer = await asyncio.open_connection(
            self.address, self.edge.port, ssl=_unchecked(), server_hostname=host
        )
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return x509.load_der_x509_certificate(der).issuer.rfc4514_string()


@asynccontextmanager
async def world(tmp_path: Path, *, leads_to: str = "") -> AsyncIterator[World]:
    address = loopback()
    async with (
        knot({"test": [f"shop A {leads_to or address}", f"moved A {address}"]}) as dns,
        acme_server(resolver=dns.address) as server,
        running_edge(listen=address, http_port=80) as edge,
    ):
        proofs = HttpProofs(changes=edge.cloud.changes)
        edge.proofs = lambda: proofs.answers
        issuer = Issuer(
            settings=Acme(directory=server.directory, agree=True, ca_file=str(server.ca_file)),
            key_path=tmp_path / "acme_account",
            provers={Proof.HTTP: proofs},
            every_s=0.1,
            patience_s=6.0,
        )
        made = World(edge, address, None, edge.shelf, [])  # type: ignore[arg-type]

        async def names() -> Names:
            asked = tuple(Wanted(hosts=(one,), proof=Proof.HTTP) for one in made.wanted)
            return Names(wanted=asked, kept=frozenset())

        made.renewing = Renewing(
            shelf=edge.shelf, issuer=issuer, names=names, changes=edge.cloud.changes, now=made.now,
            chance=lambda: 0.0,
        )  # fmt: skip
        yield made


async def serves(made: World, host: str, word: str) -> None:
    """Wait until HAProxy shows a certificate whose issuer has `word` in its name."""

    async def check() -> bool | None:
        return (word in await made.issuer_of(host)) or None

    await poll(check, seconds=15, what=f"a certificate of {word} for {host}")


async def test_got_shown_renewed_and_forgotten(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        assert "Atoll CA" in await made.issuer_of(SHOP)
        made.wanted.append(SHOP)
        pid = await made.edge.runtime.pid()
        await made.renewing.once()
        first = made.shelf.certificate(SHOP)
        assert first is not None, made.shelf.standing(SHOP)
        await serves(made, SHOP, "Caddy")
        assert "Atoll CA" in await made.issuer_of(f"web.{OWN}")
        assert await made.edge.runtime.pid() == pid  # no reload
        await made.renewing.once()
        assert made.shelf.certificate(SHOP) == first  # not due

        _, idle = await asyncio.open_connection(
            made.address, made.edge.port, ssl=_unchecked(), server_hostname=SHOP
        )
        made.ahead_s = (first.end - first.begin) * 0.7
        await made.renewing.once()
        second = made.shelf.certificate(SHOP)
        assert second is not None
        assert second.pem != first.pem
        assert not idle.is_closing()
        idle.close()

        await made.edge.kill_haproxy()
        await made.edge.start_haproxy()
        await listening(made.edge.port, made.address, seconds=30)
        await serves(made, SHOP, "Caddy")  # which it read
        made.wanted.clear()
        await made.renewing.once()
        await serves(made, SHOP, "Atoll CA")


def _unchecked() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def test_a_name_that_leads_elsewhere_fails_and_waits(tmp_path: Path) -> None:
    async with world(tmp_path, leads_to=loopback()) as made:
        made.wanted.append(SHOP)
        await made.renewing.once()
        standing = made.shelf.standing(SHOP)
        assert standing.failures == 1
        assert "does not believe that shop.test is ours" in standing.problem
        assert 55 < standing.next_attempt - made.now() <= 60
        await made.renewing.once()
        assert made.shelf.standing(SHOP) == standing  # not hammered
        assert "Atoll CA" in await made.issuer_of(SHOP)
        made.ahead_s = 61
        await made.renewing.once()
        assert made.shelf.standing(SHOP).failures == 2
