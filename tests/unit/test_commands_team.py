"""The verbs of teams, with three people: what each may, what others learn, how one gets in and out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atoll.base.errors import AtollError, Conflict, Denied, Exhausted, Invalid, NotFound
from atoll.commands.registry import UnknownCommand
from atoll.commands.verbs import REGISTRY
from atoll.domain import team as rules
from atoll.domain.account import Caller, Scope
from fakes.engine import FakeEngine
from framework.cloud import START, Control, control

DAY = "2027-01-16T08:00:00Z"


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Control]:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving(), control(tmp_path / "control", engine, loops=True) as made:
        yield made


async def design(cloud: Control, *members: str) -> list[Caller]:
    """Ann's team and who has joined it, bob among the known."""
    await cloud.run("team new design")
    callers = []
    for name in members:
        caller = cloud.bob if name == "bob" else await cloud.somebody(name)
        await cloud.run(f"team add {name}@example.com --team design")
        await cloud.run("team join design", caller)
        callers.append(caller)
    return callers


async def roles(cloud: Control, caller: Caller | None = None) -> dict[str, str]:
    """Who is what in the team."""
    listed = (await cloud.data("team members design", caller))["members"]
    return {entry["email"].partition("@")[0]: entry["role"] for entry in listed}


async def fails(
    cloud: Control, line: str, kind: type[AtollError], who: Caller | None = None
) -> str:
    """The error of a line, as text; its dry run says the same."""
    said = await cloud.fails(line, kind, who)
    assert await cloud.fails(f"{line} --dry-run", kind, who) == said
    return said


async def test_a_team_from_its_beginning_to_its_end(cloud: Control) -> None:
    reply = await cloud.run("team new design")
    id_ = reply.data["team_id"]
    assert reply.data == {
        "status": "created", "team_id": id_, "team_name": "design", "role": "owner",
    }  # fmt: skip
    assert reply.text == "made team design; invite people: team add <e-mail>"
    invited = await cloud.run("team add Bob@Example.com --role admin")
    assert invited.data == {
        "status": "invited", "team_name": "design", "email": "bob@example.com", "role": "admin",
        "expires_at": DAY,
    }  # fmt: skip
    assert await cloud.data("team ls", cloud.bob) == {
        "teams": [],
        "invitations": [
            {"team_name": "design", "role": "admin", "invited_by": "ann@example.com",
             "expires_at": DAY}
        ],
    }  # fmt: skip
    text = (await cloud.run("team", cloud.bob)).text
    assert "ann@example.com invites you until 2027-01-16T08:00:00Z: team join design" in text
    assert (await cloud.data("team join", cloud.bob)) == {
        "status": "joined", "team_id": id_, "team_name": "design", "role": "admin",
    }  # fmt: skip
    assert await cloud.data("team members") == {
        "team_id": id_,
        "team_name": "design",
        "role": "owner",
        "members": [
            {"email": "ann@example.com", "role": "owner", "since": "2027-01-15T08:00:00Z"},
            {"email": "bob@example.com", "role": "admin", "since": "2027-01-15T08:00:00Z"},
        ],
        "invited": [],
    }
    assert (await cloud.run("team role bob@example.com user")).text == (
        "bob@example.com in team design: member"
    )
    assert "invited" not in await cloud.data("team members", cloud.bob)
    assert (await cloud.run("team rename studio")).text == "team design is now studio"
    assert (await cloud.data("team ls", cloud.bob))["teams"] == [
        {"team_id": id_, "team_name": "studio", "role": "member", "members": 2,
         "created_at": "2027-01-15T08:00:00Z"}
    ]  # fmt: skip
    assert await fails(cloud, "team disable studio", Invalid) == (
        "that ends team studio for its 2 members. Try: team disable studio --yes"
    )
    assert (await cloud.run("team disable studio --yes")).text == "team studio is no more"
    for who in (cloud.ann, cloud.bob):
        assert (await cloud.run("team ls", who)).text == "No teams"


async def test_a_team_one_is_not_in_is_not_found(cloud: Control) -> None:
    await design(cloud)
    for line in (
        "team members {}",
        "team usage {}",
        "team leave {}",
        "team join {}",
        "team rename x --team {}",
        "team disable {} --yes",
        "team add x@y --team {}",
        "team remove ann@example.com --team {}",
        "team role ann@example.com member --team {}",
    ):
        mutates = "usage" not in line and "members" not in line
        said = []
        for name in ("design", "nowhere"):
            with pytest.raises(NotFound) as caught:
                await cloud.run(line.format(name), cloud.bob)
            said.append(str(caught.value).replace(name, "…"))
            if mutates:
                await fails(cloud, line.format(name), NotFound, cloud.bob)
        assert said[0] == said[1], "a team's members are told nothing more than strangers"
    assert await fails(cloud, "team leave", NotFound, cloud.bob) == (
        "you are in no team. Try: team new <name>"
    )
    await cloud.run("team new other", cloud.bob)
    assert "Did you mean other?" in await fails(
        cloud, "team rename x --team othr", NotFound, cloud.bob
    )


