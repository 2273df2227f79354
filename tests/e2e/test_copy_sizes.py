"""`cp` with another size, on real VMs: a larger disk keeps the machine running, other memory boots."""

from __future__ import annotations

import pytest

from framework.atoll import Atoll

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(400)]
GIB = 1 << 30


async def said(atoll: Atoll, vm: str, line: str) -> str:
    return (await atoll.ssh(line, user=vm)).out.decode().strip()


async def test_copies_of_other_sizes(atoll: Atoll) -> None:
    await atoll.command("new --name sized")
    await said(atoll, "sized", "systemd-run -q --user --unit keep sleep 1h; echo kept >kept")
    larger = await atoll.command("cp sized larger --disk 12G")
    assert larger["cold_booted"] is False
    assert await said(atoll, "larger", "systemctl --user is-active keep") == "active"
    assert int(await said(atoll, "larger", "df --output=size -B1 / | tail -n 1")) > 11 * GIB
    other = await atoll.command("cp sized other --memory 640M")
    assert (other["cold_booted"], other["state"]) == (True, "running")
    assert await said(atoll, "other", "cat kept") == "kept"
    assert await said(atoll, "other", "systemctl --user is-active keep || true") == "inactive"
    kib = int(await said(atoll, "other", "awk '/^MemTotal/ {print $2}' /proc/meminfo"))
    assert 540 << 10 < kib < 640 << 10
    assert await said(atoll, "sized", "systemctl --user is-active keep") == "active"
    assert await said(atoll, "sized", "echo more >more; cat more kept") == "more\nkept"
    await atoll.command("rm sized larger other")
