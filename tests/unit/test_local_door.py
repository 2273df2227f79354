"""The local door and its caller, over a real socket; behind it a small language and one owner."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from atoll.base.aio import TaskGroup, poll
from atoll.base.errors import Conflict, Internal, Invalid, NotFound, Unavailable
from atoll.commands.reply import Piece, Reply
from atoll.config import Config, Paths, render
from atoll.doctor import control as doctor
from atoll.doctor.finding import Level
from atoll.domain.account import Account, Caller, Door, Route
from atoll.doors.local import LocalDoor, PublicKeys, socket_path
from atoll.host_setup.local import Local
from atoll.services.issuer import Issuer
from atoll.services.keyring import KeyRing
from framework.clients import client

KEY = "ssh-ed25519 AAAAkey"
ROUTE = Route(
    vm_id="vm-1",
    vm_name="web",
    address="10.0.0.2",
    login_user="atoll",
    host_ca="ca",
    caller=Caller(account=Account(id="acct-ann", email="ann@example.com"), door=Door.SSH),
)


@dataclass
class Town:
    """One account at most; a language of a few words."""

    account: Account | None = None
    problems: list[str] = field(default_factory=list)
    goings_on: int = 0  # replies that go on and that somebody listens to
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def owner(self) -> Account:
        if self.account is None:
            raise NotFound("no owner yet", hint="Try: make up")
        return self.account

    async def ensure_owner(self, *, email: str, key_line: str, label: str) -> Account:
        assert key_line == KEY
        self.account = self.account or Account(id="acct-1", email=email, is_admin=True)
        return self.account

    async def execute(
        self,
        caller: Caller,
        line: str,
        *,
        stdin: bytes = b"",
        progress: Callable[[str], None] | None = None,
    ) -> Reply:
        assert caller.door is Door.LOCAL
        match line:
            case "fail":
                raise Conflict("web is running", hint="Try: rm web")
            case "defect":
                raise ZeroDivisionError("never")
            case "enter":
                return Reply(run_in_vm=ROUTE, command="true")
            case "list":
                return Reply(data=[1])
            case "export":
                return Reply(data=0, text="0", more=_two())
            case "follow" | "watch" | "break":
                more = self._more(fails=line == "break")
                return Reply(data=0, text="0", more=more, is_redrawn=line == "watch")
        if progress:
            progress("half way")
        return Reply(data={"line": line, "as": caller.account.email}, text=line, exit=3)

    async def _more(self, *, fails: bool) -> AsyncGenerator[Piece, None]:
        self.goings_on += 1
        try:
            for number in range(1, 3):
                yield Piece(data=number, text=str(number))
            if fails:
                raise Unavailable("the store failed", hint="Try: atoll doctor")
            await self.news.wait()
            while True:
                yield Piece(data="x" * 1000, text="x" * 1000)
        finally:
            self.goings_on -= 1

    async def left(self) -> None:
        """Wait until nobody listens any more."""

        async def check() -> bool | None:
            return self.goings_on == 0 or None

        await poll(check, seconds=10, what="the client to be seen leaving", every=0.005)


async def _two() -> AsyncGenerator[Piece, None]:
    for number in (1, 2):
        yield Piece(data=number, text=str(number))


@asynccontextmanager
async def door(folder: Path, town: Town) -> AsyncIterator[Local]:
    path = folder / "control.sock"
    keys = PublicKeys(gateway="ssh-ed25519 AAAAg", host_ca="ssh-ed25519 AAAAc")
    issuer = Issuer(url="https://atoll.localhost:8443", folder=folder)
    ring = KeyRing(folder / "token_keys.json")
    served = LocalDoor(
        path=path, language=town, owners=town, keys=keys, issuer=issuer, signing=ring,
        changed=town.news.set, problems=lambda: town.problems,
    )  # fmt: skip
    async with served.serving():
        assert path.stat().st_mode & 0o777 == 0o600
        yield Local(socket=path)


async def test_keys_are_rotated_and_the_edge_is_told(tmp_path: Path) -> None:
    town = Town()
    async with door(tmp_path, town) as local:
        kid = await local.rotate_key(revoke=False)
        assert town.news.is_set()
        kids = KeyRing(tmp_path / "token_keys.json").table()
        assert len(kids) == 3
        assert KeyRing(tmp_path / "token_keys.json").signing.kid == kid
        await local.rotate_key(revoke=True)
        assert not kids.keys() & KeyRing(tmp_path / "token_keys.json").table().keys()


async def ask(folder: Path, line: bytes) -> dict[str, Any]:
    """What the door answers to these bytes."""
    reader, writer = await asyncio.open_unix_connection(folder / "control.sock")
    try:
        writer.write(line)
        answer: dict[str, Any] = json.loads(await asyncio.wait_for(reader.readline(), 10))
        return answer
    finally:
        writer.close()


async def test_a_command_runs_as_the_owner_and_shows_progress(tmp_path: Path) -> None:
    seen: list[str] = []
    async with door(tmp_path, Town()) as local:
        assert await local.ensure_owner(email="a@b", key=KEY, label="x") == "a@b"
        reply = await local.execute("ls 'a b'", progress=seen.append)
    assert reply == {"text": "ls 'a b'", "data": {"line": "ls 'a b'", "as": "a@b"}, "exit": 3}
    assert seen == ["half way"]


async def test_errors_arrive_as_they_were_raised(tmp_path: Path) -> None:
    async with door(tmp_path, Town()) as local:
        with pytest.raises(NotFound, match="no owner yet"):
            await local.execute("ls")
        await local.ensure_owner(email="a@b", key=KEY, label="")
        with pytest.raises(Conflict) as failure:
            await local.execute("fail")
        assert failure.value.hint == "Try: rm web"
        with pytest.raises(Internal, match="ZeroDivisionError"):
            await local.execute("defect")
        with pytest.raises(Invalid, match="not commands in a VM"):
            await local.execute("enter")
        with pytest.raises(Internal, match="an object was due"):
            await local.data("list")


@pytest.mark.parametrize(
    ("line", "expected"), [("follow", ["0", "1", "2"]), ("watch", ["0", "\n1", "\n2"])]
)
async def test_what_goes_on_comes_until_the_client_leaves(
    tmp_path: Path, line: str, expected: list[str]
) -> None:
    town, seen = Town(Account(id="acct-1", email="a@b")), list[str]()

    async def all_seen() -> bool | None:
        return seen == expected or None

    async with door(tmp_path, town) as local, TaskGroup() as group:
        task = group.create_task(local.execute(line, more=seen.append))
        await poll(all_seen, seconds=10, what=str(expected), every=0.005)
        assert town.goings_on == 1
        task.cancel()
        await town.left()
        assert (await local.execute(line))["text"] == "0"  # whoever wants no more gets no more
        await town.left()


async def test_what_goes_on_says_why_it_breaks_off(tmp_path: Path) -> None:
    seen: list[str] = []
    async with door(tmp_path, Town(Account(id="acct-1", email="a@b"))) as local:
        with pytest.raises(Unavailable, match="the store failed") as failure:
            await local.execute("break", more=seen.append)
    assert failure.value.hint == "Try: atoll doctor"
    assert seen == ["0", "1", "2"]


async def test_whoever_does_not_read_is_not_written_for(tmp_path: Path) -> None:
    town = Town(Account(id="acct-1", email="a@b"))
    town.news.set()
    async with door(tmp_path, town):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "control.sock", limit=100)
        writer.write(b'{"do":"execute","line":"follow"}\n')
        async with asyncio.timeout(10):
            await reader.readexactly(100)
        assert town.goings_on == 1  # and held up: it would never let anybody else run
        writer.close()
        await town.left()


async def test_the_hosts_command_prints_what_goes_on(tmp_path: Path) -> None:
    town = Town(Account(id="acct-1", email="a@b"))
    folders = Paths(state=tmp_path / "state", run=tmp_path / "run", cache=tmp_path / "cache")
    config = tmp_path / "atoll.toml"
    config.write_text(render(Config(paths=folders)))
    folder = socket_path(folders.run).parent
    folder.mkdir(parents=True)
    source = str(Path(__file__).parents[2] / "src")
    environment = {**os.environ, "ATOLL_CONFIG": str(config), "PYTHONPATH": source}
    argv = [sys.executable, "-m", "atoll", "exec", "--", "follow"]
    async with door(folder, town), client(argv, env=environment) as one:
        assert one.stdout is not None
        async with asyncio.timeout(20):
            assert [await one.stdout.readline() for _ in range(3)] == [b"0\n", b"1\n", b"2\n"]
            one.stdout._transport.close()  # type: ignore[attr-defined]  # as `head -3` does
            town.news.set()
            assert await one.wait() == 141
            assert one.stderr is not None
            assert await one.stderr.read() == b""
        await town.left()


async def test_public_keys(tmp_path: Path) -> None:
    async with door(tmp_path, Town()) as local:
        assert await local.public_keys() == {
            "gateway_key": "ssh-ed25519 AAAAg",
            "host_ca": "ssh-ed25519 AAAAc",
        }
        assert await local.answers()
    assert not await local.answers()


async def test_signing_keys_are_replaced_for_good(tmp_path: Path) -> None:
    async with door(tmp_path, Town()) as local:
        kids = [await local.rotate_issuer() for _ in range(2)]
    assert len(set(kids)) == 2
    (kept,) = Issuer(url="", folder=tmp_path).jwks()["keys"]
    assert kept["kid"] == kids[1]


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"[]\n",
        b"{}\n",
        b'{"do":"shell"}\n',
        b'{"do":"execute"}\n',
        b'{"do":"execute","line":"ls","as":"root"}\n',
        b'{"do":"ensure-owner","email":"x","key":"k"}\n',
        b'{"do":"ensure-owner","email":"a@b","key":"k\\nk"}\n',
        b"\xff\xfe\n",
    ],
)
async def test_what_is_not_a_request_is_answered_with_an_error(tmp_path: Path, line: bytes) -> None:
    async with door(tmp_path, Town()):
        assert (await ask(tmp_path, line))["error"]["code"] == "invalid"


async def test_a_line_without_end_ends_the_connection_only(tmp_path: Path) -> None:
    async with door(tmp_path, Town()) as local:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "control.sock")
        writer.write(b"x" * (2 << 20))
        try:
            assert await asyncio.wait_for(reader.read(), 10) == b""
        except ConnectionResetError:
            pass  # the same answer when bytes of ours were still on the way
        finally:
            writer.close()
        assert await local.answers()


async def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not listen"):
        await Local(socket=tmp_path / "none.sock").execute("ls")


async def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    async with door(tmp_path, Town()):
        os.link(tmp_path / "control.sock", tmp_path / "kept")
    os.rename(tmp_path / "kept", tmp_path / "control.sock")
    async with door(tmp_path, Town()) as local:
        assert await local.answers()


async def test_what_goes_on_may_end(tmp_path: Path) -> None:
    town = Town()
    async with door(tmp_path, town) as local:
        await town.ensure_owner(email="ann@example.com", key_line=KEY, label="")
        heard: list[str] = []
        await local.execute("export", more=heard.append)
        assert heard == ["0", "1", "2"]


async def test_the_doctor_is_told_of_problems(tmp_path: Path) -> None:
    town = Town()
    async with door(tmp_path, town):
        (fine,) = await doctor.examine(tmp_path / "control.sock")
        assert fine.level is Level.OK
        town.problems = ["3 records of the audit are not written: the disk is full"]
        (bad,) = await doctor.examine(tmp_path / "control.sock")
        assert (bad.level, bad.found) == (Level.DEGRADED, town.problems[0])
    assert await doctor.examine(tmp_path / "control.sock") == []
