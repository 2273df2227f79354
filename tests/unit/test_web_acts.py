"""Acts: what is remembered of them, for whom, and what is said of one that control did not finish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from atoll.base.aio import TaskGroup
from atoll.base.errors import Exhausted, NotFound, Unavailable
from atoll.commands.reply import Reply
from atoll.domain.account import Account, Caller, Door
from atoll.doors.web.acts import AT_ONCE, HELD, OWN, Act, Acts


def person(name: str) -> Caller:
    return Caller(account=Account(id=f"acct-{name}", email=f"{name}@example.com"), door=Door.WEB)


ANN, BOB = person("ann"), person("bob")


class Language:
    """Lines that take until they may end."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def execute(
        self,
        caller: Caller,
        line: str,
        *,
        stdin: bytes = b"",
        progress: Callable[[str], None] | None = None,
    ) -> Reply:
        """See Executing."""
        await self.may_end.wait()
        return Reply(data={}, text=line)


class House:
    """Acts that are running."""

    def __init__(self) -> None:
        self.language = Language()
        self.acts = Acts(language=self.language)
        self.task: asyncio.Task[None] | None = None

    async def done(self, caller: Caller) -> Act:
        act = self.acts.start(caller, "whoami", command="whoami")
        await act.over.wait()
        return act


@pytest.fixture(name="house")
async def _house() -> AsyncIterator[House]:
    house = House()
    async with TaskGroup() as group:
        house.task = group.create_task(house.acts.run())
        await asyncio.sleep(0)
        yield house
        house.task.cancel()


async def test_whoever_runs_much_loses_results_of_their_own(house: House) -> None:
    of_bob = await house.done(BOB)
    first = await house.done(ANN)
    newest = [await house.done(ANN) for _ in range(HELD)][-OWN:]
    assert house.acts.get(BOB, of_bob.id) is of_bob
    assert [house.acts.get(ANN, act.id) for act in newest] == newest
    with pytest.raises(NotFound):
        house.acts.get(ANN, first.id)


async def test_of_many_people_the_oldest_results_go(house: House) -> None:
    people = [person(str(number)) for number in range(HELD + 1)]
    acts = [await house.done(who) for who in people]
    with pytest.raises(NotFound):
        house.acts.get(people[0], acts[0].id)
    assert house.acts.get(people[1], acts[1].id) is acts[1]


async def test_what_is_under_way_is_not_forgotten(house: House) -> None:
    house.language.may_end.clear()
    for number in range(HELD):
        house.acts.start(person(str(number // AT_ONCE)), "new", command="new")
    with pytest.raises(Exhausted, match=f"{HELD} commands"):
        house.acts.start(BOB, "new", command="new")


async def test_control_that_stops_says_so_of_what_it_did_not_finish(house: House) -> None:
    house.language.may_end.clear()
    act = house.acts.start(ANN, "new --name web", command="new")
    await asyncio.sleep(0)
    assert house.task is not None
    house.task.cancel()
    await act.over.wait()
    assert act.error is not None
    assert "control stopped" in act.error.message
    assert act.exit != 0
    with pytest.raises(Unavailable, match="stopping"):
        house.acts.start(ANN, "whoami", command="whoami")
