"""HAProxy or control killed while shares change and people look: drawn moments, one seed.

Three people ask for a VM's page all the time, each request on a connection of its own: its owner, a
friend whose share comes and goes, a stranger. What whoever shares is told must be so from then on,
whoever is killed meanwhile; nobody may see the page for as long as one request who should not.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from atoll.base.aio import TaskGroup, poll
from atoll.base.errors import AtollError, Unavailable
from framework.agreement import agreed, answer_or_error, replaced
from framework.atoll import Atoll
from framework.friend import friend
from framework.inner_server import serve
from framework.visitor import Visitor, signed_in

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

VM, BOB = "guarded", "bob@example.com"
SEED, ROUNDS = 20261126, 12
RETURNS_S = 2.0
STEADY_S = 5.5  # a child that lived this long is started again after the first pause


@dataclass(slots=True)
class Watcher:
    """Somebody who asks again and again, and what they may see."""

    name: str
    visitor: Visitor
    may: list[frozenset[bool]]  # the newest is true now: whether an answer may be the page
    answers: list[tuple[float, float]] = field(default_factory=list)  # when asked, and answered
    wrong: list[str] = field(default_factory=list)

    def shall(self, *shown: bool) -> None:
        """From now on the page is shown, or is not, or either while a command runs."""
        self.may.append(frozenset(shown))

    async def watch(self) -> None:
        """Ask until cancelled."""
        while True:
            await self.ask()
            await asyncio.sleep(0.02)

    async def ask(self) -> int | None:
        """The status of one request; None if nobody was asked, as while HAProxy is away.

        Nor is a 5xx an answer to whether they may: whose share ends has all streams of the VM cut.
        """
        first, began = len(self.may) - 1, time.monotonic()
        status = await self.visitor.ask()
        if status is None or status >= 500:
            return None
        self.answers.append((began, time.monotonic()))
        if (status == 200) not in frozenset().union(*self.may[first:]):
            self.wrong.append(f"{self.name} got {status}, may see it: {self.may[first:]}")
        return status


@dataclass(slots=True)
class World:
    """The three, before a VM whose share with the friend is known."""

    atoll: Atoll
    owner: Watcher
    bob: Watcher
    stranger: Watcher

    def all(self) -> tuple[Watcher, ...]:
        return self.owner, self.bob, self.stranger


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(atoll: Atoll) -> AsyncIterator[World]:
    await atoll.ssh("new", "--name", VM)
    await serve(atoll, VM)
    bob = await friend(atoll, "bob")
    await atoll.command(f"share add {VM} {BOB}")
    never, always = frozenset({False}), frozenset({True})
    yield World(
        atoll,
        owner=Watcher("owner", await signed_in(atoll, VM), [always]),
        bob=Watcher("bob", await signed_in(bob, VM), [always]),
        stranger=Watcher("stranger", Visitor(atoll, VM), [never]),
    )
    await atoll.command(f"rm {VM}")


@asynccontextmanager
async def watched(world: World) -> AsyncIterator[None]:
    """All three ask while the body runs; whatever was wrong is said at its end."""
    async with TaskGroup() as group:
        watching = [group.create_task(one.watch()) for one in world.all()]
        yield
        for task in watching:
            task.cancel()
    assert not [wrong for one in world.all() for wrong in one.wrong]


async def changed(world: World, shared: bool) -> bool:
    """Share with bob or end it; whether he may see the page then. A command cut short may be either."""
    verb = "add" if shared else "remove"
    world.bob.shall(*world.bob.may[-1], shared)
    answer = await answer_or_error(world.atoll, f"share {verb} {VM} {BOB}")
    if isinstance(answer, AtollError):
        assert isinstance(answer, Unavailable), answer

        async def told() -> dict[str, object] | None:
            shown = await answer_or_error(world.atoll, f"share show {VM}")
            return None if isinstance(shown, AtollError) else shown

        shown = await poll(told, seconds=30, what="control answering again")
        shared = BOB in json.dumps(shown["users"])

        async def follows() -> bool | None:
            return (await world.bob.ask() == 200) is shared or None

        await poll(follows, seconds=RETURNS_S, what="HAProxy following what control found")
    return shared


def rounds() -> Iterator[tuple[str, float]]:
    """Who is killed, and how long after the command began."""
    drawn = random.Random(SEED)
    for _ in range(ROUNDS):
        yield drawn.choice(["edge", "control"]), round(drawn.uniform(0, 0.25), 3)


async def test_killed_at_any_moment(world: World) -> None:
    atoll, away = world.atoll, []
    async with watched(world):
        for child, after_s in rounds():
            pid = await atoll.pid_of(child)
            wanted = True not in world.bob.may[-1]
            changing = asyncio.get_running_loop().create_task(changed(world, wanted))
            await asyncio.sleep(after_s)
            os.kill(pid, signal.SIGKILL)
            killed = time.monotonic()

            async def back(since: float = killed) -> float | None:
                answers = world.owner.answers
                return next((at - since for began, at in answers if began > since), None)

            returned = await poll(back, seconds=30, what="an answer to the owner")
            shared = await changing
            world.bob.shall(shared)
            assert (await world.bob.ask() == 200) is shared
            away.append((child, round(returned, 2)))
            await replaced(atoll, child, pid)
            await agreed(atoll)
            await asyncio.sleep(STEADY_S)
    sys.stdout.write(f"\nback after {away}\n")
    assert max(seconds for _, seconds in away) < RETURNS_S, away
    for one in (world.owner, world.stranger):
        assert len(one.answers) > ROUNDS * 50
