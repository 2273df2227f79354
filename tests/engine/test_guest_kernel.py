"""Freeze, thaw and grow on a real ext4 in a mount namespace of its own; the fake's contract too.

Nothing but the loop file system of the test can be frozen: the agent under test sees one mount.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from atoll.base.aio import poll
from atoll.base.errors import Unavailable
from atoll.engine.agent import GuestAgent
from atoll.guest.kernel import Kernel

TESTS = Path(__file__).parent.parent
PROGRAM = TESTS / "fakes" / "agent_program.py"
ENV = {**os.environ, "PYTHONPATH": f"{TESTS.parent / 'src'}:{TESTS}"}
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")


def may_resize() -> bool:
    """CAP_SYS_RESOURCE is bit 24."""
    status = Path("/proc/self/status").read_text()
    effective = status.partition("CapEff:\t")[2].split()[0]
    return bool(int(effective, 16) >> 24 & 1)


class Namespace:
    """A mount namespace with an ext4 of 64 MiB (device 128 MiB) at `point`, kept by a sleeper."""

    def __init__(self, folder: Path) -> None:
        self.image, self.point = folder / "disk.raw", folder / "mnt"
        self.point.mkdir()
        with self.image.open("wb") as file:
            file.truncate(128 << 20)
        subprocess.run(["mkfs.ext4", "-q", str(self.image), "64M"], check=True)
        self._keeper = subprocess.Popen(["unshare", "--mount", "sleep", "600"])
        deadline = time.monotonic() + 10
        while self._mount_id() == os.readlink("/proc/self/ns/mnt"):
            assert time.monotonic() < deadline, "no namespace"
        self.run("mount", "-o", "loop", str(self.image), str(self.point))

    def run(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """`argv` inside."""
        return subprocess.run(self.inside(*argv), check=check, capture_output=True, timeout=30)

    def inside(self, *argv: str) -> list[str]:
        """`argv` as a command line that runs inside."""
        return ["nsenter", f"--mount=/proc/{self._keeper.pid}/ns/mnt", *argv]

    def close(self) -> None:
        """Whatever the test left: thawed, unmounted (which frees the loop device), gone."""
        self.run("fsfreeze", "--unfreeze", str(self.point), check=False)
        self.run("umount", str(self.point), check=False)
        self._keeper.kill()
        self._keeper.wait()

    def _mount_id(self) -> str:
        return os.readlink(f"/proc/{self._keeper.pid}/ns/mnt")


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[Namespace]:
    namespace = Namespace(tmp_path)
    yield namespace
    namespace.close()


class Running:
    """An agent process; `point` is what it freezes."""

    def __init__(self, argv: list[str], socket: Path, point: str) -> None:
        self._argv, self.socket, self.point = argv, socket, point
        self.process = subprocess.Popen(argv, env=ENV)

    def restart(self) -> None:
        """kill -9 and start again."""
        self.kill()
        self.process = subprocess.Popen(self._argv, env=ENV)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    async def client(self) -> GuestAgent:
        async def connected() -> GuestAgent | None:
            try:
                agent = await GuestAgent.connect(self.socket, seconds=5)
                await agent.ping(seconds=5)
            except Unavailable:
                return None
            return agent

        return await poll(connected, seconds=10, what="the agent")


@pytest.fixture(params=["fake", "real"])
async def agent(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Running]:
    """The same agent over the fake kernel and over the real one."""
    (tmp_path / "root/run").mkdir(parents=True)
    socket = tmp_path / "agent.sock"
    argv = [sys.executable, "-P", str(PROGRAM), str(socket), str(tmp_path / "root")]
    point = "/"
    if request.param == "real":
        namespace: Namespace = request.getfixturevalue("namespace")
        point = str(namespace.point)
        argv = namespace.inside(*argv, point)
    running = Running(argv, socket, point)
    yield running
    running.kill()


async def test_freeze_and_thaw(agent: Running) -> None:
    client = await agent.client()
    assert (await client.freeze(held_seconds=30, seconds=5)).mounts == [agent.point]
    thawed = await client.thaw(seconds=5)
    assert (thawed.mounts, thawed.expired) == ([agent.point], False)
    thawed = await client.thaw(seconds=5)
    assert (thawed.mounts, thawed.expired) == ([], False)
    await client.close()


async def test_freezing_again_holds_again(agent: Running) -> None:
    client = await agent.client()
    for _ in range(2):
        assert (await client.freeze(held_seconds=30, seconds=5)).mounts == [agent.point]
    assert (await client.thaw(seconds=5)).mounts == [agent.point]
    await client.close()


async def test_the_watchdog_thaws(agent: Running) -> None:
    client = await agent.client()
    await client.freeze(held_seconds=1, seconds=5)

    async def let_go() -> bool | None:
        return not (await client.hello(seconds=5)).frozen or None

    await poll(let_go, seconds=5, what="the watchdog")
    thawed = await client.thaw(seconds=5)
    assert (thawed.mounts, thawed.expired) == ([], True)
    await client.close()


def state_of(pid: int) -> str:
    """The process state letter of `pid`: D is waiting in the kernel."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def write_into(namespace: Namespace) -> subprocess.Popen[bytes]:
    return subprocess.Popen(namespace.inside("touch", f"{namespace.point}/file"))


