"""What the engine makes of what a QEMU tells by itself: real process, real socket, any event."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.base.aio import poll
from atoll.base.errors import Unavailable
from atoll.engine.qemu.machine import CONSOLE_CHARS
from atoll.engine.space import HALTED
from atoll.rpc.messages import VmState
from fakes.monitor import event
from framework.lone_vm import HEARD_S, VM, LoneVm, lone_vm

FULL = event("BLOCK_IO_ERROR", {"nospace": True, "device": "disk"})
OFF = event("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"})
ODD = {
    "unknown": event("DEVICE_ON_FIRE", {"device": "vm-zzzzzzzzzzzz"}),
    "data of no type": event("SHUTDOWN", None),
    "data is a list": event("BLOCK_IO_ERROR", [True]),
    "reason is a list": event("SHUTDOWN", {"reason": ["guest-shutdown"]}),
    "nospace is a number": event("BLOCK_IO_ERROR", {"nospace": 1}),
    "name is a number": event(7, {}),
    "half a character": event("\ud800", {"reason": "\ud800"}),
    "large": event("SHUTDOWN", {"reason": "x" * (9 << 20)}),
}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[LoneVm]:
    async with lone_vm(tmp_path) as made:
        await made.watch()
        yield made


async def test_a_guest_that_powers_off_is_stopped_without_a_problem(world: LoneVm) -> None:
    world.monitor.say(OFF)
    await world.until(lambda: world.machine.ended != "", "the event")
    assert (world.state, world.kinds()) == (VmState.RUNNING, [])  # while there is a process
    assert await world.ends() == ""


async def test_an_end_without_a_word_is_a_problem(world: LoneVm) -> None:
    assert await world.ends() == "qemu ended: killed"


async def test_a_full_pool_is_told_once(world: LoneVm) -> None:
    world.monitor.say(FULL * 2 + OFF)
    await world.until(lambda: world.machine.ended != "", "the last event")
    assert (world.state, world.kinds()) == (VmState.RUNNING, ["pool-full"])
    assert world.told[0].detail == HALTED
    assert await world.ends() == ""  # it is halted no more


async def test_a_late_word_of_a_machine_that_was_ended_says_nothing(world: LoneVm) -> None:
    assert await world.ends()
    before = world.kinds()
    world.service.heard(world.machine, "BLOCK_IO_ERROR", {"nospace": True})
    assert (world.kinds(), world.service.space.problem(VM)) == (before, "")


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
async def test_odd_events_change_nothing(world: LoneVm, odd: bytes) -> None:
    world.monitor.say(odd + FULL)
    await world.until(lambda: world.kinds() == ["pool-full"], "the event after it")
    assert world.state is VmState.RUNNING
    assert await world.ends() == "qemu ended: killed"


@pytest.mark.parametrize(
    "sent",
    [event("X", "x" * (11 << 20)), event([], {}), b"\xff\xfe\n"],
    ids=["huge", "list", "no text"],
)
async def test_a_monitor_that_cannot_be_read_costs_only_its_own_vm(
    world: LoneVm, sent: bytes
) -> None:
    async with world.machine.qmp.listening("X"):
        world.monitor.say(sent)

        async def broken() -> bool | None:
            try:
                await world.machine.stop()
            except Unavailable:
                return True
            return None

        await poll(broken, seconds=HEARD_S, what="the monitor to break off")
    assert world.state is VmState.RUNNING
    assert await world.ends() == "qemu ended: killed"


async def test_answers_of_another_type_are_no_defect(world: LoneVm) -> None:
    answers: tuple[object, ...] = ([], "running", None, {"status": ["running"]})
    for answer in answers:
        world.monitor.answers["query-status"] = answer
        assert await world.machine.status() != "running"


async def test_the_console_is_read_twice(world: LoneVm) -> None:
    """QEMU forgets what was read; the newest part is asked for again and again."""
    for printed, said in (("boot\n", "boot\n"), ("", "boot\n"), ("login: ", "boot\nlogin: ")):
        world.monitor.answers["ringbuf-read"] = printed
        assert await world.machine.console() == said
    world.monitor.answers["ringbuf-read"] = "x" * (CONSOLE_CHARS + 1)
    assert await world.machine.console() == "x" * CONSOLE_CHARS
