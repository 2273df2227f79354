"""What one asks to see: vm-logs, ls in groups, usage of the pool."""

from __future__ import annotations

import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import Conflict, Denied, Invalid, NotFound, Unavailable
from atoll.commands.render import printable
from atoll.config import Config, Vms
from atoll.rpc.messages import GIB, MIB, NodeInfo
from fakes.engine import FakeEngine
from framework.cloud import Control, control


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Control]:
    engine = FakeEngine(tmp_path / "engine.sock")
    config = Config(vms=Vms(max_vms=9))
    async with (
        engine.serving(),
        control(tmp_path / "control", engine, config=config, loops=True) as made,
    ):
        await made.run("new --name web --tag prod,eu --memory 2G --cpu 2")
        await made.run("new --name db --tag prod")
        await made.run("new --name play --disk 5G")
        await made.run("pause play")
        await made.run("new --name hers", made.bob)
        yield made


# --- vm-logs ---


async def test_vm_logs(cloud: Control) -> None:
    vm = next(vm for vm, it in cloud.engine.identities.items() if it.hostname == "web")
    reply = await cloud.run("vm-logs web")
    assert reply.text == f"{vm} login:"
    assert reply.data == {"vm_name": "web", "log": f"{vm} login:"}


async def test_vm_logs_errors(cloud: Control) -> None:
    with pytest.raises(Conflict, match=r'VM "play" is not running \(it is paused\)'):
        await cloud.run("vm-logs play")
    for name in ("nope", "hers"):
        with pytest.raises(NotFound):
            await cloud.run(f"vm-logs {name}")


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("a\r\nb\r\n", "a\nb"),
        ("\x1b[32m  OK  \x1b[0m Started\r\n", "  OK   Started"),
        ("\x1b]0;root@web\x07$ ls\x1b[K", "$ ls"),
        ("\x1b]0;title\x1b\\x", "x"),
        ("\x1bPq#0\x1b\\x\x1bc\x1b(B", "x"),
        ("10%\r20%\r\n", "10%\n20%"),
        ("a\tb\0\x07\x9b31m\u202e\u2028c  \n", "a\tb31m\nc"),
        ("\n\n  x\n\n", "  x"),
        ("\x1b", ""),
    ],
)
def test_what_a_guest_wrote_moves_no_terminal(written: str, shown: str) -> None:
    assert printable(written) == shown


@given(st.text(alphabet=st.characters() | st.sampled_from("\x1b[]0m;\x07\\P"), max_size=60))
def test_no_control_character_is_left(text: str) -> None:
    left = printable(text)
    assert not [c for c in left if c not in "\n\t" and unicodedata.category(c)[0] == "C"]


# --- ls in groups ---


async def test_ls_by_tag(cloud: Control) -> None:
    reply = await cloud.run("ls --group=tag")
    assert [line.split()[:2] for line in reply.text.splitlines()] == [
        ["GROUP", "NAME"],
        ["eu", "web"],
        ["prod", "db"],
        ["prod", "web"],
        ["-", "play"],
    ]
    assert reply.data["groups"] == [
        {"group": "eu", "vms": ["web"]},
        {"group": "prod", "vms": ["db", "web"]},
        {"group": "", "vms": ["play"]},
    ]
    assert [vm["vm_name"] for vm in reply.data["vms"]] == ["db", "play", "web"]  # each once


async def test_ls_by_status_and_region(cloud: Control) -> None:
    data = await cloud.data("ls -l --group status 'w*'")
    assert data["groups"] == [{"group": "running", "vms": ["web"]}]
    assert (await cloud.data("ls --group=region"))["groups"] == [
        {"group": "local", "vms": ["db", "play", "web"]}
    ]
    assert (await cloud.run("ls --group=none")).text == (await cloud.run("ls")).text
    assert "groups" not in await cloud.data("ls --group=none")
    with pytest.raises(Invalid, match="--group 'type' is none of none, tag, status, region"):
        await cloud.run("ls --group=type")


# --- billing usage ---


