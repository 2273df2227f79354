"""Many commands at once: on one VM they take turns or are refused clearly, on many they all succeed."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

import pytest

from atoll.base.errors import AtollError, Conflict, NotFound
from framework.agreement import agreed, answer_or_error, new, statuses
from framework.atoll import Atoll

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(400)]

CROWD = 30


@pytest.mark.parametrize(
    ("first", "second"),
    [("pause duel", "resume duel"), ("pause duel", "rm duel"), ("cp duel duel-copy", "pause duel"),
     ("new --name twin", "new --name twin")],
)  # fmt: skip
async def test_two_commands_on_one_vm_take_turns_or_are_refused(
    atoll: Atoll, first: str, second: str
) -> None:
    found = await statuses(atoll)
    if "duel" not in found:
        await new(atoll, "duel")
    elif found["duel"] != "running":
        await atoll.command("resume duel")
    answers = await asyncio.gather(answer_or_error(atoll, first), answer_or_error(atoll, second))
    failed = [answer for answer in answers if isinstance(answer, AtollError)]
    assert len(failed) < 2, failed
    for error in failed:
        assert isinstance(error, Conflict | NotFound), repr(error)  # NotFound: `rm` was first
        assert "duel" in error.message or "twin" in error.message
    if first == second:
        assert len(failed) == 1, "one name, one VM"
    await agreed(atoll)
    for name in ("duel-copy", "twin"):
        if name in await statuses(atoll):
            await atoll.command(f"rm {name}")


async def test_thirty_at_once_all_succeed(
    atoll: Atoll, record_property: Callable[[str, object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    await new(atoll, "alone")
    one_s = time.monotonic() - began
    names = [f"crowd-{number}x" for number in range(CROWD)]
    began = time.monotonic()
    made = await asyncio.gather(*(new(atoll, name) for name in names))
    all_s = time.monotonic() - began
    assert [vm["vm_name"] for vm in made] == names
    assert not any(vm["cold_booted"] for vm in made)
    found = await statuses(atoll)
    assert {found[name] for name in names} == {"running"}
    hosts = await asyncio.gather(*(atoll.ssh("hostname", user=name) for name in names[::10]))
    assert [host.out.decode().strip() for host in hosts] == names[::10]
    await agreed(atoll)
    await atoll.command(f"rm alone {' '.join(names)}")
    await agreed(atoll)
    record_property("one_s", one_s)
    record_property("all_s", all_s)
    with capsys.disabled():
        ratio = all_s / one_s
        sys.stdout.write(f"\n{CROWD} `new` in {all_s:.1f} s, one in {one_s:.1f} s: {ratio:.1f}x\n")
