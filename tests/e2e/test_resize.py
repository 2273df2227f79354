"""`resize` on real VMs: a disk grows under a running guest, memory and vCPUs change at the restart."""

from __future__ import annotations

import pytest

from framework.atoll import Atoll

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]
GIB = 1 << 30


async def inside(atoll: Atoll, vm: str, line: str) -> str:
    return (await atoll.ssh(line, user=vm)).out.decode().strip()


async def root_bytes(atoll: Atoll, vm: str) -> int:
    return int(await inside(atoll, vm, "df --output=size -B1 / | tail -n 1"))


async def disk_bytes(atoll: Atoll, vm: str) -> int:
    return int(await inside(atoll, vm, "cat /sys/block/vda/size")) * 512


async def test_a_disk_grows_under_a_running_vm(atoll: Atoll) -> None:
    await atoll.command("new --name growing")
    await inside(atoll, "growing", "systemd-run -q --user --unit keep sleep 1h; echo kept >kept")
    done = await atoll.command("resize growing --disk 12")
    assert (done["disk_new_bytes"], "problem" in done) == (12 * GIB, False)
    assert await disk_bytes(atoll, "growing") == 12 * GIB
    assert await root_bytes(atoll, "growing") > 11 * GIB
    assert await inside(atoll, "growing", "systemctl --user is-active keep; cat kept") == (
        "active\nkept"
    )
    # What is written beyond the old end survives a clone, a pause and a boot.
    await inside(atoll, "growing", "fallocate -l 9G big && echo end >>big && sync")
    await atoll.command("cp growing grown")
    assert await inside(atoll, "grown", "systemctl --user is-active keep") == "active"
    assert await inside(atoll, "grown", "tail -c 4 big") == "end"
    assert await root_bytes(atoll, "grown") > 11 * GIB
    await atoll.command("pause growing")
    await atoll.command("resize growing --disk 14")
    assert (await atoll.command("resume growing"))["cold_booted"] == "false"
    assert await root_bytes(atoll, "growing") > 13 * GIB
    assert await inside(atoll, "growing", "systemctl --user is-active keep") == "active"
    await atoll.command("restart growing")
    assert await disk_bytes(atoll, "growing") == 14 * GIB
    assert await inside(atoll, "growing", "cat kept; tail -c 4 big") == "kept\nend"
    await atoll.command("rm growing grown")


async def test_memory_and_cpus_change_at_the_restart(atoll: Atoll) -> None:
    await atoll.command("new --name other")
    before = await inside(atoll, "other", "nproc; awk '/^MemTotal/ {print $2}' /proc/meminfo")
    done = await atoll.command("resize other --cpu 2 --memory 640M")
    assert done["restart_needed"] is True
    now = await inside(atoll, "other", "nproc; awk '/^MemTotal/ {print $2}' /proc/meminfo")
    assert now == before
    await atoll.command("pause other")
    assert (await atoll.command("resume other"))["cold_booted"] == "false"
    await atoll.command("restart other")
    assert await inside(atoll, "other", "nproc") == "2"
    kib = int(await inside(atoll, "other", "awk '/^MemTotal/ {print $2}' /proc/meminfo"))
    assert 540 << 10 < kib < 640 << 10
    await atoll.command("pause other")
    assert (await atoll.command("resume other"))["cold_booted"] == "false"
    await atoll.command("rm other")
