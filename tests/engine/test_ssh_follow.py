"""Replies that go on, in the lobby: with and without a terminal, one-shot and at the prompt."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest

from atoll.base.aio import poll
from atoll.services import changes
from atoll.store import events
from atoll.store.events import Happened
from framework.clients import client
from framework.lobby import Lobby, lobby

PROMPT = "atoll>"
HEAD = "WHEN +VM +EVENT +DOOR +BY +PROBLEM"
AT = r"2027-01-15T08:00:00Z +"


@pytest.fixture(name="here")
async def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lobby]:
    monkeypatch.setattr(changes, "LOOK_S", 0.01)
    async with lobby(tmp_path) as made:
        yield made


async def line(process: Process) -> str:
    """The next line of a client's output."""
    assert process.stdout is not None
    async with asyncio.timeout(20):
        return (await process.stdout.readline()).decode().rstrip("\n")


async def listening(here: Lobby, count: int) -> None:
    """Wait until so many follow."""
    audience = here.control.language._audience

    async def check() -> bool | None:
        return len(audience) == count or None

    await poll(check, seconds=20, what=f"{count} who listen, not {len(audience)}", every=0.005)


async def read_ahead(here: Lobby) -> None:
    """Wait until all that the clients have sent was read."""

    async def check() -> bool | None:
        channels = [
            channel
            for visitor in here.ground.door._visitors
            if visitor._conn is not None
            for channel in visitor._conn._channels.values()
        ]
        counts = [channel._recv_window for channel in channels]
        seen.append(counts)
        return (len(seen) > 50 and all(count == counts for count in seen[-50:])) or None

    seen: list[list[int]] = []
    await poll(check, seconds=20, what="the input to be read", every=0.005)


# --- without a terminal


async def test_the_last_and_then_what_comes(here: Lobby) -> None:
    await here.control.run("new --name web")
    argv = here.ground.ssh_line("-T", "atoll@gw", "events", "--follow")
    async with client(argv) as one:
        assert one.stdin is not None
        one.stdin.close()  # the end of input is no reason to end
        assert (await line(one)).split() == HEAD.replace("+", "").split()
        assert (await line(one)).split()[1:] == ["web", "new", "ssh", "laptop"]
        await listening(here, 1)
        await here.control.run("comment web x")
        assert (await line(one)).split()[1:] == ["web", "comment", "ssh", "laptop"]
        await here.control.run("new --name hers", here.control.bob)
        await here.control.run("rm web")
        assert (await line(one)).split()[1:3] == ["web", "rm"]
        one.kill()
        await listening(here, 0)


async def test_a_line_of_json_per_piece_to_each_of_two(here: Lobby) -> None:
    await here.control.run("new --name web")
    words = ("events", "web", "-n", "0", "--follow", "--json")
    argv = here.ground.ssh_line("-T", "atoll@gw", *words)
    async with client(argv) as one, client(argv) as two:
        for each in (one, two):
            assert json.loads(await line(each)) == {"events": []}
        await listening(here, 2)
        for name in ("tag web a", "new --name db", "comment web x"):
            await here.control.run(name)
        for each in (one, two):
            seen: list[str] = []
            while len(seen) < 2:
                seen += [event["event"] for event in json.loads(await line(each))["events"]]
            assert seen == ["tag", "comment"]
        one.kill()
        await listening(here, 1)
        await here.control.run("pause web")
        assert json.loads(await line(two))["events"][0]["event"] == "pause"


async def test_a_removed_key_ends_it(here: Lobby) -> None:
    argv = here.ground.ssh_line("-T", "atoll@gw", "events", "--follow")
    async with client(argv) as one:
        await line(one)
        await listening(here, 1)
        await here.control.run("ssh-key remove desk")
        await listening(here, 0)
        async with asyncio.timeout(20):
            assert await one.wait() == 255


async def test_a_channel_that_is_closed_ends_it_though_the_connection_stays(here: Lobby) -> None:
    async with connection(here) as connected:
        process = await connected.create_process("events --follow")
        await process.stdout.readline()
        await listening(here, 1)
        process.close()
        await listening(here, 0)
        assert "desk" in str((await connected.run("whoami")).stdout)


async def test_a_signal_ends_it(here: Lobby) -> None:
    async with connection(here) as connected:
        process = await connected.create_process("events --follow")
        await process.stdout.readline()
        await listening(here, 1)
        process.send_signal("INT")
        async with asyncio.timeout(20):
            done = await process.wait()
        assert (done.exit_status, done.stderr) == (130, "^C\n")
        await listening(here, 0)


