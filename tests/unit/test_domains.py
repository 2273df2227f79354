"""Names of their own for VMs: the verbs, the checks by DNS, whose they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.base.errors import Conflict, Invalid, NotFound
from atoll.config import Acme, Config, Domains
from atoll.services.dns.lookup import Lookup
from atoll.services.domains import FIRST_S, GOOD_S, LONGEST_S, OUTAGE_S
from fakes.engine import FakeEngine
from framework.cloud import Control, control
from framework.dns_server import Zone, dns_server

SHOP = "shop.example.com"
OURS = "192.0.2.1"


@pytest.fixture
async def zone() -> AsyncIterator[Zone]:
    async with dns_server() as made:
        made.put("atoll.localhost", "A", OURS)
        yield made


@pytest.fixture
async def cloud(tmp_path: Path, zone: Zone) -> AsyncIterator[Control]:
    config = Config(domains=Domains(resolvers=(zone.address,)))
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving():
        async with control(tmp_path / "control", engine, loops=True, config=config) as made:
            await made.run("new --name web")
            yield made


async def served(cloud: Control) -> dict[str, str]:
    return await cloud.cloud.domains.served()


async def test_a_name_that_dns_leads_here_is_served(cloud: Control, zone: Zone) -> None:
    zone.put(SHOP, "CNAME", "web.atoll.localhost.")
    reply = await cloud.run("domain add web Shop.Example.com.")
    assert reply.data["domain"] == SHOP
    assert "error" not in reply.data
    assert reply.data["certificate"].startswith("none: acme.directory is not set")
    assert await served(cloud) == {SHOP: "web"}
    (entry,) = (await cloud.data("domain ls"))["domains"]
    assert (entry["status"], entry["vm_name"]) == ("active", "web")
    assert entry["url"] == f"https://{SHOP}:8443/"


async def test_an_address_of_ours_does_as_well(cloud: Control, zone: Zone) -> None:
    zone.put(SHOP, "A", OURS)
    assert "error" not in await cloud.data(f"domain add web {SHOP}")


async def test_a_chain_of_names_is_followed(cloud: Control, zone: Zone) -> None:
    zone.put(SHOP, "CNAME", "a.example.com.")
    zone.put("a.example.com", "CNAME", "Web.Atoll.localhost.")
    assert "error" not in await cloud.data(f"domain add web {SHOP}")


async def test_a_loop_of_names_ends(cloud: Control, zone: Zone) -> None:
    zone.put(SHOP, "CNAME", "a.example.com.")
    zone.put("a.example.com", "CNAME", f"{SHOP}.")
    assert "is a CNAME to" in (await cloud.data(f"domain add web {SHOP}"))["error"]


async def test_a_dns_problem_is_no_failure_and_is_looked_at_again(
    cloud: Control, zone: Zone
) -> None:
    reply = await cloud.run(f"domain add web {SHOP}")
    assert reply.exit == 0
    assert reply.data["error"] == f"DNS has no {SHOP}"
    assert reply.data["expected"].startswith(f"{SHOP} CNAME web.atoll.localhost")
    assert await served(cloud) == {}
    zone.put(SHOP, "A", OURS)
    version = cloud.cloud.changes.version
    await cloud.cloud.domains.recheck()
    assert await served(cloud) == {}  # not time yet
    cloud.clock.time += 2 * FIRST_S
    await cloud.cloud.domains.recheck()
    assert await served(cloud) == {SHOP: "web"}
    assert cloud.cloud.changes.version > version


async def test_what_is_wrong_is_asked_less_and_less_often(cloud: Control) -> None:
    await cloud.run(f"domain add web {SHOP}")
    waits = []
    for _ in range(9):
        (one,) = await cloud.cloud.domains.of(cloud.ann, "web")
        waits.append(one.row.next_check_at - one.row.checked_at)
        cloud.clock.time = one.row.next_check_at
        await cloud.cloud.domains.recheck()
    assert waits[:3] == [2 * FIRST_S, 4 * FIRST_S, 8 * FIRST_S]
    assert waits[-1] == LONGEST_S


async def test_one_that_leads_elsewhere_later_signs_nobody_in(cloud: Control, zone: Zone) -> None:
    """Whoever has it then would get the sign-in codes of the VM's visitors. It stays, and says so."""
    zone.put(SHOP, "A", OURS)
    await cloud.run(f"domain add web {SHOP}")
    zone.put(SHOP, "A", "198.51.100.1")
    cloud.clock.time += GOOD_S
    await cloud.cloud.domains.recheck()
    (entry,) = (await cloud.data("domain ls web"))["domains"]
    assert entry["error"] == f"{SHOP} leads to 198.51.100.1"
    assert await served(cloud) == {}
    names = await cloud.cloud.domains.certifiable()
    assert SHOP not in names.custom


async def test_an_outage_of_dns_is_borne_for_a_day(cloud: Control, zone: Zone) -> None:
    zone.put(SHOP, "A", OURS)
    await cloud.run(f"domain add web {SHOP}")
    zone.is_silent = True
    cloud.cloud.domains._lookup = Lookup((zone.address,), seconds=0.1)
    cloud.clock.time += GOOD_S
    await cloud.cloud.domains.recheck()
    assert await served(cloud) == {SHOP: "web"}
    cloud.clock.time += OUTAGE_S
    await cloud.cloud.domains.recheck()
    assert await served(cloud) == {}


