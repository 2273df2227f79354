"""`resize`: what the engine is asked, what the row says, and when each size takes effect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.base.errors import AtollError, Exhausted, Invalid, NotFound
from atoll.rpc.messages import GIB, Clone, Resize, Vm, VmState
from fakes.engine import FakeEngine
from framework.cloud import Control, control


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Control]:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving(), control(tmp_path / "control", engine) as made:
        await made.run("new --name web --disk 10")
        yield made


def on_engine(cloud: Control, name: str = "web") -> Vm:
    (vm,) = (vm for vm, it in cloud.engine.identities.items() if it.hostname == name)
    return cloud.engine.vms[vm]


async def row(cloud: Control) -> tuple[int, int, int]:
    """vCPUs, memory and disk as `ls -l` shows them."""
    (vm,) = (await cloud.data("ls -l web"))["vms"]
    return vm["cpus"], vm["memory_bytes"], vm["disk_bytes"]


async def test_a_disk_grows_at_once(cloud: Control) -> None:
    reply = await cloud.run("resize web --disk=20")
    assert reply.data == {
        "vm_name": "web",
        "disk_old_bytes": 10 * GIB,
        "disk_new_bytes": 20 * GIB,
    }
    assert reply.text == "web: 20G disk (was 10G)"
    assert on_engine(cloud).spec.disk_bytes == 20 * GIB
    assert await row(cloud) == (1, GIB, 20 * GIB)


async def test_memory_and_cpus_wait_for_a_restart(cloud: Control) -> None:
    before = on_engine(cloud).spec
    reply = await cloud.run("resize web --memory 2G --cpu 2")
    assert reply.data == {
        "vm_name": "web",
        "old_cpus": 1,
        "new_cpus": 2,
        "old_memory": GIB,
        "new_memory": 2 * GIB,
        "restart_needed": True,
    }
    assert reply.text == (
        "web: 2 vCPU (was 1), 2G memory (was 1G)\n"
        "vCPUs and memory follow at its next start from disk: restart web"
    )
    assert await row(cloud) == (2, 2 * GIB, 10 * GIB)
    assert on_engine(cloud).spec == before
    await cloud.run("restart web")
    assert (on_engine(cloud).spec.cpus, on_engine(cloud).spec.memory_bytes) == (2, 2 * GIB)
    back = await cloud.data("resize web --cpu 2 --memory 2G")
    assert (back["old_cpus"], back["new_cpus"], back["restart_needed"]) == (2, 2, False)


async def test_a_stopped_vm_needs_no_restart(cloud: Control) -> None:
    cloud.engine.die(on_engine(cloud).vm)
    reply = await cloud.run("resize web --memory 2")
    assert reply.data["restart_needed"] is False
    assert on_engine(cloud).spec.memory_bytes == 2 * GIB


async def test_a_copy_has_the_size_its_original_runs_with(cloud: Control) -> None:
    """Its memory fits no other; what waits for a restart is the original's business."""
    await cloud.run("resize web --memory 2 --disk 20")
    assert (await cloud.data("cp web next"))["cold_booted"] is False
    assert not any("another size" in said for said in cloud.progress)
    spec = on_engine(cloud, "next").spec
    assert (spec.memory_bytes, spec.disk_bytes) == (GIB, 20 * GIB)
    asked = [request for request in cloud.engine.asked if isinstance(request, Clone)]
    assert asked[0].spec == spec
    assert (await cloud.data("ls -l next"))["vms"][0]["memory_bytes"] == GIB


async def test_what_did_not_follow_is_said(cloud: Control) -> None:
    vm = on_engine(cloud)
    cloud.engine.vms[vm.vm] = vm.model_copy(update={"problem": "its file system has not grown"})
    reply = await cloud.run("resize web --disk 20")
    assert reply.text.splitlines()[-1] == "its file system has not grown"
    assert reply.data["problem"] == "its file system has not grown"


async def test_nothing_to_do_asks_for_nothing(cloud: Control) -> None:
    reply = await cloud.run("resize web --disk 10")
    assert reply.text == "web has that size already"
    assert not any(isinstance(request, Resize) for request in cloud.engine.asked)


@pytest.mark.parametrize(
    ("line", "kind", "said"),
    [
        ("resize web", Invalid, "nothing to change: give --cpu, --memory or --disk"),
        ("resize web --disk 5", Invalid, "A disk only grows; it has 10G"),
        ("resize web --disk 65T", Invalid, "--disk 65T is not within 1G to 64T"),
        ("resize web --memory 64M", Invalid, "--memory 64M is not within 128M to 1T"),
        ("resize web --memory 100", Exhausted, "is more than this machine has (8G)"),
        ("resize web --cpu 0", Invalid, "--cpu 0 is not within 1 to 64"),
        ("resize nope --cpu 2", NotFound, 'VM "nope" not found'),
    ],
)
async def test_what_is_refused_changes_nothing(
    cloud: Control, line: str, kind: type[AtollError], said: str
) -> None:
    with pytest.raises(kind) as caught:
        await cloud.run(line)
    assert said in str(caught.value)
    assert await row(cloud) == (1, GIB, 10 * GIB)
    assert on_engine(cloud).state is VmState.RUNNING


async def test_what_the_engine_refuses_is_not_in_the_row(cloud: Control) -> None:
    cloud.engine.refuse[Resize].append(Exhausted("the pool is full"))
    with pytest.raises(Exhausted):
        await cloud.run("resize web --disk 20")
    assert await row(cloud) == (1, GIB, 10 * GIB)
    await cloud.run("resize web --disk 20")
    assert await row(cloud) == (1, GIB, 20 * GIB)