async def test_a_name_is_needed_only_where_it_is_not_clear(cloud: Control) -> None:
    await design(cloud)
    await cloud.run("team new ops")
    assert await fails(cloud, "team rename x", Invalid) == (
        "you are in 2 teams. Say which: design, ops"
    )
    for team in ("design", "ops"):
        await cloud.run(f"team add bob@example.com --team {team}")
    assert await fails(cloud, "team join", Invalid, cloud.bob) == (
        "you are invited to 2 teams. Say which: design, ops"
    )
    assert (await cloud.data("team leave ops", cloud.bob))["status"] == "declined"
    assert (await cloud.data("team join", cloud.bob))["team_name"] == "design"
    assert (await cloud.data("team leave", cloud.bob))["status"] == "left"


async def test_names_are_one_for_all(cloud: Control) -> None:
    await design(cloud)
    said = await fails(cloud, "team new design", Conflict, cloud.bob)
    assert said == "the team name 'design' is taken. Try another name"
    await cloud.run("team new ops", cloud.bob)
    await fails(cloud, "team rename design", Conflict, cloud.bob)
    await cloud.run("team rename ops", cloud.bob)  # its own
    await fails(cloud, "team new Design", Invalid)


async def test_what_each_role_may(cloud: Control) -> None:
    bob, cat, _dan = await design(cloud, "bob", "cat", "dan")
    await cloud.run("team role bob@example.com admin")
    for line in (
        "team add x@y",
        "team remove dan@example.com",
        "team role dan@example.com admin",
        "team role cat@example.com admin",
        "team rename studio",
        "team disable --yes",
    ):
        await fails(cloud, line, Denied, cat)
    for line in (
        "team add x@y --role owner",
        "team remove ann@example.com",
        "team role ann@example.com member",
        "team role dan@example.com owner",
        "team role bob@example.com owner",
        "team disable --yes",
    ):
        await fails(cloud, line, Denied, bob)
    await cloud.run("team role dan@example.com admin", bob)
    await cloud.run("team remove dan@example.com", bob)
    assert await roles(cloud, cat) == {"ann": "owner", "bob": "admin", "cat": "member"}
    await cloud.run("team role bob@example.com owner")
    await cloud.run("team role ann@example.com member", bob)
    await fails(cloud, "team rename mine", Denied)
    assert "last owner" in await fails(cloud, "team leave", Conflict, bob)
    assert await roles(cloud) == {"ann": "member", "bob": "owner", "cat": "member"}


async def test_whether_an_address_has_an_account_is_not_told(cloud: Control) -> None:
    await design(cloud)
    known, unknown = [await cloud.run(f"team add {name}@example.com") for name in ("bob", "cat")]
    assert known.text.replace("bob", "…") == unknown.text.replace("cat", "…")
    assert known.data | {"email": ""} == unknown.data | {"email": ""}


async def test_an_address_without_account_is_in_once_it_has_one(cloud: Control) -> None:
    await design(cloud)
    await cloud.run("team add cat@example.com --role admin")
    async with cloud.store.read() as tx:
        waits = cloud.cloud.team_invitations.waits_for
        assert [await waits(tx, f"{name}@example.com") for name in ("Cat", "dan")] == [True, False]
    await cloud.cloud.joining.admit("cat@example.com")
    assert await roles(cloud) == {"ann": "owner", "cat": "admin"}
    assert (await cloud.data("team members"))["invited"] == []


async def test_nobody_is_put_into_a_team(cloud: Control) -> None:
    await design(cloud)
    await cloud.run("team add bob@example.com")
    assert await roles(cloud) == {"ann": "owner"}
    with pytest.raises(NotFound):
        await cloud.run("team members design", cloud.bob)
    assert (await cloud.run("team leave design", cloud.bob)).text == "you declined team design"
    assert (await cloud.data("team ls", cloud.bob))["invitations"] == []
    await fails(cloud, "team join", NotFound, cloud.bob)


async def test_invitations_end(cloud: Control) -> None:
    (cat,) = await design(cloud, "cat")
    await cloud.run("team role cat@example.com admin")
    await cloud.run("team add bob@example.com", cat)
    cloud.clock.time = START + 86399
    assert len((await cloud.data("team ls", cloud.bob))["invitations"]) == 1
    cloud.clock.time = START + 86400
    await fails(cloud, "team join", NotFound, cloud.bob)
    await cloud.run("team add bob@example.com", cat)  # for another day
    assert (await cloud.run("team remove bob@example.com", cat)).data == {
        "status": "withdrawn", "team_name": "design", "email": "bob@example.com",
    }  # fmt: skip
    await fails(cloud, "team join", NotFound, cloud.bob)
    for end in ("team role cat@example.com member", "team remove cat@example.com"):
        await cloud.run("team role cat@example.com admin")
        await cloud.run("team add bob@example.com --role admin", cat)
        await cloud.run(end)  # whoever could not invite any more, whatever they did before
        await fails(cloud, "team join", NotFound, cloud.bob)
        async with cloud.store.read() as tx:
            assert not await cloud.cloud.team_invitations.waits_for(tx, "bob@example.com")


