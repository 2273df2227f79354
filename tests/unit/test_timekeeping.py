"""Guests are told the time when our own clock is set, and not while something is done to them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

from atoll.base.aio import TaskGroup, poll
from atoll.base.errors import Unavailable
from atoll.engine.qemu.machine import Machine
from atoll.engine.timekeeping import keep_time

DAY_S = 86_400.0


@dataclass
class Guest:
    """What timekeeping uses of a machine; answers, or does not."""

    vm: str
    answers: bool = True
    told: int = 0

    @property
    def agent(self) -> Guest:
        return self

    async def clock(self, unix_time_ns: int, *, seconds: float) -> None:
        assert abs(unix_time_ns - time.time_ns()) < seconds * 1e9
        self.told += 1
        if not self.answers:
            raise Unavailable(f"guest agent of {self.vm} is silent")


@dataclass
class Node:
    """Two guests and a clock that can be set."""

    guests: dict[str, Guest]
    busy: set[str] = field(default_factory=set)
    set_by_s: float = 0.0
    looks: int = 0

    def wall(self) -> float:
        self.looks += 1
        return time.time() + self.set_by_s

    async def looked(self, times: int = 3) -> None:
        """Wait until the clock was looked at some more."""
        end = self.looks + times

        async def done() -> bool | None:
            return self.looks >= end or None

        await poll(done, seconds=10, what="looks at the clock", every=0.002)


@asynccontextmanager
async def node(*guests: Guest) -> AsyncIterator[Node]:
    made = Node({guest.vm: guest for guest in guests})
    machines = cast("dict[str, Machine]", made.guests)
    async with TaskGroup() as group:
        task = group.create_task(
            keep_time(machines, made.busy.__contains__, look_s=0.005, wall=made.wall)
        )
        await made.looked()
        yield made
        task.cancel()


async def test_once_at_the_start_and_not_while_the_clock_runs_on() -> None:
    guest = Guest("one")
    async with node(guest) as here:
        await here.looked(10)
        assert guest.told == 1


async def test_a_step_either_way_is_told_to_all_once() -> None:
    silent, guest = Guest("a-silent-one", answers=False), Guest("one")
    async with node(silent, guest) as here:
        for count, set_by_s in enumerate((2 * DAY_S, -3 * DAY_S, 0.0), start=2):
            here.set_by_s = set_by_s
            await here.looked(10)
            assert (silent.told, guest.told) == (count, count)


async def test_a_busy_one_is_told_afterwards() -> None:
    guest, gone = Guest("one"), Guest("two")
    async with node(guest, gone) as here:
        here.busy |= {"one", "two"}
        here.set_by_s = DAY_S
        await here.looked()
        assert (guest.told, gone.told) == (1, 1), "as at the start"
        del here.guests["two"]
        here.busy.clear()

        async def told() -> bool | None:
            return guest.told == 2 or None

        await poll(told, seconds=10, what="the time for a guest that is free again", every=0.005)
        await asyncio.wait_for(here.looked(10), 10)
        assert (guest.told, gone.told) == (2, 1)
