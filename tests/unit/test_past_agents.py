"""Today's engine against the guest agents of earlier releases, each a real process.

A VM keeps the agent it was made with, as long as it lives: an engine that leaves out what one of them
requires loses every VM that has it at the next `make down` and `make up`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from atoll.engine.agent import Empty, FrozenGuest, GuestFailed
from atoll.engine.boot import set_clock
from atoll.guest import wire
from atoll.rpc.messages import Identity
from framework.agent_process import PAST, TODAY, AgentProcess, guest_root, running
from framework.lone_vm import VM, LoneVm, lone_vm

AGENTS = {folder.name: folder for folder in sorted(PAST.iterdir())} | {"today": TODAY}
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb64\n-----END OPENSSH PRIVATE KEY-----\n"


@dataclass(frozen=True, kw_only=True)
class Guest:
    """One VM: today's engine on its outside, the agent under test inside `root`."""

    code: str
    vm: LoneVm
    process: AgentProcess
    root: Path

    async def become(self, hostname: str, *, fresh: bool) -> None:
        """Identify it as create and clone do (fresh), or as resume and restart."""
        identity = Identity(
            hostname=hostname,
            fresh=fresh,
            host_key=KEY if fresh else None,
            host_certificate="ssh-ed25519-cert-v01@openssh.com AAAA",
            user_ca="ssh-ed25519 AAAA ca",
            authorized_keys=(f"ssh-ed25519 AAAA {hostname}",),
        )
        record = self.vm.service.record(VM)
        await self.vm.boot.identify(self.vm.machine, record, identity)

    def inside(self, name: str) -> str:
        return (self.root / name).read_text()


@pytest.fixture(params=AGENTS)
async def guest(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Guest]:
    root = guest_root(tmp_path)
    async with lone_vm(tmp_path) as vm:
        socket = vm.machine.run / "agent.sock"
        with running(socket, root, code=AGENTS[request.param]) as process:
            await (await process.client()).close()  # it listens
            yield Guest(code=request.param, vm=vm, process=process, root=root)


async def test_it_boots_and_becomes_who_it_should_be(guest: Guest) -> None:
    """create and restart: wait for the boot, identify, and a `reboot` as a template's test asks."""
    (guest.root / "run/atoll-ready").write_text("running\n")
    await guest.vm.boot.wait_ready(guest.vm.machine)
    await guest.become("web", fresh=True)
    assert guest.inside("etc/hostname") == "web\n"
    assert guest.inside("etc/ssh/ssh_host_ed25519_key") == KEY
    hello = await guest.vm.machine.agent.hello(seconds=5)
    assert (hello.version, hello.system, hello.frozen) == (wire.VERSION, "running", False)
    assert hello.machine_id == guest.inside("etc/machine-id").strip()
    await guest.vm.machine.agent.shutdown("reboot", seconds=5)


async def test_it_comes_back_as_itself_with_new_keys(guest: Guest) -> None:
    """pause and resume, or restart: same machine, whatever its owner's keys are by now."""
    await guest.become("web", fresh=True)
    before = guest.inside("etc/machine-id")
    await guest.become("renamed", fresh=False)
    assert guest.inside("etc/machine-id") == before
    assert guest.inside("etc/hostname") == "renamed\n"
    assert guest.inside("etc/ssh/ssh_host_ed25519_key") == KEY
    assert "renamed" in "".join(
        path.read_text() for path in (guest.root / "etc/ssh").rglob("*") if path.is_file()
    )


async def test_it_takes_a_setup_script_or_the_vm_is_not_made(guest: Guest) -> None:
    """A script that would silently never run is worse than an error; images bring today's agent."""
    identity = Identity(hostname="web", fresh=True, setup_script="echo hi\n", env={"A": "b"})
    become = guest.vm.boot.identify(guest.vm.machine, guest.vm.service.record(VM), identity)
    if guest.code in ("ad5df47", "2278cad"):
        with pytest.raises(GuestFailed, match="takes neither setup script nor --env"):
            await become
        assert not (guest.root / "var/lib/atoll").exists()
    else:
        await become
        assert guest.inside("var/lib/atoll/setup") == "echo hi\n"
        assert guest.inside("etc/profile.d/atoll-env.sh") == "export A='b'\n"


async def test_it_is_cloned_and_the_clone_is_somebody_else(guest: Guest) -> None:
    """The parent holds still for the copy; its child is born frozen, on a larger disk."""
    await guest.become("web", fresh=True)
    parent = guest.inside("etc/machine-id")
    agent = guest.vm.machine.agent
    async with FrozenGuest(agent, held_seconds=30, seconds=5) as held:
        assert held.mounts == ("/",)
        assert (await agent.hello(seconds=5)).frozen
    assert held.held
    await agent.freeze(held_seconds=30, seconds=5)
    guest.vm.machine.resized = True
    await guest.become("web-next", fresh=True)
    assert guest.inside("etc/machine-id") != parent
    assert not (await agent.hello(seconds=5)).frozen
    assert (await agent.grow(seconds=5)).fs_bytes == 1 << 30


async def test_it_is_told_the_time(guest: Guest) -> None:
    await set_clock(guest.vm.machine)
    moved = await guest.vm.machine.agent.clock(time.time_ns(), seconds=5)
    assert moved.clock_moved_ns == 5  # what its kernel, a fake, answers


async def test_it_says_how_it_is(guest: Guest) -> None:
    (guest.root / "proc/uptime").write_text("12.5 20.0\n")
    (guest.root / "proc/loadavg").write_text("0.10 0.20 0.30 1/100 1000\n")
    said = await guest.vm.machine.agent.stat(seconds=5)
    assert (said.uptime_seconds, said.load) == (12.5, [0.1, 0.2, 0.3])
    assert said.fs_total_bytes > 0


async def test_it_shuts_down_when_asked(guest: Guest) -> None:
    await guest.vm.machine.agent.shutdown("poweroff", seconds=5)


async def test_what_it_does_not_know_it_refuses_and_goes_on(guest: Guest) -> None:
    """A verb or a mode of a later engine ends as an error that callers handle, never in silence."""
    agent = guest.vm.machine.agent
    with pytest.raises(GuestFailed, match="neither poweroff nor reboot"):
        await agent.shutdown("hibernate", seconds=5)
    with pytest.raises(GuestFailed, match="at most 60"):
        await agent.freeze(held_seconds=3600, seconds=5)
    with pytest.raises(GuestFailed, match="'later' is not one of"):
        await agent._call("later", {}, Empty, 5)
    await agent.ping(seconds=5)
