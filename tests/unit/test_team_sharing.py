"""VMs shared with a team: open to whoever is in it at that moment, by edge, by SSH and inside the VM."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from atoll.base.aio import poll
from atoll.base.errors import Conflict, Invalid, NotFound
from atoll.domain.account import Caller
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


async def enters(cloud: Control, who: Caller, name: str = "web") -> bool:
    """Whether the gateway would let somebody in."""
    try:
        await cloud.cloud.route(who, name)
    except NotFound:
        return False
    return True


async def told(cloud: Control, *, bob: bool) -> None:
    """Wait until the VM has been given bob's key, or has lost it."""

    async def once() -> bool | None:
        return (BOB in "".join(cloud.authorized())) == bob or None

    await poll(once, seconds=10, what=f"bob's key inside: {bob}", every=0.01)


async def test_a_team_opens_the_web_address(cloud: Control) -> None:
    cat = await cloud.somebody("cat")
    reply = await cloud.run("share add web design")
    assert reply.text == "team design may open https://web.atoll.localhost:8443/"
    assert reply.data == {
        "status": "success", "vm_name": "web", "shared_with": "design", "team_name": "design",
        "share_level": "web", "url": "https://web.atoll.localhost:8443/", "message": "Share created",
    }  # fmt: skip
    assert await cloud.opens(cloud.bob)
    assert not await cloud.opens(cloud.bob, port=3000)
    assert not await enters(cloud, cloud.bob)
    assert not await cloud.opens(cat)
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
    cat = await cloud.somebody("cat")
    await cloud.run("team new hidden", cat)
    hint = "Give a team of: team ls, or an e-mail address: bob@example.com"
    for name in ("hidden", "nowhere"):
        said = await cloud.fails(f"share add web {name}", NotFound)
        assert said == f"team {name!r} not found. {hint}"
    assert "Did you mean design?" in await cloud.fails("share add web desing", NotFound)
    assert (await cloud.data("share add web team"))["team_name"] == "design"  # the one she is in
    await cloud.run("team new ops")
    await cloud.fails("share add web team", Invalid)


async def test_membership_counts_from_joining_to_leaving(cloud: Control) -> None:
    cat = await cloud.somebody("cat")
    await cloud.run("share add web design")
    await cloud.run("team add cat@example.com", cloud.bob)
    assert not await cloud.opens(cat)
    version = cloud.cloud.changes.version
    await cloud.run("team join", cat)
    assert await cloud.opens(cat)
    assert cloud.cloud.changes.version > version
    version = cloud.cloud.changes.version
    await cloud.run("team leave", cat)
    assert not await cloud.opens(cat)
    assert cloud.cloud.changes.version > version
    assert await cloud.opens(cloud.bob)


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
    cat = await cloud.somebody("cat")
    await cloud.run("team add cat@example.com --role owner", cloud.bob)
    await cloud.run("team join", cat)
    await cloud.run("team role ann@example.com owner", cloud.bob)
    lost: list[tuple[str, str]] = []
    cloud.cloud.withdrawal.when_lost(lambda account, vm: lost.append((account, vm)))
    await cloud.run("share add web design --root")
    assert await enters(cloud, cloud.bob)
    assert await cloud.opens(cloud.bob, port=3000)
    await told(cloud, bob=True)
    await cloud.grants_seen()
    await cloud.run(end, cloud.bob if end == "team leave design" else cloud.ann)
    assert not await enters(cloud, cloud.bob)
    assert not await cloud.opens(cloud.bob, port=3000)
    await told(cloud, bob=False)
    await cloud.grants_seen()
    assert cloud.bob.account.id in {account for account, _ in lost}, "open shells are ended"


async def test_whoever_leaves_takes_back_what_they_shared(cloud: Control) -> None:
    await cloud.run("share add web design")
    await cloud.run("share add web bob@example.com --port 3000")
    await cloud.run("team leave")
    assert not await cloud.opens(cloud.bob)
    assert await cloud.opens(cloud.bob, port=3000)
    assert (await cloud.data("share show web"))["teams"] == []


async def test_what_a_new_owner_is_not_left_with(cloud: Control) -> None:
    await cloud.run("share add web design")
    await cloud.run("share set-public web")
    await cloud.run("share add-link web")
    await cloud.run("transfer web bob@example.com")
    shown = await cloud.data("share show web", cloud.bob)
    assert (shown["users"], shown["teams"], shown["links"], shown["public"]) == ([], [], [], [])
    assert shown["status"] == "private"
    assert not await cloud.opens(cloud.ann)


async def test_root_is_more_than_web(cloud: Control) -> None:
    await cloud.run("share add web design --root")
    assert await cloud.fails("share add web design", Conflict) == (
        'design has root access to VM "web", which is more.'
        " To take that away: share remove web design --root"
    )
    assert (await cloud.run("share remove web design --root")).data["share_level"] == "web"
    assert "design has no root access" in await cloud.fails(
        "share remove web design --root", NotFound
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
    cat = await cloud.somebody("cat")
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
    assert not await cloud.opens(cloud.bob, name="seen")
    assert await enters(cloud, cloud.bob, "ours")
    assert not await enters(cloud, cat, "ours")