async def test_a_reader_that_does_not_read_holds_up_the_next_piece(here: Lobby) -> None:
    """And misses nothing."""
    count = 5000
    async with connection(here) as connected:
        process = await connected.create_process("events -n 0 --follow --json", window=2048)
        await process.stdout.readline()
        process.channel.pause_reading()
        await listening(here, 1)
        account = here.control.ann.account.id
        async with here.control.store.begin() as tx:
            for number in range(count):
                await events.add(
                    tx,
                    Happened(at=float(number), account=account, vm="web", kind="x", door="ssh",
                             detail={"by": "SHA256:" + "k" * 43}),
                )  # fmt: skip
        here.control.cloud.events.changes.bump()
        (visitor,) = here.ground.door._visitors
        held: list[int] = []

        async def is_full() -> bool | None:
            channels = visitor._conn._channels.values()  # type: ignore[union-attr]
            held.append(sum(len(data) for chan in channels for data, _ in chan._send_buf))
            return held[-1] == held[max(0, len(held) - 50)] > 0 or None

        await poll(is_full, seconds=20, what="the channel to be full", every=0.005)
        assert max(held) < 200_000  # of a million
        process.channel.resume_reading()
        read, seen = "", 0
        while seen < count:
            async with asyncio.timeout(20):
                read += await process.stdout.read(65536)
            *lines, read = read.split("\n")
            seen += sum(len(json.loads(each)["events"]) for each in lines)
        assert seen == count


# --- the prompt without a terminal


async def test_it_ends_with_the_input_and_what_follows_it_is_run(here: Lobby) -> None:
    await here.control.run("new --name web")
    done = await here.ssh(stdin=b"events --follow\nwhoami --json\n")
    assert done.code == 0
    out = done.out.decode().splitlines()
    assert out[1].split()[1:3] == ["web", "new"]
    assert json.loads(out[2])["email"] == "ann@example.com"
    assert done.err == b""
    await listening(here, 0)


async def test_it_goes_on_while_the_input_is_open(here: Lobby) -> None:
    async with client(here.ground.ssh_line("-T", "atoll@gw")) as one:
        assert one.stdin is not None
        one.stdin.write(b"events --follow\n")
        await line(one)
        await listening(here, 1)
        one.stdin.write(b"whoami\n")
        await here.control.run("new --name web")
        assert (await line(one)).split()[1:3] == ["web", "new"]
        one.stdin.close()
        assert await line(one) == "ann@example.com"
        async with asyncio.timeout(20):
            assert await one.wait() == 0


async def test_it_ends_with_the_connection(here: Lobby) -> None:
    async with client(here.ground.ssh_line("-T", "atoll@gw")) as one:
        assert one.stdin is not None
        one.stdin.write(b"events --follow\n")
        await line(one)
        await listening(here, 1)
        one.kill()
        await listening(here, 0)


async def test_lines_of_a_client_that_is_gone_are_not_run(here: Lobby) -> None:
    async with client(here.ground.ssh_line("-T", "atoll@gw")) as one:
        assert one.stdin is not None
        one.stdin.write(b"events --follow\n")
        await line(one)
        one.stdin.write(b"new --name web\nnew --name db\n")
        await listening(here, 1)
        await read_ahead(here)
        one.kill()
        await listening(here, 0)
        await here.control.run("new --name last")
        assert [vm["vm_name"] for vm in (await here.control.data("ls"))["vms"]] == ["last"]


# --- on a terminal


async def test_at_the_prompt_until_ctrl_c(here: Lobby) -> None:
    with here.screen(columns=100) as screen:
        await screen.shows(".*", PROMPT)
        screen.type("events --follow\r")
        await screen.shows(".*", HEAD)
        await here.control.run("new --name web")
        await screen.shows(HEAD, f"{AT}web +new +ssh +laptop")
        screen.type("whoami\r")  # waits for the prompt
        await here.control.run("comment web x")
        await screen.shows(HEAD, f"{AT}web +new .*", f"{AT}web +comment .*")
        screen.type("\x03")
        await screen.shows("\\^C", PROMPT)
        await listening(here, 0)
        screen.type("whoami\r")
        await screen.shows("(desk|laptop) .*", PROMPT)  # of one moment, so in either order


async def test_on_a_terminal_of_its_own_until_ctrl_c(here: Lobby) -> None:
    with here.screen("events", "--follow", columns=100) as screen:
        await screen.shows(HEAD)
        await listening(here, 1)
        screen.type("\x03")
        assert await screen.ended() == 130
    await listening(here, 0)