async def test_it_does_not_go_along_when_the_vm_changes_hands(cloud: Control, zone: Zone) -> None:
    zone.put(SHOP, "A", OURS)
    await cloud.run(f"domain add web {SHOP}")
    await cloud.run("transfer web bob@example.com")  # an admin may
    assert await served(cloud) == {}
    assert (await cloud.data("domain ls", cloud.bob))["domains"] == []


async def test_a_name_that_leads_to_somebody_elses_vm_is_not_theirs(
    cloud: Control, zone: Zone
) -> None:
    zone.put(SHOP, "CNAME", "web.atoll.localhost.")
    await cloud.run("new --name evil", cloud.bob)
    said = await cloud.data(f"domain add evil {SHOP}", cloud.bob)
    assert said["error"] == f"{SHOP} is a CNAME to web.atoll.localhost"
    assert await served(cloud) == {}
    await cloud.run(f"domain add web {SHOP}")
    assert await served(cloud) == {SHOP: "web"}


async def test_a_silent_dns_is_a_problem_not_a_failure(cloud: Control, zone: Zone) -> None:
    zone.is_silent = True
    cloud.cloud.domains._lookup = Lookup((zone.address,), seconds=0.2)
    reply = await cloud.run(f"domain add web {SHOP}")
    assert reply.data["error"].startswith(f"DNS does not answer for {SHOP}")


async def test_it_belongs_to_one_vm(cloud: Control, zone: Zone) -> None:
    zone.put(SHOP, "A", OURS)
    await cloud.run(f"domain add web {SHOP}")
    await cloud.run("new --name shop")
    with pytest.raises(Conflict, match='registered for VM "web"') as caught:
        await cloud.run(f"domain add shop {SHOP}")
    assert caught.value.hint == f"Try: domain rm web {SHOP}"
    await cloud.run("new --name bobs", cloud.bob)
    with pytest.raises(Conflict, match="another VM"):
        await cloud.run(f"domain add bobs {SHOP}", cloud.bob)


async def test_one_that_was_never_proven_keeps_nobody_out(cloud: Control, zone: Zone) -> None:
    await cloud.run("new --name bobs", cloud.bob)
    await cloud.run(f"domain add bobs {SHOP}", cloud.bob)
    with pytest.raises(Conflict):
        await cloud.run(f"domain add web {SHOP}")
    zone.put(SHOP, "CNAME", "web.atoll.localhost.")
    await cloud.run(f"domain add web {SHOP}")
    assert await served(cloud) == {SHOP: "web"}
    assert (await cloud.data("domain ls", cloud.bob))["domains"] == []


async def test_others_cannot_see_or_remove_it(cloud: Control, zone: Zone) -> None:
    await cloud.run(f"domain add web {SHOP}")
    for line in ("domain ls web", f"domain rm web {SHOP}", f"domain add web x.{SHOP}"):
        with pytest.raises(NotFound):
            await cloud.run(line, cloud.bob)


async def test_rm(cloud: Control, zone: Zone) -> None:
    zone.put(SHOP, "A", OURS)
    await cloud.run(f"domain add web {SHOP}")
    assert (await cloud.data(f"domain rm web {SHOP}"))["status"] == "removed"
    assert await served(cloud) == {}
    with pytest.raises(NotFound):
        await cloud.run(f"domain rm web {SHOP}")


async def test_it_follows_a_rename_the_trash_and_undo(cloud: Control, zone: Zone) -> None:
    zone.put(SHOP, "A", OURS)
    await cloud.run(f"domain add web {SHOP}")
    await cloud.run("rename web shop")
    assert await served(cloud) == {SHOP: "shop"}
    await cloud.run("rm shop")
    assert await served(cloud) == {}
    assert SHOP in (await cloud.cloud.domains.certifiable()).kept
    await cloud.run("undo")
    assert await served(cloud) == {SHOP: "shop"}


async def test_adding_it_again_looks_again(cloud: Control, zone: Zone) -> None:
    await cloud.run(f"domain add web {SHOP}")
    zone.put(SHOP, "A", OURS)
    assert "error" not in await cloud.data(f"domain add web {SHOP}")


async def test_own_names_and_wildcards_are_refused(cloud: Control) -> None:
    for line, said in (
        ("domain add web x.atoll.localhost", "a name of this cloud"),
        ("domain add web *.example.com", "wildcard"),
        ("domain add web example.com --wildcard", "wildcards"),
        ("domain ls web --all", "either"),
    ):
        with pytest.raises(Invalid, match=said):
            await cloud.run(line)


async def test_dry_run(cloud: Control, zone: Zone) -> None:
    zone.put(SHOP, "A", OURS)
    reply = await cloud.run(f"domain add web {SHOP} --dry-run")
    assert reply.text == f"would let {SHOP} lead to web"
    assert await served(cloud) == {}
    await cloud.run(f"domain add web {SHOP}")
    reply = await cloud.run(f"domain rm web {SHOP} --dry-run")
    assert reply.text == f"would let {SHOP} lead to web no more"


async def test_with_an_acme_server_it_is_asked_for(tmp_path: Path, zone: Zone) -> None:
    config = Config(
        domains=Domains(resolvers=(zone.address,)),
        acme=Acme(directory="https://acme.example.net/"),
        paths={"state": tmp_path},
    )
    zone.put(SHOP, "A", OURS)
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving():
        async with control(tmp_path / "control", engine, loops=True, config=config) as cloud:
            await cloud.run("new --name web")
            reply = await cloud.run(f"domain add web {SHOP}")
            assert reply.data["certificate"] == "none yet: it is being asked for"
