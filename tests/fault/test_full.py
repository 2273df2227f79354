"""Full disks: of the pool, with a VM writing into it, and of the store."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from atoll.base.aio import poll
from atoll.base.errors import AtollError, Exhausted
from framework.agreement import agreed, answer_or_error, boot_id, new, record_of, statuses, vm_id
from framework.atoll import Atoll, running_atoll
from framework.small_disk import fill, small_disks

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(400)]

GIB, MIB = 1 << 30, 1 << 20
NOTICE_S = 90.0
LEAVE = 100 * MIB  # for the guest's first writes
WRITTEN = 250 * MIB
LINE = b"atoll\n"
PROBES = 20
ERRORS = "sudo dmesg --level err,crit,alert,emerg"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def small() -> AsyncIterator[Atoll]:
    """A cloud whose pool and store lie on disks that can be filled."""
    async with (
        small_disks(state_bytes=3 * GIB, control_bytes=16 * MIB) as disks,
        running_atoll(paths={"state": str(disks.state)}) as atoll,
    ):
        yield atoll


async def problem_of(atoll: Atoll, name: str) -> str:
    """As `ls` shows it."""
    (vm,) = [vm for vm in (await atoll.command("ls"))["vms"] if vm["vm_name"] == name]
    return str(vm.get("problem", ""))


async def halted(atoll: Atoll, name: str) -> None:
    """Wait until `ls` says that the VM waits for space."""

    async def seen() -> bool | None:
        return True if "pool is full" in await problem_of(atoll, name) else None

    await poll(seen, seconds=NOTICE_S, what="halting a VM that found no space", every=0.5)


async def test_a_full_pool_halts_a_vm_that_goes_on_unharmed(small: Atoll) -> None:
    await new(small, "writer")
    record = record_of(small, vm_id(small, "writer"))
    boot = await boot_id(small, "writer")
    errors = (await small.ssh(ERRORS, user="writer")).out
    ballast = fill(small.config.pool, leave_bytes=LEAVE)
    command = f"yes atoll | head -c {WRITTEN} > big && sync && {ERRORS}"
    writing = asyncio.get_running_loop().create_task(small.ssh(command, user="writer", check=False))
    await halted(small, "writer")

    with pytest.raises(Exhausted) as refused:
        await small.command("new --name refused")
    assert "pool is full" in refused.value.message
    with pytest.raises(Exhausted):
        await small.command("cp writer refused")
    with pytest.raises(Exhausted):
        await small.command("snap writer")
    assert await statuses(small) == {"writer": "running"}

    os.kill(await small.pid_of("engine"), signal.SIGKILL)  # the next one must not end it
    await agreed(small)
    await halted(small, "writer")
    assert not writing.done()

    ballast.unlink()
    done = await writing
    assert done.code == 0, done.err
    assert done.out == errors, "not one error more in the guest's kernel log"
    expected = hashlib.md5(LINE * (WRITTEN // len(LINE)) + LINE[: WRITTEN % len(LINE)]).hexdigest()
    read = "sudo sysctl -q vm.drop_caches=3; md5sum < big"
    assert (await small.ssh(read, user="writer")).out.decode().split()[0] == expected
    assert await boot_id(small, "writer") == boot
    assert record_of(small, vm_id(small, "writer")).pid == record.pid

    async def told() -> bool | None:
        return None if await problem_of(small, "writer") else True

    await poll(told, seconds=NOTICE_S, what="telling that the VM goes on", every=0.5)
    await new(small, "accepted")
    await small.command("rm accepted")
    await agreed(small)


async def test_a_vm_can_be_removed_while_the_pool_is_full_to_the_last_block(small: Atoll) -> None:
    await new(small, "doomed")
    ballast = fill(small.config.pool, leave_bytes=0)
    await small.command("rm doomed")
    assert "doomed" not in await statuses(small)
    ballast.unlink()
    await agreed(small)


async def test_a_full_store_refuses_clearly_and_leaves_nothing(small: Atoll) -> None:
    before = await statuses(small)
    ballast = fill(small.config.control_state, leave_bytes=0)
    refused: AtollError | None = None
    for number in range(PROBES):  # the log of the store may have room for a few writes
        answer = await answer_or_error(small, f"comment writer 'probe {number}'")
        if isinstance(answer, AtollError):
            refused = answer
            break
    assert isinstance(refused, Exhausted), repr(refused)
    with pytest.raises(Exhausted) as failed:
        await small.command("new --name unstored")
    assert "disk is full" in failed.value.message
    assert await statuses(small) == before

    ballast.unlink()
    await agreed(small)
    await new(small, "stored")
    await small.command("rm stored")
    await agreed(small)
