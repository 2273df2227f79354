"""A VM gets another owner: who may, what goes with it, what ends, and what fails."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from atoll.base.errors import AtollError, Exhausted, Invalid, NotFound, Unavailable
from atoll.config import Config, Vms
from atoll.domain.account import Caller
from atoll.rpc.messages import Identify
from atoll.store.accounts import SshKey
from fakes.engine import FakeEngine
from framework.cloud import BOB, Control, control

CI_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHmJGHFXyGmpRGkQ4Lf3vUQnZ1a3kPv1rm0t8xrJmSDD ci"


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[FakeEngine]:
    made = FakeEngine(tmp_path / "engine.sock")
    async with made.serving():
        yield made


@pytest.fixture
async def cloud(tmp_path: Path, engine: FakeEngine) -> AsyncIterator[Control]:
    async with control(tmp_path / "control", engine) as made:
        yield made


async def crew(cloud: Control, owner: Caller, *members: Caller) -> None:
    """A team of these."""
    await cloud.run("team new crew", owner)
    for member in members:
        await cloud.run(f"team add {member.account.email} --team crew", owner)
        await cloud.run("team join crew", member)


async def names(cloud: Control, who: Caller) -> list[str]:
    """What `ls` shows somebody."""
    return [vm["vm_name"] for vm in (await cloud.data("ls", who))["vms"]]


async def test_a_vm_goes_with_its_name_tags_and_content(cloud: Control, engine: FakeEngine) -> None:
    cat = await cloud.somebody("cat")
    await crew(cloud, cloud.bob, cat)
    await cloud.run("new --name web --tag prod --comment shop", cloud.bob)
    await cloud.run("share set-public web", cloud.bob)
    version = cloud.cloud.changes.version
    reply = await cloud.run("transfer web Cat@example.com", cloud.bob)
    assert reply.text == "web is cat@example.com's now"
    assert reply.data == {"status": "transferred", "vm_name": "web", "owner": "cat@example.com"}
    assert cloud.cloud.changes.version > version, "who holds connections open is told"
    assert await names(cloud, cloud.bob) == []
    (vm,) = (await cloud.data("ls -l", cat))["vms"]
    assert (vm["vm_name"], vm["tags"], vm["comment"]) == ("web", ["prod"], "shop")
    assert vm["share"] == "private"
    (identity,) = engine.identities.values()
    assert BOB not in "".join(identity.authorized_keys)
    assert len(identity.authorized_keys) == 1
    await cloud.fails("transfer web bob@example.com", NotFound, cloud.bob)
    await cloud.run("transfer web bob@example.com", cat)
    assert await names(cloud, cloud.bob) == ["web"]


async def test_only_somebody_of_a_common_team_gets_one(cloud: Control) -> None:
    cat = await cloud.somebody("cat")
    await cloud.run("new --name web", cloud.bob)
    unknown = await cloud.fails("transfer web dan@example.com", NotFound, cloud.bob)
    known = await cloud.fails("transfer web cat@example.com", NotFound, cloud.bob)
    assert unknown.replace("dan", "…") == known.replace("cat", "…"), (
        "who has an account is not told"
    )
    await cloud.run("team new crew", cloud.bob)
    await cloud.run("team add cat@example.com", cloud.bob)
    await cloud.fails("transfer web cat@example.com", NotFound, cloud.bob)  # not in it yet
    await cloud.run("team join", cat)
    assert "that is you" in await cloud.fails("transfer web bob@example.com", Invalid, cloud.bob)
    await cloud.fails("transfer web nonsense", Invalid, cloud.bob)
    await cloud.fails("transfer web ann@example.com", NotFound, cloud.bob)
    await cloud.run("new --name db")  # the machine's admin needs no team, for what is theirs
    await cloud.run("transfer db cat@example.com")
    await cloud.fails("transfer web cat@example.com", NotFound, cloud.ann)
    assert await names(cloud, cat) == ["db"]


async def test_keys_and_tokens_made_for_it_end_and_others_do_not(cloud: Control) -> None:
    ended: list[str] = []

    def key_ended(key: SshKey) -> None:
        ended.append(key.name)

    cloud.cloud.accounts.when_key_ends(key_ended)
    cloud.cloud.tokens.when_token_ends(ended.append)
    for line in (
        "new --name web --tag prod",
        f"ssh-key add --vm web --name ci {shlex.quote(CI_KEY)}",
        "ssh-key generate-api-key --vm web --label one",
        "ssh-key generate-api-key --tag prod --label tagged",
    ):
        await cloud.run(line)
    tokens = (await cloud.data("ssh-key list"))["api_keys"]
    (one,) = [token["fingerprint"] for token in tokens if token["label"] == "one"]
    await cloud.run("transfer web bob@example.com")
    listed = await cloud.data("ssh-key list")
    assert [key["name"] for key in listed["ssh_keys"]] == ["laptop"]
    assert [token["label"] for token in listed["api_keys"]] == ["tagged"]
    assert sorted(ended) == sorted(["ci", one])
    assert await cloud.cloud.caller_for_key(CI_KEY, source="x") is None


async def test_a_vm_that_is_off_is_told_when_it_starts(cloud: Control, engine: FakeEngine) -> None:
    await cloud.run("new --name web")
    await cloud.run("pause web")
    await cloud.run("transfer web bob@example.com")
    assert not any(isinstance(request, Identify) for request in engine.asked)
    await cloud.run("resume web", cloud.bob)
    (identity,) = engine.identities.values()
    assert identity.authorized_keys == (f"{BOB} laptop",)


async def test_a_vm_that_cannot_be_told_is_theirs_all_the_same(
    cloud: Control, engine: FakeEngine
) -> None:
    await cloud.run("new --name web")
    engine.refuse[Identify].append(Unavailable("the guest is deaf"))
    engine.refuse[Identify].extend([Unavailable("the guest is deaf")] * 4)
    reply = await cloud.run("transfer web bob@example.com")
    assert reply.data["problem"] == "inside, the old keys stay until a restart: the guest is deaf"
    assert await names(cloud, cloud.bob) == ["web"]
    assert await names(cloud, cloud.ann) == []


async def test_a_limit_of_the_new_owner_holds(tmp_path: Path, engine: FakeEngine) -> None:
    config = Config(vms=Vms(max_vms=1))
    async with control(tmp_path / "c", engine, config=config) as small:
        await small.run("new --name web")
        await small.run("new --name db", small.bob)
        said = await small.fails("transfer web bob@example.com", Exhausted, small.ann)
        assert "bob@example.com would have over 1 VMs" in said
        assert await names(small, small.ann) == ["web"]


async def test_both_owners_learn_of_it(cloud: Control) -> None:
    await cloud.run("new --name web")
    await cloud.run("transfer web bob@example.com")
    old = (await cloud.data("events web"))["events"]
    assert [(one["event"], one.get("door")) for one in old] == [("new", "ssh"), ("transfer", "ssh")]
    assert old[-1]["by_name"] == "laptop"
    new = (await cloud.data("events web", cloud.bob))["events"]
    assert [(one["event"], "by" in one) for one in new] == [("received", False)]


async def test_who_is_removed_keeps_their_vms(cloud: Control) -> None:
    cat = await cloud.somebody("cat")
    await crew(cloud, cloud.bob, cat)
    await cloud.run("new --name web", cat)
    version = cloud.cloud.changes.version
    reply = await cloud.run("team remove cat@example.com", cloud.bob)
    assert reply.text == "cat@example.com is not in team crew any more"
    assert cloud.cloud.changes.version > version
    assert await names(cloud, cat) == ["web"]


async def test_an_admin_of_a_team_takes_no_vm_that_was_not_shared_with_it(cloud: Control) -> None:
    """Else anybody could make a team, invite somebody, and have all their VMs by removing them."""
    cat = await cloud.somebody("cat")
    await crew(cloud, cloud.bob, cat)
    await cloud.run("new --name web", cat)
    reply = await cloud.run(
        "team remove cat@example.com --transfer-vms-to bob@example.com", cloud.bob
    )
    assert reply.data["transferred"] == []
    assert reply.text.splitlines()[1] == "bob@example.com has got: no VMs"
    assert await names(cloud, cat) == ["web"]


async def test_the_machines_admin_hands_over_what_somebody_leaves_behind(
    cloud: Control, engine: FakeEngine
) -> None:
    cat = await cloud.somebody("cat")
    await crew(cloud, cloud.ann, cloud.bob, cat)
    for name in ("web", "db"):
        await cloud.run(f"new --name {name}", cat)
    await cloud.run("pause db", cat)
    line = "team remove cat@example.com --transfer-vms-to bob@example.com"
    await cloud.fails(line.replace("bob@", "dan@"), NotFound, cloud.ann)
    await cloud.fails(line.replace("bob@", "cat@"), Invalid, cloud.ann)
    reply = await cloud.run(line)
    assert reply.data == {
        "status": "removed", "team_name": "crew", "email": "cat@example.com",
        "transferred": ["db", "web"], "owner": "bob@example.com",
    }  # fmt: skip
    assert await names(cloud, cloud.bob) == ["db", "web"]
    assert await names(cloud, cat) == []
    await cloud.cloud.journal.resume()
    keys = {identity.hostname: identity.authorized_keys for identity in engine.identities.values()}
    assert keys["web"] == (f"{BOB} laptop",)
    assert [one["event"] for one in (await cloud.data("events web", cat))["events"]] == [
        "new",
        "transfer",
    ]


async def test_a_removal_that_fails_leaves_team_and_vms(tmp_path: Path, engine: FakeEngine) -> None:
    config = Config(vms=Vms(max_vms=1))
    async with control(tmp_path / "c", engine, config=config) as small:
        cat = await small.somebody("cat")
        await crew(small, small.ann, small.bob, cat)
        await small.run("new --name web", cat)
        await small.run("new --name db", small.bob)
        line = "team remove cat@example.com --transfer-vms-to bob@example.com"
        await small.fails(line, Exhausted, small.ann)
        assert await names(small, cat) == ["web"]
        assert len((await small.data("team members"))["members"]) == 3


async def test_a_key_for_one_verb_gives_no_vm_away(cloud: Control) -> None:
    await cloud.run("new --name web")
    limited = replace(cloud.ann, scope=replace(cloud.ann.scope, cmds=frozenset({"ls"})))
    with pytest.raises(AtollError, match="does not allow `transfer`"):
        await cloud.run("transfer web bob@example.com", limited)
