"""VMs shared with a team: open to whoever is in it at that moment, by edge, by SSH and inside the VM."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from atoll.base.aio import poll
from atoll.base.errors import AtollError, Conflict, Invalid, NotFound
from atoll.domain.account import Caller
from atoll.domain.sharing import may_open
from fakes.engine import FakeEngine
from framework.cloud import BOB, Control, control

TO_BOB = "--transfer-vms-to bob@example.com"


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Control]:
    """Ann's VM `web`, and bob's team `design`, which she is in."""
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving(), control(tmp_path / "control", engine, loops=True) as made:
        await made.run("new --name web")
        await made.run("team new design", made.bob)
        await made.run("team add ann@example.com", made.bob)
        await made.run("team join")
        yield made


async def somebody(cloud: Control, name: str) -> Caller:
    """One more account."""
    key = asyncssh.generate_private_key("ssh-ed25519").export_public_key("openssh").decode()
    await cloud.cloud.accounts.ensure(f"{name}@example.com", key, key_name="laptop")
    caller = await cloud.cloud.caller_for_key(key, source="192.0.2.3")
    assert caller is not None
    return caller


async def opens(cloud: Control, who: Caller, *, port: int = 8000, name: str = "web") -> bool:
    """Whether the edge would let somebody in."""
    vm = next(vm for vm in await cloud.cloud.published() if vm.vm_name == name)
    return may_open(vm.openings, who.account.id, port=port, path="/", now=cloud.clock())


async def enters(cloud: Control, who: Caller, name: str = "web") -> bool:
    """Whether the gateway would let somebody in."""
    try:
        await cloud.cloud.route(who, name)
    except NotFound:
        return False
    return True


async def fails(
    cloud: Control, line: str, kind: type[AtollError], who: Caller | None = None
) -> str:
    """The error of a line, as text."""
    with pytest.raises(kind) as caught:
        await cloud.run(line, who)
    return str(caught.value)


async def told(cloud: Control, *owners: str) -> None:
    """Wait until the VM has been given the keys of these and no others."""

    async def once() -> bool | None:
        held = [one for one in cloud.engine.identities.values() if one.hostname == "web"][-1]
        known = {"bob": BOB in "".join(held.authorized_keys or ())}
        return (known["bob"] == ("bob" in owners)) or None

    await poll(once, seconds=10, what=f"the keys of {owners} inside", every=0.01)


async def test_a_team_opens_the_web_address(cloud: Control) -> None:
    cat = await somebody(cloud, "cat")
    reply = await cloud.run("share add web design")
    assert reply.text == "team design may open https://web.atoll.localhost:8443/"
    assert reply.data == {
        "status": "success", "vm_name": "web", "shared_with": "design", "team_name": "design",
        "share_level": "web", "url": "https://web.atoll.localhost:8443/", "message": "Share created",
    }  # fmt: skip
    assert await opens(cloud, cloud.bob)
    assert not await opens(cloud, cloud.bob, port=3000)
    assert not await enters(cloud, cloud.bob)
    assert not await opens(cloud, cat)
    (entry,) = (await cloud.data("share ls", cloud.bob))["shared"]
    assert (entry["vm_name"], entry["owner"]) == ("web", "ann@example.com")
    assert (await cloud.data("share ls", cat))["shared"] == []


async def test_share_show_calls_the_team_by_its_name(cloud: Control) -> None:
    await cloud.run("share add web design --for 2h --path /docs")
    (team,) = (await cloud.data("share show web"))["teams"]
    assert team.pop("team_id").startswith("team-")
    assert team == {
        "team_name": "design", "share_level": "web", "path": "/docs",
        "expires_at": "2027-01-15T10:00:00Z",
    }  # fmt: skip
    await cloud.run("team rename studio", cloud.bob)
    assert "team studio" in (await cloud.run("share show web")).text
    assert "team studio" in (await cloud.run("share add web studio")).text
    shown: dict[str, Any] = await cloud.data(
        "share show web --who bob@example.com --url https://web.atoll.localhost:8443/docs"
    )
    assert shown["explanation"]["allowed"]


async def test_only_a_team_one_is_in(cloud: Control) -> None:
    cat = await somebody(cloud, "cat")
    await cloud.run("team new hidden", cat)
    hint = "Give a team of: team ls, or an e-mail address: bob@example.com"
    for name in ("hidden", "nowhere"):
        said = await fails(cloud, f"share add web {name}", NotFound)
        assert said == f"team {name!r} not found. {hint}"
    assert "Did you mean design?" in await fails(cloud, "share add web desing", NotFound)
    assert (await cloud.data("share add web team"))["team_name"] == "design"  # the one she is in
    await cloud.run("team new ops")
    await fails(cloud, "share add web team", Invalid)


async def test_membership_counts_from_joining_to_leaving(cloud: Control) -> None:
    cat = await somebody(cloud, "cat")
    await cloud.run("share add web design")
    await cloud.run("team add cat@example.com", cloud.bob)
    assert not await opens(cloud, cat)
    version = cloud.cloud.changes.version
    await cloud.run("team join", cat)
    assert await opens(cloud, cat)
    assert cloud.cloud.changes.version > version
    version = cloud.cloud.changes.version
    await cloud.run("team leave", cat)
    assert not await opens(cloud, cat)
    assert cloud.cloud.changes.version > version
    assert await opens(cloud, cloud.bob)


@pytest.mark.parametrize(
    "end",
    [
        "team leave design",
        "team remove bob@example.com --team design",
        "team disable design --yes",
        "share remove web design",
        "share remove web design --root",
        "transfer web cat@example.com",
    ],
)
async def test_root_ends_everywhere_with_whatever_ends_it(cloud: Control, end: str) -> None:
    cat = await somebody(cloud, "cat")
    await cloud.run("team add cat@example.com --role owner", cloud.bob)
    await cloud.run("team join", cat)
    await cloud.run("team role ann@example.com owner", cloud.bob)
    lost: list[tuple[str, str]] = []
    cloud.cloud.withdrawal.when_lost(lambda account, vm: lost.append((account, vm)))
    await cloud.run("share add web design --root")
    assert await enters(cloud, cloud.bob)
    assert await opens(cloud, cloud.bob, port=3000)
    await told(cloud, "bob")
    await seen(cloud)
    await cloud.run(end, cloud.bob if end == "team leave design" else cloud.ann)
    assert not await enters(cloud, cloud.bob)
    assert not await opens(cloud, cloud.bob, port=3000)
    await told(cloud)
    await seen(cloud)
    assert cloud.bob.account.id in {account for account, _ in lost}, "open shells are ended"


async def seen(cloud: Control) -> None:
    """Wait until who ends shells has seen all changes."""

    async def once() -> bool | None:
        return cloud.cloud.withdrawal.version >= cloud.cloud.changes.version or None

    await poll(once, seconds=10, what="the changes to be seen", every=0.005)


async def test_whoever_leaves_takes_back_what_they_shared(cloud: Control) -> None:
    await cloud.run("share add web design")
    await cloud.run("share add web bob@example.com --port 3000")
    await cloud.run("team leave")
    assert not await opens(cloud, cloud.bob)
    assert await opens(cloud, cloud.bob, port=3000)
    assert (await cloud.data("share show web"))["teams"] == []


async def test_what_a_new_owner_is_not_left_with(cloud: Control) -> None:
    await cloud.run("share add web design")
    await cloud.run("share set-public web")
    await cloud.run("share add-link web")
    await cloud.run("transfer web bob@example.com")
    shown = await cloud.data("share show web", cloud.bob)
    assert (shown["users"], shown["teams"], shown["links"], shown["public"]) == ([], [], [], [])
    assert shown["status"] == "private"
    assert not await opens(cloud, cloud.ann)


async def test_root_is_more_than_web(cloud: Control) -> None:
    await cloud.run("share add web design --root")
    assert await fails(cloud, "share add web design", Conflict) == (
        'design has root access to VM "web", which is more.'
        " To take that away: share remove web design --root"
    )
    assert (await cloud.run("share remove web design --root")).data["share_level"] == "web"
    assert "design has no root access" in await fails(
        cloud, "share remove web design --root", NotFound
    )
    assert (await cloud.run("share remove web design")).text == "design lost: the web address (web)"


async def test_a_dry_run_calls_a_team_by_its_name_and_tells_of_keys(cloud: Control) -> None:
    assert (await cloud.run("share add web design --root --dry-run")).text == (
        "would let design open web as root\nwould tell web its name and keys"
    )
    await cloud.run("share add web design --root")
    assert (await cloud.run("team leave --dry-run")).text == (
        "would leave team design\nwould take web as root from design\n"
        "would tell web its name and keys"
    )


async def test_an_admin_hands_over_what_was_the_teams_to_have(cloud: Control) -> None:
    cat = await somebody(cloud, "cat")
    await cloud.run("team add cat@example.com", cloud.bob)
    await cloud.run("team join", cat)
    for line in ("new --name ours", "new --name seen", "new --name own", "share add ours design --root",
                 "share add seen design", "share add own ann@example.com --root"):  # fmt: skip
        await cloud.run(line, cat)
    line = f"team remove cat@example.com {TO_BOB}"
    assert (await cloud.run(f"{line} --dry-run", cloud.bob)).text == (
        "would remove cat@example.com from team design\nwould give ours to bob@example.com"
    )
    assert (await cloud.data(line, cloud.bob))["transferred"] == ["ours"]
    assert [vm["vm_name"] for vm in (await cloud.data("ls", cat))["vms"]] == ["own", "seen"]
    assert not await opens(cloud, cloud.bob, name="seen")
    assert await enters(cloud, cloud.bob, "ours")
    assert not await enters(cloud, cat, "ours")