async def test_a_terminal_that_goes_away_ends_it(here: Lobby) -> None:
    with here.screen("events", "--follow", columns=100) as screen:
        await screen.shows(HEAD)
        await listening(here, 1)
    await listening(here, 0)


# --- lists that stand for one another


async def test_without_a_terminal_every_list_is_printed(here: Lobby) -> None:
    await here.control.run("new --name web")
    async with client(here.ground.ssh_line("-T", "atoll@gw", "ls", "--watch")) as one:
        assert (await line(one)).split()[:2] == ["NAME", "STATUS"]
        assert (await line(one)).split()[:2] == ["web", "running"]
        await listening(here, 1)
        await here.control.run("pause web")
        assert await line(one) == ""
        assert (await line(one)).split()[:2] == ["NAME", "STATUS"]
        assert (await line(one)).split()[:2] == ["web", "paused"]
        one.kill()
        await listening(here, 0)


async def test_a_list_of_json_is_a_line(here: Lobby) -> None:
    async with client(here.ground.ssh_line("-T", "atoll@gw", "ls", "-w", "--json")) as one:
        assert json.loads(await line(one)) == {"vms": []}
        await listening(here, 1)
        await here.control.run("new --name web")
        assert json.loads(await line(one))["vms"][0]["vm_name"] == "web"


@pytest.mark.parametrize(("key", "code"), [("q", 0), ("\x04", 0), ("\x03", 130)])
async def test_on_a_terminal_it_is_drawn_in_place(here: Lobby, key: str, code: int) -> None:
    await here.control.run("new --name web")
    with here.screen("ls", "--watch", columns=60) as screen:
        await screen.shows("NAME +STATUS .*", "web +running .*", "q quit")
        await here.control.run("new --name db")
        await screen.shows("NAME .*", "db +running .*", "web +running .*", "q quit")
        assert screen.rows()[0].startswith("NAME")
        await here.control.run("pause web")
        await screen.shows("NAME .*", "db +running .*", "web +paused .*", "q quit")
        await here.control.run("rm db")
        await screen.shows("NAME .*", "web +paused .*", "q quit")
        assert len(screen.rows()) == 3
        screen.drag(columns=20, rows=10)
        await screen.shows("NAME  STATUS  …", "web   paused  …", "q quit")
        screen.type(key)
        assert await screen.ended() == code
    await listening(here, 0)


async def test_at_the_prompt_it_leaves_the_last_list(here: Lobby) -> None:
    await here.control.run("new --name web")
    with here.screen(columns=60) as screen:
        await screen.shows(".*", PROMPT)
        screen.type("ls --watch\r")
        await screen.shows("NAME .*", "web +running .*", "q quit")
        await here.control.run("pause web")
        await screen.shows("NAME .*", "web +paused .*", "q quit")
        screen.type("\x03")
        await screen.shows("\\^C", PROMPT)
        assert any(row.startswith("web   paused") for row in screen.rows())
        screen.type("whoami\r")
        await screen.shows("(desk|laptop) .*", PROMPT)
    await listening(here, 0)


async def test_more_than_the_screen_holds(here: Lobby) -> None:
    for number in range(9):
        await here.control.run(f"new --name web-{number}x")
    with here.screen("ls", "--watch", columns=60, rows=6) as screen:
        await screen.shows("NAME .*", *["web-.*"] * 4, "1-5 of 10  q quit")
        await here.control.run("rm web-0x")
        await screen.shows("NAME .*", "web-1x .*", *["web-.*"] * 3, "1-5 of 9  q quit")
        screen.type("x\x07q")
        assert await screen.ended() == 0


async def test_a_terminal_without_a_movable_cursor_gets_every_list(here: Lobby) -> None:
    with here.screen("ls", "--watch", columns=70, term="dumb") as screen:
        await screen.shows("No VMs. Try: new")
        await listening(here, 1)
        await here.control.run("new --name web")
        await screen.shows("NAME .*", "web +running .*")
        assert b"\x1b" not in screen.received
        screen.type("\x03")
        assert await screen.ended() == 130


@asynccontextmanager
async def connection(here: Lobby) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """One of ann's, by another client than OpenSSH's."""
    key = str(here.ground.folder / "ann")
    async with asyncssh.connect(
        "127.0.0.1",
        here.ground.door.port,
        username="atoll",
        client_keys=[key],
        known_hosts=None,
        config=[],
    ) as connected:
        yield connected
