"""Sharing by command, on a real control: people, levels, links, ports, paths, time, and asking."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from atoll.base.aio import poll
from atoll.base.errors import Conflict, Invalid, NotFound
from atoll.domain.account import Scope
from fakes.engine import FakeEngine
from framework.cloud import START, Control, control
from framework.signing import SshKeyFile

WEB = "https://web.atoll.localhost:8443"


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Control]:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving(), control(tmp_path / "control", engine, loops=True) as made:
        await made.run("new --name web")
        yield made


async def users(cloud: Control) -> list[dict[str, Any]]:
    """What `share show` lists as people."""
    found: list[dict[str, Any]] = (await cloud.data("share show web"))["users"]
    return found


class TestPeople:
    async def test_web_opens_the_web_address_alone(self, cloud: Control) -> None:
        assert not await cloud.opens(cloud.bob)
        reply = await cloud.run("share add web Bob@Example.com --message hi")
        assert reply.data == {
            "status": "success", "vm_name": "web", "shared_with": "bob@example.com", "share_level": "web",
            "url": f"{WEB}/", "message": "Invitation sent",
        }  # fmt: skip
        assert await cloud.opens(cloud.bob)
        assert not await cloud.opens(cloud.bob, port=3000)
        assert not await cloud.opens(None)
        with pytest.raises(NotFound):
            await cloud.cloud.route(cloud.bob, "web")

    async def test_root_opens_everything_and_a_shell(self, cloud: Control) -> None:
        before = len(cloud.authorized())
        reply = await cloud.run("share add web bob@example.com --root")
        assert "ssh -p 2222 web@localhost" in reply.text
        assert await cloud.opens(cloud.bob, port=3000)
        assert (await cloud.cloud.route(cloud.bob, "web")).caller.account.id == cloud.bob.account.id

        async def told() -> bool | None:
            return len(cloud.authorized()) == before + 1 or None

        await poll(told, seconds=5, what="the VM knowing bob's key")
        await cloud.run("share remove web bob@example.com --root")
        assert await cloud.opens(cloud.bob)
        assert not await cloud.opens(cloud.bob, port=3000)
        with pytest.raises(NotFound):
            await cloud.cloud.route(cloud.bob, "web")

    async def test_a_key_that_is_removed_opens_no_vm_of_others(
        self, cloud: Control, tmp_path: Path
    ) -> None:
        line = SshKeyFile.new(tmp_path, "second").line
        await cloud.run(f"ssh-key add '{line}' --name second", cloud.bob)
        await cloud.run("share add web bob@example.com --root")

        async def knows(is_known: bool) -> bool | None:
            keys = " ".join(cloud.authorized())
            return (line.split()[1] in keys) == is_known or None

        await poll(partial(knows, True), seconds=5, what="the VM knowing bob's key")
        await cloud.run("ssh-key remove second", cloud.bob)
        await poll(partial(knows, False), seconds=5, what="the VM forgetting bob's key")

    async def test_root_changes_nothing_of_the_vm(self, cloud: Control) -> None:
        await cloud.run("share add web bob@example.com --root")
        for line in ("pause web", "share show web", "share add web x@y.z", "cp web", "tag web a"):
            await cloud.fails(line, NotFound, cloud.bob)
        assert (await cloud.data("rm web", cloud.bob))["not_found"] == ["web"]

    async def test_keys_limited_to_a_tag_do_not_enter_the_vms_of_others(
        self, cloud: Control
    ) -> None:
        await cloud.run("tag web ci")
        await cloud.run("share add web bob@example.com --root")
        with pytest.raises(NotFound):
            await cloud.cloud.route(replace(cloud.bob, scope=Scope(tag="ci")), "web")

    async def test_pending_until_there_is_an_account(self, cloud: Control) -> None:
        await cloud.run("share add web carl@example.com")
        assert [one["status"] for one in await users(cloud)] == ["pending"]
        key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHmJGHFXyGmpRGkQ4Lf3vUQnZ1a3kPv1rm0t8xrJmSDD"
        await cloud.cloud.accounts.ensure("carl@example.com", key)
        carl = await cloud.cloud.caller_for_key(key, source="")
        assert await cloud.opens(carl)
        assert [one["status"] for one in await users(cloud)] == ["active"]

    async def test_ports_and_paths(self, cloud: Control) -> None:
        await cloud.run("share add web bob@example.com --port 3000 --path /docs/")
        assert await cloud.opens(cloud.bob, port=3000, path="/docs/a")
        for port, path in ((3000, "/"), (8000, "/docs/a"), (3000, "/docs/..;/x")):
            assert not await cloud.opens(cloud.bob, port=port, path=path)
        (user,) = await users(cloud)
        assert (user["port"], user["path"]) == (3000, "/docs")
        await cloud.fails("share remove web bob@example.com --port 3001", NotFound)
        await cloud.run("share remove web bob@example.com --port 3000 --path /docs")
        assert await users(cloud) == []

    async def test_remove_takes_everything(self, cloud: Control) -> None:
        for more in ("", " --port 3000", " --path /a"):
            await cloud.run(f"share add web bob@example.com{more}")
        reply = await cloud.run("share remove web bob@example.com")
        assert reply.text.startswith("bob@example.com lost: ")
        assert await users(cloud) == []
        await cloud.fails("share remove web bob@example.com", NotFound)

    async def test_time_ends_it(self, cloud: Control) -> None:
        await cloud.run("share add web bob@example.com --root --for 2h")
        assert (await users(cloud))[0]["expires_at"] == "2027-01-15T10:00:00Z"
        assert await cloud.opens(cloud.bob)
        version = cloud.cloud.changes.version
        cloud.clock.time = START + 7200
        assert not await cloud.opens(cloud.bob)
        with pytest.raises(NotFound):
            await cloud.cloud.route(cloud.bob, "web")
        cloud.cloud.changes.bump()  # the loop waits a minute at most, or for any change

        async def gone() -> bool | None:
            return (await users(cloud) == [] and cloud.cloud.changes.version > version + 1) or None

        await poll(gone, seconds=5, what="the grant's end")

    async def test_less_does_not_replace_root(self, cloud: Control) -> None:
        await cloud.run("share add web bob@example.com --root")
        said = await cloud.fails("share add web bob@example.com", Conflict)
        assert "share remove web bob@example.com --root" in said
        await cloud.run("share add web bob@example.com --root --for 1h")
        assert len(await users(cloud)) == 1

    @pytest.mark.parametrize(
        "line",
        [
            "share add web a@b@c", "share add web 'bob@x.y\nBcc: z@x.y'",
            "share add web bob@x.y --for 2", "share add web bob@x.y --for 0h",
            "share add web bob@x.y --for 9999w",
            "share add web bob@x.y --until yesterday", "share add web bob@x.y --until 2020-01-01",
            "share add web bob@x.y --for 1h --until 2027-02-01", "share add web bob@x.y --port 22",
            "share add web bob@x.y --port 8000000", "share add web bob@x.y --path docs",
            "share add web bob@x.y --path /a/../b", "share add web bob@x.y --path '/a b'",
            "share add web bob@x.y --root --port 3000", "share remove web bob@x.y --root --path /a",
            "share show web --who bob@x.y", "share show web --url https://db.atoll.localhost:8443/",
            "share show web --url http://web.atoll.localhost:8443/",
        ],
    )  # fmt: skip
    async def test_what_is_refused(self, cloud: Control, line: str) -> None:
        before = await cloud.data("share show web")
        await cloud.fails(line, Invalid)
        assert await cloud.data("share show web") == before

    async def test_a_vm_in_the_trash_is_open_to_nobody_and_comes_back_as_it_was(
        self, cloud: Control
    ) -> None:
        await cloud.run("share add web bob@example.com --root")
        await cloud.run("rm web")
        assert await cloud.cloud.published() == ()
        assert await cloud.cloud.publishing.entering() == frozenset()
        await cloud.run("undo")
        assert await cloud.opens(cloud.bob)

    async def test_a_copy_is_shared_with_nobody(self, cloud: Control) -> None:
        await cloud.run("share add web bob@example.com")
        await cloud.run("cp web next")
        assert not await cloud.opens(cloud.bob, name="next")

    async def test_who_is_shared_with_sees_it(self, cloud: Control) -> None:
        await cloud.run("share add web bob@example.com --root --for 1d")
        listed = await cloud.data("share ls", cloud.bob)
        assert listed["shared"] == [
            {
                "vm_name": "web", "owner": "ann@example.com", "share_level": "root", "url": f"{WEB}/",
                "ssh_command": "ssh -p 2222 web@localhost", "expires_at": "2027-01-16T08:00:00Z",
            }
        ]  # fmt: skip
        assert (await cloud.run("share ls")).text == "Nothing is shared with you"


class TestLosing:
    """What goes on by a right that is lost is ended."""

    @pytest.mark.parametrize(
        "line",
        ["share remove web bob@example.com", "share remove web bob@example.com --root", "rm web"],
    )
    async def test_who_lost_a_shell_is_told_of(self, cloud: Control, line: str) -> None:
        lost: list[tuple[str, str]] = []
        cloud.cloud.withdrawal.when_lost(lambda account, vm: lost.append((account, vm)))
        await cloud.run("share add web bob@example.com --root")
        vm = (await cloud.cloud.route(cloud.bob, "web")).vm_id
        await cloud.grants_seen()
        assert lost == []
        await cloud.run(line)

        async def told() -> bool | None:
            return (cloud.bob.account.id, vm) in lost or None

        await poll(told, seconds=1, what="bob losing his shell")


class TestPublic:
    async def test_a_path_for_webhooks(self, cloud: Control) -> None:
        await cloud.run("share set-public web --path /hooks")
        assert await cloud.opens(None, path="/hooks/github")
        assert not await cloud.opens(None)
        shown = await cloud.data("share show web")
        assert (shown["status"], shown["public"]) == ("private", [{"path": "/hooks"}])

    async def test_several_ports_and_all_private_again(self, cloud: Control) -> None:
        for more in ("", " --port 3000", " --port 3001 --for 1h"):
            await cloud.run(f"share set-public web{more}")
        assert (await cloud.data("share show web"))["status"] == "public"
        assert [await cloud.opens(None, port=port) for port in (8000, 3000, 3001, 3002)] == [
            True, True, True, False,
        ]  # fmt: skip
        await cloud.run("share set-private web --port 3000")
        assert not await cloud.opens(None, port=3000)
        await cloud.run("share set-private web")
        assert (await cloud.data("share show web"))["public"] == []

    @pytest.mark.parametrize("path", ["/", "//"])
    async def test_the_whole_site_in_any_spelling_is_all_that_is_public(
        self, cloud: Control, path: str
    ) -> None:
        for more in ("", " --port 3000"):
            await cloud.run(f"share set-public web{more}")
        await cloud.run(f"share set-private web --path {path}")
        assert (await cloud.data("share show web"))["public"] == []

    async def test_the_vms_own_port_is_meant_whatever_it_is(self, cloud: Control) -> None:
        await cloud.run("share set-public web")
        await cloud.run("share port web 5000")
        assert await cloud.opens(None, port=5000)
        assert not await cloud.opens(None)


class TestLinks:
    async def test_it_gives_a_grant_to_who_signs_in(self, cloud: Control) -> None:
        made = await cloud.data("share add-link web --port 3000")
        assert made["url"] == f"https://atoll.localhost:8443/share/{made['token']}"
        assert not await cloud.opens(cloud.bob, port=3000)
        taken = await cloud.data(f"share accept {made['url']}", cloud.bob)
        assert taken["url"] == "https://3000-web.atoll.localhost:8443/"
        assert await cloud.opens(cloud.bob, port=3000)
        shown = await cloud.data("share show web")
        assert shown["links"][0]["use_count"] == 1
        assert shown["users"][0]["via"] == shown["links"][0]["id"]

    async def test_its_end_leaves_who_came_unless_told(self, cloud: Control) -> None:
        tokens = [(await cloud.data("share add-link web"))["token"] for _ in range(2)]
        await cloud.run(f"share accept {tokens[0]}", cloud.bob)
        await cloud.run(f"share remove-link web {tokens[1]}")
        assert await cloud.opens(cloud.bob)
        reply = await cloud.data(f"share remove-link web {tokens[0]} --evict")
        assert reply["evicted"] == ["bob@example.com"]
        assert not await cloud.opens(cloud.bob)
        for token in tokens:
            await cloud.fails(f"share accept {token}", NotFound, cloud.bob)

    async def test_its_time_is_what_it_gives(self, cloud: Control) -> None:
        made = await cloud.data("share add-link web --for 1h")
        await cloud.run(f"share accept {made['token']}", cloud.bob)
        cloud.clock.time = START + 3600
        assert not await cloud.opens(cloud.bob)
        await cloud.fails(f"share accept {made['token']}", NotFound, cloud.bob)

    async def test_it_takes_nothing_away(self, cloud: Control) -> None:
        await cloud.run("share add web bob@example.com --root")
        made = await cloud.data("share add-link web --for 1h")
        await cloud.run(f"share accept {made['token']}", cloud.bob)
        assert [one["share_level"] for one in await users(cloud)] == ["root"]
        await cloud.run(f"share accept {made['token']}")  # its owner: nothing to give

    @pytest.mark.parametrize("token", ["", "x", "0" * 34, "link-0", "é" * 34, "a" * 5000, "\ud800"])
    async def test_a_guess_is_no_link(self, cloud: Control, token: str) -> None:
        assert await cloud.cloud.links.read(token) is None

    async def test_the_store_alone_opens_nothing(self, cloud: Control) -> None:
        made = await cloud.data("share add-link web")
        dump = ""
        async with cloud.store.read() as tx:
            for table in ("links", "grants", "operations", "events"):
                dump += str((await tx.exec_driver_sql(f"SELECT * FROM {table}")).all())
        assert made["token"][12:] not in dump

    async def test_changed_letters_are_no_link(self, cloud: Control) -> None:
        token = (await cloud.data("share add-link web"))["token"]
        for at in (0, 11, 12, 33):
            other = "a" if token[at] != "a" else "b"
            assert await cloud.cloud.links.read(token[:at] + other + token[at + 1 :]) is None


class TestAsking:
    async def test_the_owner_sees_who_asks_until_they_are_let_in(self, cloud: Control) -> None:
        await cloud.run("share ask web --message please", cloud.bob)
        asked = (await cloud.data("share show web"))["requests"]
        assert [(one["email"], one["message"]) for one in asked] == [("bob@example.com", "please")]
        await cloud.run("share add web bob@example.com")
        assert (await cloud.data("share show web"))["requests"] == []

    async def test_nobody_learns_which_vms_there_are(self, cloud: Control) -> None:
        known = await cloud.run("share ask web", cloud.bob)
        unknown = await cloud.run("share ask wob", cloud.bob)
        assert known.text.replace("web", "wob") == unknown.text
        rehearsed = [
            (await cloud.run(f"share ask {name} --dry-run", cloud.bob)).text
            for name in ("web", "wob")
        ]
        assert rehearsed[0].replace("web", "wob") == rehearsed[1]

    async def test_by_address(self, cloud: Control) -> None:
        await cloud.run(f"share ask {WEB}/a?b=c", cloud.bob)
        assert len((await cloud.data("share show web"))["requests"]) == 1
        await cloud.fails("share ask https://example.com/", Invalid, cloud.bob)


class TestExplaining:
    @pytest.mark.parametrize(
        ("line", "who", "url", "may", "because"),
        [
            ("", "bob@example.com", f"{WEB}/", False, "nothing that is shared with them covers it"),
            ("", "x@example.com", f"{WEB}/", False, "there is no account with this address yet"),
            ("", "", f"{WEB}/", False, "it is not public"),
            ("", "ann@example.com", f"{WEB}/", True, "they own the VM or have root access to it"),
            ("share add web bob@example.com", "bob@example.com", f"{WEB}/x", True,
             "port 8000 is shared with them"),
            ("share add web bob@example.com", "bob@example.com",
             "https://3000-web.atoll.localhost:8443/", False,
             "nothing that is shared with them covers it"),
            ("share add web bob@example.com --path /a", "bob@example.com", f"{WEB}/a/%2e%2e/b", False,
             "servers differ in how they read this path, so only a share of the whole port covers it"),
            ("share set-public web --path /a --for 1h", "", f"{WEB}/a?b=c", True,
             "port 8000 below /a is public until 2027-01-15T09:00:00Z"),
        ],
    )  # fmt: skip
    async def test_why(
        self, cloud: Control, line: str, who: str, url: str, may: bool, because: str
    ) -> None:
        if line:
            await cloud.run(line)
        asked = f"share show web --url '{url}'" + (f" --who {who}" if who else "")
        said = (await cloud.data(asked))["explanation"]
        assert (said["allowed"], said["because"]) == (may, because)


async def test_text(cloud: Control) -> None:
    await cloud.run("share add web bob@example.com --port 3000 --for 2h")
    cloud.clock.time += 1  # the order is that of time
    await cloud.run("share set-public web --path /hooks")
    await cloud.run("share ask web --message 'let me'", cloud.bob)
    lines = (await cloud.run("share show web")).text.splitlines()
    assert lines[:3] == [f"url    {WEB}/", "port   8000", "share  private"]
    assert [" ".join(line.split()) for line in lines[4:]] == [
        "WHO LEVEL WHAT UNTIL NOTE",
        "you root everything",
        "bob@example.com web port 3000 2027-01-15T10:00:00Z active",
        "everybody web the web address below /hooks",
        "bob@example.com asks: let me",
    ]
