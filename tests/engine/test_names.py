"""The cloud's names with the real Knot: what it answers, refuses, and how it follows the store."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from ipaddress import IPv6Address
from pathlib import Path

import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode
import dns.tsig
import dns.update
import dns.zone
import pytest
import pytest_asyncio

from atoll.base.aio import TaskGroup
from atoll.config import Config
from atoll.doctor import names
from atoll.doctor.finding import Level
from atoll.doors.names.addresses import LOOPBACK
from atoll.doors.names.files import Files, update_key
from framework.name_server import DOMAIN, NameServer, name_server

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]
WEB = IPv6Address("fd5a:1:2:3::77")
PROOF = f"_acme-challenge.{DOMAIN}"


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="here")
async def _here() -> AsyncIterator[NameServer]:
    async with name_server(ipv6_prefix="fd5a:1:2:3::/64", caa=["letsencrypt.org"]) as server:
        yield server


def key(here: NameServer, secret: str | None = None) -> dns.tsig.Key:
    algorithm, name, real = update_key(here.config).read_text().strip().split(":")
    return dns.tsig.Key(name, secret or real, algorithm=algorithm)


async def test_every_name_resolves_alike(here: NameServer) -> None:
    for name in (DOMAIN, f"web.{DOMAIN}", f"8000-web.{DOMAIN}", f"no-such.{DOMAIN}"):
        assert await here.records(name, "A") == {"192.0.2.7"}
        assert await here.records(name, "AAAA") == {"2001:db8::7"}
        assert (await here.ask(name, "TXT")).rcode() == dns.rcode.NOERROR


async def test_the_zone_says_who_serves_it(here: NameServer) -> None:
    assert await here.records(DOMAIN, "NS") == {f"ns1.{DOMAIN}."}
    assert await here.records(f"ns1.{DOMAIN}", "A") == {"192.0.2.7"}
    assert len(await here.records(DOMAIN, "SOA")) == 1
    assert await here.records(DOMAIN, "CAA") == {
        '0 issue "letsencrypt.org"', '0 issuewild "letsencrypt.org"',
    }  # fmt: skip


async def test_other_zones_and_transfers_are_refused(here: NameServer) -> None:
    assert (await here.ask("example.org", "A")).rcode() == dns.rcode.REFUSED
    with pytest.raises(dns.exception.DNSException, match=r"REFUSED|NOTAUTH"):
        await dns.asyncquery.inbound_xfr(
            str(LOOPBACK), dns.zone.Zone(DOMAIN), port=here.config.dns.port
        )


async def test_a_vm_has_its_address_as_long_as_it_is_there(here: NameServer) -> None:
    here.vms["web"] = WEB
    here.changes.bump()
    await here.shows(f"web.{DOMAIN}", "AAAA", {str(WEB)})
    assert await here.records(f"web.{DOMAIN}", "A") == {"192.0.2.7"}
    del here.vms["web"]
    here.changes.bump()
    await here.shows(f"web.{DOMAIN}", "AAAA", {"2001:db8::7"})


async def test_the_key_may_set_proofs_and_nothing_else(here: NameServer) -> None:
    proof = dns.update.UpdateMessage(PROOF, keyring=key(here))
    proof.add(PROOF + ".", 1, "TXT", "abc")
    assert (await here.send(proof)).rcode() == dns.rcode.NOERROR
    assert await here.records(PROOF, "TXT") == {'"abc"'}
    for zone, name, kind, data in (
        (PROOF, PROOF, "A", "192.0.2.9"),
        (PROOF, f"x.{PROOF}", "TXT", "abc"),
        (DOMAIN, f"web.{DOMAIN}", "TXT", "abc"),
        (DOMAIN, PROOF, "TXT", "other"),
    ):
        other = dns.update.UpdateMessage(zone, keyring=key(here))
        other.add(name + ".", 1, kind, data)
        with pytest.raises(dns.tsig.PeerBadKey):  # how Knot says that this key may not
            await here.send(other)
        assert data not in str(await here.records(name, kind))


async def test_without_the_key_nothing_is_set(here: NameServer) -> None:
    bare = dns.update.UpdateMessage(PROOF)
    bare.add(PROOF + ".", 1, "TXT", "bare")
    assert (await here.send(bare)).rcode() in (dns.rcode.REFUSED, dns.rcode.NOTAUTH)
    forged = dns.update.UpdateMessage(PROOF, keyring=key(here, "AAAA" * 10))
    forged.add(PROOF + ".", 1, "TXT", "forged")
    with pytest.raises(dns.exception.DNSException):
        await here.send(forged)
    assert not {'"bare"', '"forged"'} & await here.records(PROOF, "TXT")


async def test_a_killed_server_comes_back_with_the_newest_zone(here: NameServer) -> None:
    await here.kill()
    here.vms["late"] = WEB
    here.changes.bump()
    await here.start()
    await here.shows(f"late.{DOMAIN}", "AAAA", {str(WEB)})


async def test_a_new_control_leaves_a_right_zone_alone(here: NameServer) -> None:
    before = await here.records(DOMAIN, "SOA")
    sync = here.new_sync()
    async with TaskGroup() as group:
        job = group.create_task(sync.run())
        await here.shows(DOMAIN, "SOA", before)
        job.cancel()


async def test_knot_has_no_privilege_and_control_its_socket(here: NameServer) -> None:
    assert here.knot is not None
    status = Path(f"/proc/{here.knot.pid}/status").read_text()
    assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    socket = Files(here.config.dns_run).socket
    assert socket.stat().st_mode & 0o020
    assert socket.stat().st_gid == socket.parent.stat().st_gid


async def test_the_doctor_asks_the_server_and_the_world(here: NameServer) -> None:
    world = [f"{LOOPBACK}:{here.config.dns.port}"]
    found = await names.examine(here.config, resolvers=world)
    assert {one.level for one in found if one.what != "VM addresses"} == {Level.OK}, found
    other = Config.model_validate(
        {**here.config.model_dump(), "dns": {**here.config.dns.model_dump(), "port": 1}}
    )
    levels = {one.what: one.level for one in await names.examine(other, resolvers=world)}
    assert levels["DNS server"] is Level.MISSING
