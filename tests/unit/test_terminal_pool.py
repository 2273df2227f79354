"""All terminals: whose they are, how many, and when one ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from atoll.base.aio import poll
from atoll.base.errors import Conflict, Exhausted, NotFound
from atoll.commands.reply import Reply
from atoll.domain.account import Account, Caller, Route
from atoll.doors.web.terminal import pool
from atoll.doors.web.terminal.client import Client
from atoll.doors.web.terminal.pool import Terminals
from atoll.doors.web.terminal.terminal import Terminal
from atoll.services.changes import Changes
from framework.cloud import Clock
from framework.fountain import Fountains

ANN = Account(id="acct-ann", email="ann@example.com")
BOB = Account(id="acct-bob", email="bob@example.com")


@dataclass(frozen=True)
class Signed:
    id: str
    account: Account
    key: str = "0123456789abcdef"


class House:
    """A pool, its clock, who is signed in, and a language that knows ann's VM web."""

    def __init__(self) -> None:
        self.clock = Clock(0.0)
        self.changes = Changes()
        self.signed = {"s1": Signed("s1", ANN), "s2": Signed("s2", ANN), "b": Signed("b", BOB)}
        self.lines: list[str] = []
        self.pool = Terminals(
            shells=Fountains(), language=self, sessions=self, changes=self.changes,
            monotonic=self.clock,
        )  # fmt: skip

    async def session(self, session_id: str) -> Signed | None:
        return self.signed.get(session_id)

    async def execute(self, caller: Caller, line: str) -> Reply:
        self.lines.append(f"{caller.account.id} {caller.door} {caller.source} {line}")
        if caller.account != ANN or line not in ("ssh web", "ls"):
            raise NotFound("VM 'web' not found", hint="Try: ls")
        if line == "ls":
            return Reply(data={"vms": []})
        route = Route(
            vm_id="vm-1", vm_name="web", address="", login_user="", host_ca="", caller=caller
        )
        return Reply(run_in_vm=route)

    async def opened(self, session: str = "s1", line: str = "ssh web") -> Terminal:
        return await self.pool.open(self.signed[session], line, source="192.0.2.1")


@pytest.fixture(name="house")
async def _house() -> AsyncIterator[House]:
    house = House()
    async with house.pool.serving():
        yield house


def attached(terminal: Terminal, session: str = "s1") -> Client:
    client = Client(session)
    terminal.attach(client, None, (80, 24))
    return client


async def test_a_shell_in_a_vm_is_the_command_ssh(house: House) -> None:
    terminal = await house.opened()
    assert house.lines == ["acct-ann web 192.0.2.1 ssh web"]
    assert (terminal.title, terminal.vm, terminal.account) == ("ssh web", "vm-1", ANN.id)
    assert len(terminal.id) == 22
    assert house.pool.find(ANN, terminal.id) is terminal


async def test_what_the_command_refuses_opens_nothing(house: House) -> None:
    with pytest.raises(NotFound, match="VM 'web' not found"):
        await house.opened("b")
    with pytest.raises(Conflict, match="no shell"):
        await house.opened(line="ls")
    assert house.pool.of(ANN) == house.pool.of(BOB) == []


async def test_anothers_terminal_does_not_exist(house: House) -> None:
    terminal = await house.opened()
    with pytest.raises(NotFound):
        house.pool.find(BOB, terminal.id)
    with pytest.raises(NotFound):
        house.pool.find(ANN, "x" * 22)
    house.pool.close(terminal)
    with pytest.raises(NotFound):
        house.pool.find(ANN, terminal.id)


async def test_the_oldest_that_nobody_looks_at_makes_room(house: House) -> None:
    terminals = []
    for _ in range(pool.PER_ACCOUNT):
        house.clock.time += 1
        terminals.append(await house.opened(line=""))
    attached(terminals[0])
    terminals[2].finish("over")
    await house.opened(line="")
    assert terminals[2] not in house.pool.of(ANN), "one that is over goes first"
    await house.opened(line="")
    assert terminals[1].over == "It made room for a newer terminal."
    assert terminals[0] in house.pool.of(ANN)
    for terminal in house.pool.of(ANN):
        attached(terminal)
    with pytest.raises(Exhausted, match=f"{pool.PER_ACCOUNT} terminals are open"):
        await house.opened(line="")
    theirs = await house.opened("b", line="")
    assert house.pool.of(BOB) == [theirs], "the limit is ann's"


async def test_a_vm_that_is_gone_ends_its_terminals(house: House) -> None:
    shell, prompt = await house.opened(), await house.opened(line="")
    house.pool.end_vm("vm-2")
    assert not shell.is_over
    house.pool.end_vm("vm-1")
    assert (shell.over, prompt.is_over) == ("The VM was paused or stopped.", False)
    assert shell in house.pool.of(ANN), "its last words can be read for a while"


async def test_signing_out_ends_what_the_browser_opened_and_lets_its_pages_go(house: House) -> None:
    mine, other = await house.opened("s1"), await house.opened("s2")
    stays, goes = attached(other, "s2"), attached(other, "s1")
    del house.signed["s1"]
    house.changes.bump()

    async def ended() -> bool | None:
        return mine.is_over or None

    await poll(ended, seconds=5, what="the end of the terminal", every=0.001)
    assert mine.over == "You have signed out."
    assert not other.is_over
    assert (goes.gone, stays.gone) == ("You have signed out.", "")


async def test_one_that_nobody_has_looked_at_for_long_ends(house: House) -> None:
    alone, watched, ended = [await house.opened() for _ in range(3)]
    attached(watched)
    client = attached(alone)
    house.clock.time = 1000.0
    alone.detach(client, house.pool.now())
    ended.finish("over")
    await house.pool.look()
    assert house.pool.of(ANN) == [alone, watched]
    house.clock.time += pool.UNATTENDED_S
    await house.pool.look()
    assert not alone.is_over
    house.clock.time += 1
    await house.pool.look()
    assert alone.over == "Nobody has looked at it for long."
    assert house.pool.of(ANN) == [watched]


async def test_stopping_says_so() -> None:
    house = House()
    async with house.pool.serving():
        terminal = await house.opened()
        attached(terminal)
    assert terminal.over == "Atoll is stopping; VMs go on running."
    with pytest.raises(Conflict, match="control is stopping"):
        await house.opened()