async def test_usage_of_the_pool(cloud: Control) -> None:
    web = next(vm for vm, it in cloud.engine.identities.items() if it.hostname == "web")
    used = cloud.engine.vms[web].model_copy(update={"disk_used_bytes": 300 * MIB})
    cloud.engine.vms[web] = used
    reply = await cloud.run("billing usage --group=vm")
    assert reply.text.splitlines() == [
        "VMs     3 of 9, 2 running",
        "vCPU    4, 3 running; machine 2",
        "memory  4G, 3G running; machine 8G, 4G available",
        "disk    55G, 300M used; pool 100G, 50G free",
        "",
        "NAME  STATUS   CPU  MEMORY  DISK  USED",
        "db    running  1    1G      25G   0B",
        "play  paused   1    1G      5G    0B",
        "web   running  2    2G      25G   300M",
    ]
    by_vm = reply.data.pop("by_vm")
    assert by_vm[2] == {
        "vm_name": "web",
        "status": "running",
        "cpus": 2,
        "memory_bytes": 2 * GIB,
        "disk_bytes": 25 * GIB,
        "disk_used_bytes": 300 * MIB,
    }
    assert reply.data == await cloud.data("billing usage") == await cloud.data("usage")
    assert reply.data == {
        "range": "now",
        "vms": {"count": 3, "running": 2, "limit": 9},
        "cpus": {"allotted": 4, "running": 3, "total": 2},
        "memory_bytes": {
            "allotted": 4 * GIB,
            "running": 3 * GIB,
            "available": 4 * GIB,
            "total": 8 * GIB,
        },
        "disk_bytes": {
            "allotted": 55 * GIB,
            "used": 300 * MIB,
            "free": 50 * GIB,
            "total": 100 * GIB,
        },
    }


async def test_usage_asks_now_and_says_when_nobody_answers(cloud: Control) -> None:
    await cloud.run("billing usage")
    asked = sum(isinstance(request, NodeInfo) for request in cloud.engine.asked)
    await cloud.run("billing usage")
    assert sum(isinstance(request, NodeInfo) for request in cloud.engine.asked) == asked + 1
    cloud.engine.refuse[NodeInfo].append(Unavailable("the engine is busy"))
    with pytest.raises(Unavailable):
        await cloud.run("billing usage")


async def test_usage_is_the_callers_own_and_the_accounts(cloud: Control) -> None:
    hers = await cloud.data("billing usage --group=vm", cloud.bob)
    assert [entry["vm_name"] for entry in hers["by_vm"]] == ["hers"]
    await cloud.run("rm hers", cloud.bob)
    reply = await cloud.run("billing usage --group=vm", cloud.bob)
    assert reply.data["by_vm"] == []
    assert reply.text.splitlines()[0] == "VMs     0 of 9, 0 running"
    await cloud.run("ssh-key generate-api-key --label one --vm web")
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHmJGHFXyGmpRGkQ4Lf3vUQnZ1a3kPv1rm0t8xrJmSDD"
    await cloud.run(f"ssh-key add --vm web '{key}'")
    caller = await cloud.cloud.caller_for_key(key, source="x")
    assert caller is not None
    with pytest.raises(Denied):
        await cloud.run("billing usage", caller)


# --- ls --columns ---


async def test_columns_that_are_asked_for(cloud: Control) -> None:
    reply = await cloud.run("ls --columns Status,name")
    assert [line.split() for line in reply.text.splitlines()] == [
        ["STATUS", "NAME"],
        ["running", "db"],
        ["paused", "play"],
        ["running", "web"],
    ]
    assert reply.data == (await cloud.run("ls -l")).data
    grouped = (await cloud.run("ls --columns name --group=status")).text
    assert grouped.splitlines()[1].split() == ["paused", "play"]


async def test_a_column_that_is_not_there(cloud: Control) -> None:
    with pytest.raises(Invalid, match="no 'color'") as error:
        await cloud.run("ls --columns name,color")
    assert "name,status" in error.value.hint
