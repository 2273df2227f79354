"""A new VM's setup script, on real VMs: it runs once, whatever is done to the VM meanwhile."""

from __future__ import annotations

import json

import pytest

from atoll.base.aio import poll
from framework.atoll import Atoll

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

# Says who it is and waits for a file; `begun` has a line per run.
SCRIPT = r"""#!/bin/bash
echo "begun by $(id -un) in $HOME for $MODE on $(hostname)" >>/root/begun
echo said on stdout
read -r line || echo no input >>/root/begun
until [ -e /root/go ]; do sleep 0.2; done
echo done >>/root/begun
nohup sleep 1000 >/dev/null 2>&1 &
"""
STATE = (
    "systemctl show -p ActiveState --value exe-setup; systemctl show -p Result --value exe-setup"
)


async def inside(atoll: Atoll, vm: str, line: str) -> str:
    return (await atoll.ssh(line, user=vm)).out.decode().strip()


async def state(atoll: Atoll, vm: str) -> list[str]:
    return (await inside(atoll, vm, STATE)).split("\n")


async def ended(atoll: Atoll, vm: str) -> list[str]:
    """State and result of the unit once it runs no more."""

    async def check() -> list[str] | None:
        now = await state(atoll, vm)
        return now if now[0] not in ("activating", "deactivating") else None

    return await poll(check, seconds=120, what="the end of the setup script", every=0.5)


async def test_a_script_runs_once(atoll: Atoll) -> None:
    line = "new --name scripted --env 'MODE=a b' --setup-script - --json"
    made = json.loads((await atoll.ssh(line, stdin=SCRIPT.encode())).out)
    assert made["setup"] == "running"

    async def begun() -> str | None:
        said = await inside(atoll, "scripted", "sudo cat /root/begun 2>/dev/null || true")
        return said if "no input" in said else None

    said = await poll(begun, seconds=120, what="the setup script", every=0.5)
    assert said == "begun by root in /root for a b on scripted\nno input"
    assert (await state(atoll, "scripted"))[0] == "activating"
    assert await inside(atoll, "scripted", "test -e /exe.dev/setup || echo absent") == "absent"
    assert await inside(atoll, "scripted", "bash -lc 'echo $MODE'") == "a b"

    # The clone goes on where its parent was; a copy of the disk alone does not begin again.
    await atoll.command("cp scripted twin")
    await atoll.command("cp scripted disk-only --memory 640M")
    assert (await state(atoll, "twin"))[0] == "activating"
    assert await state(atoll, "disk-only") == ["inactive", "success"]
    assert "done" not in await inside(atoll, "disk-only", "sudo cat /root/begun")
    assert await inside(atoll, "disk-only", "sudo ls -A /var/lib/atoll") == ""
    for vm in ("scripted", "twin"):
        await inside(atoll, vm, "sudo touch /root/go")
        assert await ended(atoll, vm) == ["inactive", "success"]
        assert (await inside(atoll, vm, "sudo cat /root/begun")).count("begun by") == 1
        assert await inside(atoll, vm, "sudo ls -A /var/lib/atoll") == ""
        assert await inside(atoll, vm, "pgrep -fx 'sleep 1000' | wc -l") == "1"
        log = await inside(atoll, vm, "journalctl -u exe-setup -o cat")
        assert log.count("said on stdout") == 1

    await atoll.command("restart scripted")
    assert await state(atoll, "scripted") == ["inactive", "success"]
    assert (await inside(atoll, "scripted", "sudo cat /root/begun")).count("begun by") == 1
    await atoll.command("rm scripted twin disk-only")


async def test_a_restart_half_way_does_not_begin_again(atoll: Atoll) -> None:
    script = r"echo x >>/root/begun\nsync\nsleep 1000"
    await atoll.ssh(f"new --name cut --setup-script '{script}'")

    async def begun() -> bool | None:
        done = await atoll.ssh("sudo test -s /root/begun", user="cut", check=False)
        return done.code == 0 or None

    await poll(begun, seconds=120, what="the setup script", every=0.5)
    await atoll.command("restart cut")
    assert await state(atoll, "cut") == ["inactive", "success"]
    assert await inside(atoll, "cut", "sudo cat /root/begun; sudo ls -A /var/lib/atoll") == "x"
    await atoll.command("rm cut")


async def test_a_script_that_fails_says_so(atoll: Atoll) -> None:
    await atoll.ssh(r"new --name failing --setup-script '#!/bin/sh\necho it broke\nexit 7'")
    assert await ended(atoll, "failing") == ["failed", "exit-code"]
    # As the SDK of exe.dev looks for it.
    asked = "systemctl show -p ExecMainStatus --value exe-setup; ls -A /var/lib/atoll;"
    asked += " journalctl -b _SYSTEMD_UNIT=exe-setup.service _TRANSPORT=stdout -o cat"
    assert await inside(atoll, "failing", asked) == "7\nit broke"
    alias = "systemctl show -p Id --value atoll-setup"
    assert await inside(atoll, "failing", alias) == "exe-setup.service"
    await atoll.command("rm failing")