async def test_an_admin_does_not_undo_an_invitation_of_an_owner(cloud: Control) -> None:
    (cat,) = await design(cloud, "cat")
    await cloud.run("team role cat@example.com admin")
    await cloud.run("team add bob@example.com --role owner")
    for line in ("team remove bob@example.com", "team add bob@example.com"):
        await fails(cloud, line, Denied, cat)
    assert (await cloud.data("team join", cloud.bob))["role"] == "owner"


async def test_who_is_in_it_already_or_is_not(cloud: Control) -> None:
    await design(cloud, "bob")
    assert await fails(cloud, "team add bob@example.com --role admin", Conflict) == (
        "bob@example.com is in team design already. Try: team role bob@example.com admin"
    )
    for line in ("team remove cat@example.com", "team role cat@example.com admin"):
        assert "'cat@example.com' is not in team design" in await fails(cloud, line, NotFound)
    await fails(cloud, "team add nonsense", Invalid)
    await fails(cloud, "team add bob@example.com --role king", Invalid)


async def test_teams_are_limited(cloud: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_INVITED", 2)
    monkeypatch.setattr(rules, "MAX_MEMBERS", 2)
    monkeypatch.setattr(rules, "MAX_TEAMS", 2)
    await design(cloud, "bob")
    for name in ("x", "y", "x"):
        await cloud.run(f"team add {name}@example.com")
    assert "2 people are invited" in await fails(cloud, "team add z@example.com", Exhausted)
    await cloud.cloud.joining.admit("x@example.com")  # the team is full: it waits
    x = await cloud.somebody("x")
    assert await roles(cloud) == {"ann": "owner", "bob": "member"}
    await fails(cloud, "team join", Exhausted, x)
    await cloud.run("team leave", cloud.bob)
    await cloud.run("team join", x)
    await cloud.run("team new ops")
    assert "you are in 2 teams" in await fails(cloud, "team new third", Exhausted)


async def test_whoever_is_limited_to_some_vms_has_no_teams(cloud: Control) -> None:
    await design(cloud, "bob")
    await cloud.run("new --name web --tag ci")
    for scope in (Scope(tag="ci"), Scope(vm=cloud.engine.vms.copy().popitem()[0])):
        limited = replace(cloud.ann, scope=scope)
        for command in REGISTRY:
            if command.words[0] in ("team", "transfer"):
                for line in command.examples:
                    with pytest.raises(Denied):
                        await cloud.run(line, limited)


async def test_usage_by_member(cloud: Control) -> None:
    await design(cloud, "bob")
    await cloud.run("new --name web --memory 2G")
    await cloud.run("new --name db", cloud.bob)
    await cloud.run("new --name off", cloud.bob)
    await cloud.run("pause off", cloud.bob)
    used: dict[str, Any] = {
        entry["email"].partition("@")[0]: entry
        for entry in (await cloud.data("team usage"))["members"]
    }
    assert used["bob"]["vms"] == {"count": 2, "running": 1}
    assert used["ann"]["memory_bytes"] == {"allotted": 2 << 30, "running": 2 << 30}
    text = (await cloud.run("team usage")).text
    assert [line.split()[:4] for line in text.splitlines()[1:]] == [
        ["ann@example.com", "1,", "1", "running"],
        ["bob@example.com", "2,", "1", "running"],
    ]
    assert "web" not in text
    own = (await cloud.data("team usage", cloud.bob))["members"]
    assert [entry["email"] for entry in own] == ["bob@example.com"]


async def test_lines_as_the_reference_products_client_sends_them(cloud: Control) -> None:
    await design(cloud, "bob")
    assert (await cloud.data("team add x@example.com admin"))["role"] == "admin"
    assert (await cloud.data("team add y@example.com --as user"))["role"] == "member"
    await fails(cloud, "team add z@example.com admin --role member", Invalid)
    assert (await cloud.data("team role bob@example.com billing_owner"))["role"] == "owner"
    await cloud.run("new --name web")
    assert (await cloud.data("team transfer web bob@example.com"))["vm_name"] == "web"
    assert len((await cloud.data("team"))["teams"]) == len(
        (await cloud.data("team --json"))["teams"]
    )
    for line in ("team billing plan", "team auth", "team settings auto-join on", "team vm ls"):
        with pytest.raises(UnknownCommand, match=r"no command 'team \w+'.*team members"):
            await cloud.run(line)


async def test_names_of_teams_complete(cloud: Control) -> None:
    await design(cloud)
    assert await cloud.language.complete(cloud.ann, "team members d") == ["design"]
    assert await cloud.language.complete(cloud.bob, "team members d") == []
    assert await cloud.language.complete(cloud.ann, "team role bob@example.com a") == ["admin"]


async def test_what_is_done_is_an_event(cloud: Control) -> None:
    await design(cloud)
    await cloud.run("team add bob@example.com")
    await cloud.run("team join", cloud.bob)
    for who, kinds in ((cloud.ann, ["team new", "team add"]), (cloud.bob, ["team join"])):
        assert [one["event"] for one in (await cloud.data("events", who))["events"]] == kinds