def wait_blocked(writer: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while state_of(writer.pid) != "D":
        assert writer.poll() is None, "the write went through"
        assert time.monotonic() < deadline


@pytest.mark.parametrize("agent", ["real"], indirect=True)
async def test_writes_wait_while_frozen_and_go_on_after(
    agent: Running, namespace: Namespace
) -> None:
    client = await agent.client()
    await client.freeze(held_seconds=30, seconds=5)
    writer = write_into(namespace)
    wait_blocked(writer)
    await client.thaw(seconds=5)
    assert writer.wait(timeout=10) == 0
    await client.close()


@pytest.mark.parametrize("agent", ["real"], indirect=True)
async def test_the_next_agent_thaws_what_a_killed_one_froze(
    agent: Running, namespace: Namespace
) -> None:
    client = await agent.client()
    await client.freeze(held_seconds=30, seconds=5)
    await client.close()
    agent.kill()
    writer = write_into(namespace)
    wait_blocked(writer)
    agent.restart()
    assert writer.wait(timeout=10) == 0


@pytest.mark.parametrize("agent", ["real"], indirect=True)
async def test_what_somebody_else_froze_is_left_alone(agent: Running, namespace: Namespace) -> None:
    client = await agent.client()
    namespace.run("fsfreeze", "--freeze", str(namespace.point))
    assert (await client.freeze(held_seconds=30, seconds=5)).mounts == []
    assert (await client.thaw(seconds=5)).mounts == []
    writer = write_into(namespace)
    wait_blocked(writer)
    namespace.run("fsfreeze", "--unfreeze", str(namespace.point))
    assert writer.wait(timeout=10) == 0
    await client.close()


@pytest.mark.skipif(not may_resize(), reason="growing ext4 needs CAP_SYS_RESOURCE")
def test_the_root_grows_to_its_device(namespace: Namespace) -> None:
    program = "import sys; from atoll.guest.kernel import Kernel as K; "
    program += "k = K(sys.argv[1]); print(k.grow_root(), k.grow_root())"
    argv = namespace.inside(sys.executable, "-P", "-c", program, str(namespace.point))
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, env=ENV, timeout=30)
    first, second = map(int, done.stdout.split())
    assert first == second
    assert 100 << 20 < first <= 128 << 20
    namespace.run("umount", str(namespace.point))
    subprocess.run(["e2fsck", "-fn", str(namespace.image)], check=True, capture_output=True)


def test_entropy_is_credited_by_the_real_kernel() -> None:
    Kernel().add_entropy(os.urandom(61))
