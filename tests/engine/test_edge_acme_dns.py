"""Certificates by proof in DNS: a real Knot takes the updates, a real ACME server believes them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import dns.update as dns_update
import pytest

from atoll.base.dns_server import Server
from atoll.base.errors import Denied, Unavailable
from atoll.config import Acme
from atoll.domain.certificate import Proof, Wanted
from atoll.services.certificates import shelf
from atoll.services.certificates.issuer import Issuer
from atoll.services.certificates.proofs import DnsProofs
from atoll.services.certificates.refusal import Refused
from atoll.services.dns.lookup import Lookup
from atoll.services.dns.txt_records import DynamicUpdate, read_key
from framework.acme_server import acme_server
from framework.knot import Knot, knot, loopback

pytestmark = pytest.mark.timeout(120)
DOMAIN = "cloud.test"
NAME = f"_acme-challenge.{DOMAIN}"


@pytest.fixture(name="dns")
async def _dns() -> AsyncIterator[Knot]:
    async with knot({"test": ["cloud A 127.0.0.1"]}) as server:
        yield server


def records(dns: Knot) -> DynamicUpdate:
    return DynamicUpdate(server=dns.server, key=read_key(dns.key_file))


async def test_records_come_and_go_one_by_one(dns: Knot) -> None:
    ours = records(dns)
    await ours.set(NAME, "one")
    await ours.set(NAME, "two")
    await ours.set(NAME, "two")  # a repetition after a crash
    assert sorted((await dns.txt(NAME)).split()) == ['"one"', '"two"']
    await ours.remove(NAME, "one")
    assert (await dns.txt(NAME)).split() == ['"two"']
    await ours.remove(NAME, "two")
    await ours.remove(NAME, "two")
    assert await dns.txt(NAME) == ""


async def test_a_strange_zone_a_wrong_key_and_a_silent_server_are_told_apart(
    dns: Knot, tmp_path: Path
) -> None:
    with pytest.raises(Denied, match=r"has no zone for _acme-challenge\.example\.com"):
        await records(dns).set("_acme-challenge.example.com", "x")
    other = tmp_path / "key"
    other.write_text("hmac-sha256:atoll:QUFBQQ==\n")
    with pytest.raises(Denied, match=r"refuse"):
        await DynamicUpdate(server=dns.server, key=read_key(other)).set(NAME, "x")
    update = dns_update.UpdateMessage("test", keyring=read_key(dns.key_file))
    update.add("x", 1, "A", "192.0.2.1")
    with pytest.raises(Denied, match=r"refuse"):  # the server lets the key update TXT records alone
        await records(dns)._send(update, "x A")
    nobody = DynamicUpdate(server=Server(loopback()), key=read_key(dns.key_file))
    with pytest.raises(Unavailable, match="does not answer"):
        await nobody.set(NAME, "x")


async def test_lookup_asks_a_real_server(dns: Knot) -> None:
    lookup = Lookup((dns.address,))
    assert (await lookup.find(DOMAIN)).addresses == {"127.0.0.1"}
    assert (await lookup.find("nowhere.test")).addresses == frozenset()


async def test_a_wildcard(dns: Knot, tmp_path: Path) -> None:
    async with acme_server(resolver=dns.address) as server:
        issuer = Issuer(
            settings=Acme(
                directory=server.directory, agree=True, email="ann@example.com",
                ca_file=str(server.ca_file),
            ),
            key_path=tmp_path / "acme_account",
            provers={Proof.DNS: DnsProofs(records(dns))},
            every_s=0.1, patience_s=4.0,
        )  # fmt: skip
        wanted = Wanted(hosts=(DOMAIN, f"*.{DOMAIN}"), proof=Proof.DNS)
        kept = shelf.read(await issuer.issue(wanted))
        assert set(kept.hosts) == set(wanted.hosts)
        assert kept.pem.count(b"BEGIN CERTIFICATE") == 2  # with what signed it
        assert await dns.txt(NAME) == ""
        assert (tmp_path / "acme_account").stat().st_mode & 0o777 == 0o600
        assert await issuer.renewal(kept.pem) is None  # this server suggests nothing
        other = Wanted(hosts=("elsewhere.example",), proof=Proof.DNS)
        with pytest.raises(Denied, match="no zone"):
            await issuer.issue(other)


async def test_a_proof_that_is_not_there_is_not_believed(dns: Knot, tmp_path: Path) -> None:
    class Forgetful(DnsProofs):
        async def show(self, host: str, where: str, value: str) -> None:
            await super().show(host, where, value[::-1])

    async with acme_server(resolver=dns.address) as server:
        issuer = Issuer(
            settings=Acme(directory=server.directory, agree=True, ca_file=str(server.ca_file)),
            key_path=tmp_path / "acme_account",
            provers={Proof.DNS: Forgetful(records(dns))},
            every_s=0.1,
            patience_s=4.0,
        )
        with pytest.raises(Refused, match="does not believe") as caught:
            await issuer.issue(Wanted(hosts=(DOMAIN,), proof=Proof.DNS))
        assert not caught.value.is_limit
