"""Every verb, end to end over the real RPC: text for people, JSON for programs, and each error."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from atoll.base.aio import poll
from atoll.base.errors import AtollError, Conflict, Denied, Exhausted, Invalid, NotFound
from atoll.commands import state
from atoll.commands.render import Json
from atoll.config import Config, Https, Ssh, Vms
from atoll.domain.account import Scope
from atoll.rpc.messages import (
    GIB,
    Clone,
    Create,
    Identify,
    Image,
    Pause,
    Restart,
    Resume,
    Stat,
    Stop,
    VmState,
)
from atoll.store import events
from fakes.engine import FakeEngine
from framework.cloud import ANN, Control, control
from framework.signing import SshKeyFile

CI_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHmJGHFXyGmpRGkQ4Lf3vUQnZ1a3kPv1rm0t8xrJmSDD ci"


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Control]:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving(), control(tmp_path / "control", engine, loops=True) as made:
        yield made


def on_engine(cloud: Control, name: str) -> Any:
    """The engine's record of the VM whose hostname is `name`."""
    ids = [vm for vm, identity in cloud.engine.identities.items() if identity.hostname == name]
    assert len(ids) == 1
    return cloud.engine.vms[ids[0]]


# --- new ---


async def test_new_says_name_time_ssh_line_and_url(cloud: Control) -> None:
    reply = await cloud.run("new --name web --tag prod,eu --tag b --comment 'the shop'")
    first, *rest = reply.text.splitlines()
    assert re.fullmatch(
        r"web is running \(\d\.\d\d s\): debian, 1 vCPU, 1G memory, 25G disk", first
    )
    assert rest == ["ssh -p 2222 web@localhost", "https://web.atoll.localhost:8443/"]
    elapsed = reply.data.pop("elapsed_s")
    assert 0 < elapsed < 30
    assert reply.data == {
        "vm_name": "web",
        "tags": ["b", "eu", "prod"],
        "ssh_command": "ssh -p 2222 web@localhost",
        "ssh_dest": "web@localhost",
        "ssh_host": "localhost",
        "ssh_user": "web",
        "ssh_port": 2222,
        "https_url": "https://web.atoll.localhost:8443/",
        "proxy_port": 8000,
        "comment": "the shop",
        "created_at": "2027-01-15T08:00:00Z",
        "egress_policy": "all",
        "region": "local",
        "region_display": "This machine",
        "status": "running",
        "cold_booted": False,
    }


async def test_new_gives_the_engine_shape_and_identity(cloud: Control) -> None:
    await cloud.run("new --name web --cpu 4 --memory 1536M --disk 10G")
    created = next(request for request in cloud.engine.asked if isinstance(request, Create))
    assert created.owner == cloud.ann.account.id
    spec = created.spec
    assert (spec.cpus, spec.memory_bytes, spec.disk_bytes) == (4, 3 * GIB // 2, 10 * GIB)
    identity = created.identity
    assert (identity.hostname, identity.fresh) == ("web", True)
    assert identity.authorized_keys == (f"{ANN} laptop",)
    assert identity.user_ca == cloud.cloud.keys.user_ca_public
    assert "OPENSSH PRIVATE KEY" in (identity.host_key or "")
    assert (identity.host_certificate or "").startswith("ssh-ed25519-cert-v01@openssh.com ")


async def test_a_plain_number_is_gigabytes(cloud: Control) -> None:
    """As in the reference product, whose SDK sends whole numbers; bytes would never be meant."""
    for line, memory, disk in (
        ("new --memory=2 --disk=20", 2 * GIB, 20 * GIB),
        ("new --memory 0.5 --disk 20GB", GIB // 2, 20 * GIB),
        ("new --memory 2Gi --disk 20G", 2 * GIB, 20 * GIB),
        ("new --memory 2048M", 2 * GIB, 25 * GIB),
    ):
        await cloud.run(line)
        spec = [request for request in cloud.engine.asked if isinstance(request, Create)][-1].spec
        assert (spec.memory_bytes, spec.disk_bytes) == (memory, disk), line


async def test_new_says_when_it_was_a_cold_boot(cloud: Control) -> None:
    await cloud.run("new")
    assert cloud.progress == []
    reply = await cloud.run("new --memory 3G")
    (said,) = cloud.progress
    assert said == "no warm template of this size yet: this one boots, which takes longer"
    assert ", cold boot: no warm template of this size yet, one is being made)" in reply.text
    assert reply.data["cold_booted"] is True
    cloud.engine.makes_templates = False  # it failed lately
    reply = await cloud.run("new --memory 3G")
    assert ", cold boot: no warm template of this size yet)" in reply.text


async def test_new_knows_an_image_and_a_template_that_came_a_moment_ago(cloud: Control) -> None:
    """Without an event: what is cached of the node is no reason to refuse, or to warn."""
    await cloud.run("new")
    cloud.engine.images["full"] = Image(name="full", digest="sha256:2", size_bytes=GIB)
    cloud.engine.warm_sizes.add((1, 3 * GIB))
    reply = await cloud.run("new --image full --memory 3G")
    assert cloud.progress == []
    assert reply.data["cold_booted"] is False


async def test_new_without_a_name_takes_two_words(cloud: Control) -> None:
    name = (await cloud.data("new"))["vm_name"]
    assert re.fullmatch(r"[a-z]+-[a-z]+", name)


async def test_urls_follow_the_configuration(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path / "engine.sock")
    config = Config(ssh=Ssh(port=22, host="cloud.example"), https=Https(domain="ex.io", port=443))
    async with engine.serving(), control(tmp_path / "c", engine, config=config) as cloud:
        data = await cloud.data("new --name web")
        assert data["ssh_command"] == "ssh web@cloud.example"
        assert data["https_url"] == "https://web.ex.io/"


@pytest.mark.parametrize(
    ("flags", "kind", "said"),
    [
        ("--name UP", Invalid, "'UP' cannot name a VM"),
        ("--name ''", Invalid, "'' cannot name a VM"),
        ("--name ../x", Invalid, "cannot name a VM"),
        ("--name wéb", Invalid, "cannot name a VM"),
        ("--name admin", Invalid, "'admin' is reserved"),
        ("--name 3000-web", Invalid, "kept for ports"),
        ("--memory -5G", Invalid, "--memory '-5G' is not a size"),
        ("--memory 5B", Invalid, "--memory '5B' is not a size"),
        ("--memory 1e9G", Invalid, "--memory '1e9G' is not a size"),
        ("--memory 0", Invalid, "--memory must be more than 0"),
        ("--memory 64M", Invalid, "--memory 64M is not within 128M to 1T"),
        ("--memory 999999999999T", Invalid, "is not within 128M to 1T"),
        ("--memory 100G", Exhausted, "--memory 100G is more than this machine has (8G)"),
        ("--memory 4294967296", Invalid, "1T. A plain number is in gigabytes. Try: --memory 1G"),
        ("--disk=21474836480", Invalid, "64T. A plain number is in gigabytes. Try: --disk 1G"),
        ("--memory 0.01", Invalid, "--memory 0.01 is not within 128M to 1T. Try: --memory 1G"),
        ("--disk 1M", Invalid, "--disk 1M is not within 1G to 64T"),
        ("--disk 65T", Invalid, "--disk 65T is not within 1G to 64T"),
        ("--cpu 0", Invalid, "--cpu 0 is not within 1 to 64"),
        ("--cpu 65", Invalid, "--cpu 65 is not within 1 to 64"),
        ("--image nope", NotFound, "image 'nope' not found. Images here: debian"),
        ("--image '../../etc'", NotFound, "image '../../etc' not found"),
        ("--tag Prod", Invalid, "'Prod' is not a tag"),
        ("--comment '" + "x" * 201 + "'", Invalid, "a comment of 201 bytes is longer than 200"),
        ("--comment $'a\x1b[31m'", Invalid, "one line without control characters"),
        ("--comment 'a\nb'", Invalid, "one line without control characters"),
        ("--prompt A=b", Invalid, "`new` has no flag '--prompt'"),
    ],
)
async def test_new_refuses(cloud: Control, flags: str, kind: type[AtollError], said: str) -> None:
    assert said in await cloud.fails(f"new {flags}", kind)
    assert cloud.engine.vms == {}
    assert (await cloud.data("ls"))["vms"] == []


async def test_a_name_is_taken_once_whoever_has_it(cloud: Control) -> None:
    await cloud.run("new --name web")
    for caller in (cloud.ann, cloud.bob):
        said = await cloud.fails("new --name web", Conflict, caller=caller)
        assert said == "the name 'web' is taken. Try another name, or: ls"


async def test_the_number_of_vms_has_a_limit(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path / "engine.sock")
    config = Config(vms=Vms(max_vms=1))
    async with engine.serving(), control(tmp_path / "c", engine, config=config) as cloud:
        await cloud.run("new --name web")
        said = await cloud.fails("new", Exhausted)
        assert said == "you have 1 VMs, which is the limit. Try: rm <name>"
        await cloud.run("rm web")
        await cloud.run("new")


async def test_what_the_engine_refuses_leaves_nothing(cloud: Control) -> None:
    cloud.engine.refuse[Create].append(Exhausted("the pool is full", hint="Try: rm <name>"))
    assert await cloud.fails("new --name web", Exhausted) == "the pool is full. Try: rm <name>"
    assert (await cloud.data("ls"))["vms"] == []
    await cloud.run("new --name web")  # the name is free again


# --- ls ---


async def test_ls_is_a_table(cloud: Control) -> None:
    assert (await cloud.run("ls")).text == "No VMs. Try: new"
    await cloud.run("new --name web --tag a,b --comment 'the 店'")
    await cloud.run("new --name db")
    await cloud.run("pause db")
    await cloud.run("new --name other", cloud.bob)
    assert (await cloud.run("ls")).text.splitlines() == [
        "NAME  STATUS   URL                                TAGS  COMMENT",
        "db    paused   https://db.atoll.localhost:8443/",
        "web   running  https://web.atoll.localhost:8443/  a,b   the 店",
    ]
    assert (await cloud.run("ls -l db")).text.splitlines() == [
        "NAME  STATUS  IMAGE   CPU  MEMORY  DISK  CREATED               WEB      URL",
        "db    paused  debian  1    1G      25G   2027-01-15T08:00:00Z  private"
        "  https://db.atoll.localhost:8443/",
    ]


async def test_ls_json(cloud: Control) -> None:
    await cloud.run("new --name web --tag a --comment hi")
    entry = {
        "vm_name": "web",
        "ssh_dest": "web@localhost",
        "ssh_host": "localhost",
        "ssh_user": "web",
        "ssh_port": 2222,
        "https_url": "https://web.atoll.localhost:8443/",
        "status": "running",
        "region": "local",
        "region_display": "This machine",
        "tags": ["a"],
        "comment": "hi",
        "created_at": "2027-01-15T08:00:00Z",
        "egress_policy": "all",
    }
    assert await cloud.data("ls") == {"vms": [entry]}
    long = {
        "image": "debian",
        "cpus": 1,
        "memory_bytes": GIB,
        "disk_bytes": 25 * GIB,
        "proxy_port": 8000,
        "share": "private",
    }
    assert await cloud.data("ls -l") == {"vms": [entry | long]}


async def test_ls_takes_patterns(cloud: Control) -> None:
    for name in ("web", "web-next", "db"):
        await cloud.run(f"new --name {name}")
    names = [vm["vm_name"] for vm in (await cloud.data("ls 'web*'"))["vms"]]
    assert names == ["web", "web-next"]
    assert (await cloud.run("ls 'x*'")).text == "No such VM"
    reply = await cloud.run("ls wbe")  # a program gets the empty list, and the exit code
    assert reply.data == {"vms": []}
    assert (reply.text, reply.exit) == ('VM "wbe" not found. Did you mean web?', NotFound.exit)


async def test_ls_shows_what_ended_by_itself_and_what_is_lost(cloud: Control) -> None:
    await cloud.run("new --name web")
    await cloud.run("new --name db")
    cloud.engine.die(on_engine(cloud, "web").vm)
    del cloud.engine.vms[on_engine(cloud, "db").vm]
    await cloud.cloud.reconciler.reconcile()
    entries = {vm["vm_name"]: vm for vm in (await cloud.data("ls"))["vms"]}
    assert entries["web"]["status"] == "stopped"
    assert entries["web"]["problem"] == "qemu ended with signal 9"
    assert entries["db"]["status"] == "failed"
    assert entries["db"]["problem"] == "the engine does not have it"


# --- rm, undo ---


async def test_rm_answers_for_each_name(cloud: Control) -> None:
    await cloud.run("new --name web")
    await cloud.run("new --name secret", cloud.bob)
    reply = await cloud.run("rm web nope web secret")
    assert reply.data == {
        "deleted": ["web"],
        "failed": ["nope", "secret"],
        "not_found": ["nope", "secret"],
        "errors": {"nope": 'VM "nope" not found', "secret": 'VM "secret" not found'},
    }
    assert reply.exit == NotFound.exit
    assert reply.text.splitlines() == [
        "removed web; `undo` brings back for 24 h",
        'VM "nope" not found. Try: ls',
        'VM "secret" not found. Try: ls',
    ]
    assert [vm.state for vm in cloud.engine.vms.values()] == [VmState.PAUSED, VmState.RUNNING]


async def test_undo_brings_back_what_one_rm_took(cloud: Control) -> None:
    for name in ("a", "b", "c"):
        await cloud.run(f"new --name {name} --tag t")
    await cloud.run("pause b")
    await cloud.run("rm c")
    await cloud.run("rm a b")
    reply = await cloud.run("undo")
    assert reply.text.splitlines() == ["a is back: running", "b is back: paused"]
    assert reply.data == {
        "undone": "rm",
        "restored": [
            {"vm_name": "a", "former_name": "a", "status": "running"},
            {"vm_name": "b", "former_name": "b", "status": "paused"},
        ],
    }
    assert (await cloud.run("undo")).text == "c is back: running"
    said = await cloud.fails("undo", NotFound)
    assert said == "there is nothing to undo. Only `rm` and `rollback` can be undone, for a while"
    assert all(vm["tags"] == ["t"] for vm in (await cloud.data("ls"))["vms"])


async def test_undo_gives_another_name_when_the_old_one_is_taken(cloud: Control) -> None:
    await cloud.run("new --name web")
    await cloud.run("rm web")
    await cloud.run("new --name web", cloud.bob)
    reply = await cloud.run("undo")
    name = reply.data["restored"][0]["vm_name"]
    assert re.fullmatch(r"web-[a-z]+-[a-z]+", name)
    assert reply.text == f"{name} is back (was web; that name is taken): running"
    assert on_engine(cloud, name).state is VmState.RUNNING  # it knows its new name


async def test_undo_is_the_callers_own(cloud: Control) -> None:
    await cloud.run("new --name web")
    await cloud.run("rm web")
    await cloud.fails("undo", NotFound, caller=cloud.bob)
    await cloud.run("undo")


async def test_undo_says_when_a_vm_is_back_but_does_not_run(cloud: Control) -> None:
    await cloud.run("new --name web")
    await cloud.run("rm web")
    cloud.engine.refuse[Resume].append(Exhausted("no memory is left"))
    reply = await cloud.run("undo")
    assert reply.text == "web is back: paused, but: no memory is left"
    assert reply.data["restored"][0]["problem"] == "no memory is left"


async def test_rm_stops_a_vm_whose_memory_cannot_be_saved(cloud: Control) -> None:
    await cloud.run("new --name web")
    cloud.engine.refuse[Pause].append(Exhausted("the pool is full"))
    assert (await cloud.data("rm web"))["deleted"] == ["web"]
    assert [vm.state for vm in cloud.engine.vms.values()] == [VmState.STOPPED]


async def test_rm_that_cannot_stop_a_vm_keeps_it(cloud: Control) -> None:
    await cloud.run("new --name web")
    cloud.engine.refuse[Pause].append(Exhausted("the pool is full"))
    cloud.engine.refuse[Stop].append(Conflict("it does not stop"))
    reply = await cloud.run("rm web")
    assert reply.data["errors"] == {"web": "it does not stop"}
    assert (await cloud.data("ls"))["vms"][0]["status"] == "running"


async def test_the_trash_is_emptied_in_time(cloud: Control) -> None:
    await cloud.run("new --name web")
    await cloud.run("rm web")
    cloud.clock.time += 24 * 3600 - 1
    await cloud.cloud.trash.sweep()
    assert len(cloud.engine.vms) == 1
    cloud.clock.time += 1
    await cloud.fails("undo", NotFound)
    await cloud.cloud.trash.sweep()
    assert cloud.engine.vms == {}


# --- cp ---


async def test_cp_clones_a_running_vm(cloud: Control) -> None:
    await cloud.run("new --name web --tag a --comment hi")
    await cloud.run("share port web 3000")
    await cloud.run("share set-public web")
    reply = await cloud.run("cp web web-next")
    assert re.match(r"web-next is running \(\d\.\d\d s\), a copy of web\nssh ", reply.text)
    elapsed = reply.data.pop("elapsed")
    assert 0 < elapsed < 30
    assert reply.data == {
        "name": "web-next",
        "vm_name": "web-next",
        "state": "running",
        "source": "web",
        "ssh": "ssh -p 2222 web-next@localhost",
        "ssh_dest": "web-next@localhost",
        "ssh_host": "localhost",
        "ssh_user": "web-next",
        "ssh_port": 2222,
        "https_url": "https://web-next.atoll.localhost:8443/",
        "tags": ["a"],
        "comment": "hi",
        "created_at": "2027-01-15T08:00:00Z",
        "egress_policy": "all",
        "cold_booted": False,
    }
    asked = next(request for request in cloud.engine.asked if isinstance(request, Clone))
    assert asked.source == on_engine(cloud, "web").vm
    assert asked.identity.fresh
    shared = await cloud.data("share show web-next")
    assert (shared["port"], shared["status"]) == (3000, "private")  # a copy is never public


async def test_cp_with_another_size(cloud: Control) -> None:
    await cloud.run("new --name web")
    before = on_engine(cloud, "web").spec
    larger = await cloud.data("cp web larger --disk 50G")
    assert larger["cold_booted"] is False
    assert on_engine(cloud, "larger").spec == before.model_copy(update={"disk_bytes": 50 << 30})
    reply = await cloud.run("cp web other --cpu 2 --memory 2G")
    assert "cold boot: another size" in reply.text
    assert reply.data["cold_booted"] is True
    wanted = {"cpus": 2, "memory_bytes": 2 << 30}
    assert on_engine(cloud, "other").spec == before.model_copy(update=wanted)
    await cloud.run("pause web")
    assert (await cloud.data("cp web quiet --memory 2G"))["state"] == "stopped"
    await cloud.fails("cp web x --disk 1G", Invalid)
    await cloud.fails("cp web x --cpu 0", Invalid)
    await cloud.fails("cp web x --memory 1000G", Exhausted)
    assert on_engine(cloud, "web").spec == before


async def test_cp_without_tags_or_name_and_of_a_paused_vm(cloud: Control) -> None:
    await cloud.run("new --name web --tag a")
    await cloud.run("pause web")
    data = await cloud.data("cp web --copy-tags=false")
    assert (data["tags"], data["state"]) == ([], "paused")


async def test_cp_errors(cloud: Control) -> None:
    await cloud.run("new --name web")
    await cloud.fails("cp nope", NotFound)
    await cloud.fails("cp web web", Conflict)
    await cloud.fails("cp web UP", Invalid)
    cloud.engine.refuse[Clone].append(Exhausted("the pool is full"))
    await cloud.fails("cp web next", Exhausted)
    assert len((await cloud.data("ls"))["vms"]) == len(cloud.engine.vms) == 1


# --- pause, resume, restart ---


async def test_pause_and_resume(cloud: Control) -> None:
    await cloud.run("new --name web")
    assert await cloud.data("pause web") == {"vm_name": "web", "status": "paused"}
    assert (await cloud.run("pause web")).text == "web is paused"  # already: fine
    assert on_engine(cloud, "web").state is VmState.PAUSED
    warm = {"vm_name": "web", "status": "running", "cold_booted": "false"}
    assert await cloud.data("resume web") == warm
    assert await cloud.data("resume web") == warm


async def test_resume_of_a_stopped_vm_says_that_it_booted(cloud: Control) -> None:
    await cloud.run("new --name web")
    vm = on_engine(cloud, "web").vm
    cloud.engine._put(vm, state=VmState.STOPPED, address=None, pid=None)
    reply = await cloud.run("resume web")
    assert reply.data["cold_booted"] == "true"
    assert reply.text == "web is running (booted from its disk)"


async def test_restart(cloud: Control) -> None:
    await cloud.run("new --name web")
    assert await cloud.data("restart web") == {"status": "restarted", "vm_name": "web"}
    assert any(isinstance(request, Restart) for request in cloud.engine.asked)
    cloud.engine.die(on_engine(cloud, "web").vm)
    await cloud.run("restart web")
    assert on_engine(cloud, "web").state is VmState.RUNNING


async def test_state_errors(cloud: Control) -> None:
    await cloud.run("new --name web")
    for line in ("pause nope", "resume nope", "restart nope", "stat nope", "ssh nope ls"):
        await cloud.fails(line, NotFound)
    await cloud.run("pause web")
    said = await cloud.fails("restart web", Conflict)
    assert said == 'VM "web" is paused; a restart would lose its memory. Try: resume web'
    said = await cloud.fails("ssh web ls", Conflict)
    assert said == 'VM "web" is not running (paused). Try: resume web'
    cloud.engine._put(on_engine(cloud, "web").vm, state=VmState.STOPPED)
    said = await cloud.fails("pause web", Conflict)
    assert said == 'VM "web" is not running (it is stopped). Try: restart web'
    cloud.engine.vms.clear()
    said = await cloud.fails("pause web", Conflict)
    assert said == 'VM "web" is lost: the engine does not have it. Try: atoll doctor'


# --- stat, ssh ---


async def test_stat_shows_rates_between_two_readings(
    cloud: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "SAMPLE_S", 0.0)
    await cloud.run("new --name web")
    vm = on_engine(cloud, "web").vm
    cloud.engine.stats[vm] = Stat(
        vm=vm, cpu_seconds=3, memory_private_bytes=GIB // 2, memory_total_bytes=GIB,
        disk_used_bytes=2 * GIB, disk_size_bytes=25 * GIB, fs_total_bytes=24 * GIB,
        fs_used_bytes=3 * GIB, uptime_seconds=61, ports=(22, 8000),
    )  # fmt: skip
    reply = await cloud.run("stat web")
    assert reply.text.splitlines() == [
        "name     web",
        "status   running",
        "up       61 s",
        "cpu      0.00 of 1",
        "memory   512M own of 1G",
        "files    3G of 24G",
        "disk     2G in the pool",
        "network  in 0, out 0 Mbit/s",
        "ports    22, 8000",
    ]
    assert reply.data == {
        "name": "web",
        "status": "running",
        "range": "now",
        "points": [
            {
                "timestamp": "2027-01-15T08:00:00Z",
                "vm_name": "web",
                "cpu_cores": 0.0,
                "cpu_nominal": 1,
                "mem_used_bytes": GIB // 2,
                "mem_total_bytes": GIB,
                "disk_size_gb": 25.0,
                "disk_used_gb": 2.0,
                "fs_used_gb": 3.0,
                "fs_total_gb": 24.0,
                "fs_free_gb": 21.0,
                "network_tx_mbps": 0.0,
                "network_rx_mbps": 0.0,
                "io_read_mbps": 0.0,
                "io_write_mbps": 0.0,
                "uptime_seconds": 61,
                "ports": [22, 8000],
            }
        ],
    }


async def test_ssh_asks_the_door_to_run_it_in_the_vm(cloud: Control) -> None:
    await cloud.run("new --name web")
    reply = await cloud.run("ssh web 'echo a b' --json")
    assert reply.command == "echo a b --json"
    assert reply.run_in_vm is not None
    assert reply.run_in_vm.address == on_engine(cloud, "web").address
    assert reply.run_in_vm.login_user == "atoll"
    assert reply.run_in_vm.host_ca == cloud.cloud.keys.host_ca_public


# --- rename, tag, comment, share ---


async def test_rename_changes_route_url_and_identity(cloud: Control) -> None:
    await cloud.run("new --name web")
    reply = await cloud.run("rename web shop")
    assert reply.text == "web is now shop"
    assert reply.data == {
        "status": "renamed",
        "old_name": "web",
        "new_name": "shop",
        "vm_name": "shop",
        "ssh_dest": "shop@localhost",
        "https_url": "https://shop.atoll.localhost:8443/",
    }
    assert on_engine(cloud, "shop").state is VmState.RUNNING
    identity = cloud.engine.identities[on_engine(cloud, "shop").vm]
    assert (identity.fresh, identity.host_key) == (False, None)
    await cloud.fails("stat web", NotFound)


async def test_rename_of_a_paused_vm_is_told_at_resume(cloud: Control) -> None:
    await cloud.run("new --name web")
    await cloud.run("pause web")
    await cloud.run("rename web shop")
    assert not any(isinstance(request, Identify) for request in cloud.engine.asked)
    await cloud.run("resume shop")
    assert on_engine(cloud, "shop").state is VmState.RUNNING


async def test_rename_holds_although_the_guest_does_not_follow(cloud: Control) -> None:
    await cloud.run("new --name web")
    cloud.engine.refuse[Identify].append(Conflict("the agent says no"))
    reply = await cloud.run("rename web shop")
    assert reply.data["problem"] == "inside, the old name stays until a restart: the agent says no"
    assert [vm["vm_name"] for vm in (await cloud.data("ls"))["vms"]] == ["shop"]


async def test_rename_errors(cloud: Control) -> None:
    await cloud.run("new --name web")
    await cloud.run("new --name db", cloud.bob)
    await cloud.fails("rename web db", Conflict)
    await cloud.fails("rename web UP", Invalid)
    await cloud.fails("rename nope shop", NotFound)
    await cloud.fails("rename db shop", NotFound)


async def test_tags(cloud: Control) -> None:
    await cloud.run("new --name web")
    assert await cloud.data("tag web b a") == {"vm_name": "web", "tags": ["a", "b"]}
    assert (await cloud.run("tag web")).text == "web: a, b"
    assert await cloud.data("tag -d web b zz") == {"vm_name": "web", "tags": ["a"]}
    assert (await cloud.run("tag -d web a")).text == "web: no tags"
    await cloud.fails("tag web Bad", Invalid)
    await cloud.fails("tag nope a", NotFound)
    many = " ".join(f"t{number}" for number in range(65))
    assert "65 tags are more than 64" in await cloud.fails(f"tag web {many}", Invalid)


async def test_comment(cloud: Control) -> None:
    await cloud.run("new --name web")
    assert await cloud.data("comment web a note") == {"vm_name": "web", "comment": "a note"}
    assert (await cloud.run('comment web ""')).text == "web: no comment"
    await cloud.fails("comment nope x", NotFound)
    await cloud.fails("comment web '" + "é" * 101 + "'", Invalid)


async def test_share(cloud: Control) -> None:
    await cloud.run("new --name web")
    reply = await cloud.run("share show web")
    assert reply.text.splitlines() == [
        "url    https://web.atoll.localhost:8443/",
        "port   8000",
        "share  private",
        "",
        "WHO  LEVEL  WHAT",
        "you  root   everything",
    ]
    assert reply.data == {
        "vm_name": "web",
        "status": "private",
        "port": 8000,
        "url": "https://web.atoll.localhost:8443/",
        "users": [],
        "links": [],
        "teams": [],
        "public": [],
        "requests": [],
    }
    port = {"vm_name": "web", "port": 3000, "share": "private"}
    assert await cloud.data("share port web 3000") == {"status": "updated", **port}
    assert await cloud.data("share port web") == port
    public = await cloud.run("share set-public web")
    assert public.text == "https://web.atoll.localhost:8443/ is public"
    assert public.data == {"status": "updated", **port, "share": "public"}
    assert "everybody" in (await cloud.run("share show web")).text
    assert (await cloud.data("share set-private web"))["share"] == "private"
    for bad in ("0", "65536", "-1"):
        await cloud.fails(f"share port web {bad}", Invalid)
    for verb in ("show", "port", "set-public", "set-private"):
        await cloud.fails(f"share {verb} nope", NotFound)


# --- keys, account ---


async def test_whoami(cloud: Control) -> None:
    reply = await cloud.run("whoami")
    assert reply.text.splitlines()[0] == "ann@example.com"
    assert reply.text.splitlines()[2].endswith("this one")
    (key,) = reply.data.pop("ssh_keys")
    assert reply.data == {
        "email": "ann@example.com",
        "region": "local",
        "region_display": "This machine",
    }
    assert (key["name"], key["public_key"], key["current"]) == ("laptop", ANN, True)


async def test_keys_are_added_listed_and_removed(cloud: Control) -> None:
    await cloud.run("new --name web")
    reply = await cloud.run(f"ssh-key add '{CI_KEY}'")
    assert (reply.text, reply.data["name"]) == ("added ci", "ci")
    listed = (await cloud.data("ssh-key list"))["ssh_keys"]
    assert [(key["name"], key["current"]) for key in listed] == [("laptop", True), ("ci", False)]
    caller = await cloud.cloud.caller_for_key(CI_KEY, source="x")
    assert caller is not None
    assert caller.account == cloud.ann.account
    assert (await cloud.run("ssh-key remove ci")).text == "removed ci"
    assert await cloud.cloud.caller_for_key(CI_KEY, source="x") is None


async def test_running_vms_learn_of_keys(cloud: Control) -> None:
    await cloud.run("new --name web")
    await cloud.run("new --name db")
    await cloud.run("pause db")
    await cloud.run("ssh-key add --name two -", stdin=CI_KEY.encode() + b"\n")

    def keys_in(name: str) -> list[str]:
        identity = cloud.engine.identities[on_engine(cloud, name).vm]
        return [line.split()[2] for line in identity.authorized_keys]

    async def has_arrived() -> bool | None:
        return keys_in("web") == ["laptop", "two"] or None

    await poll(has_arrived, seconds=10, what="the key to arrive", every=0.005)
    assert keys_in("db") == ["laptop"]
    await cloud.run("resume db")
    assert keys_in("db") == ["laptop", "two"]


async def test_a_key_for_one_vm_sees_only_that_one(cloud: Control) -> None:
    await cloud.run("new --name web")
    await cloud.run("new --name db")
    await cloud.run(f"ssh-key add --vm web '{CI_KEY}'")
    caller = await cloud.cloud.caller_for_key(CI_KEY, source="x")
    assert caller is not None
    assert [vm["vm_name"] for vm in (await cloud.data("ls", caller))["vms"]] == ["web"]
    await cloud.fails("stat db", NotFound, caller=caller)
    await cloud.run("pause web", caller)
    for line in ("new", "cp web", "ssh-key list", "browser", "ssh-key generate-api-key", "whoami"):
        await cloud.fails(line, Denied, caller=caller)
    await cloud.run("rm db")
    await cloud.fails("undo", NotFound, caller=caller)
    await cloud.run("rename web shop")  # the key follows the VM, not the name
    assert [vm["vm_name"] for vm in (await cloud.data("ls", caller))["vms"]] == ["shop"]


async def test_a_key_for_a_tag_sees_and_makes_only_such_vms(cloud: Control) -> None:
    for line in ("new --name web --tag ci", "new --name db", f"ssh-key add --tag ci '{CI_KEY}'"):
        await cloud.run(line)
    caller = await cloud.cloud.caller_for_key(CI_KEY, source="x")
    assert caller is not None
    assert [vm["vm_name"] for vm in (await cloud.data("ls", caller))["vms"]] == ["web"]
    for line in (
        "stat db",
        "rename db x",
        "tag db ci",
        "share set-public db",
        "ssh db id",
        "cp db",
    ):
        await cloud.fails(line, NotFound, caller=caller)
    assert (await cloud.data("rm db", caller))["not_found"] == ["db"]
    for line in ("ssh-key list", "ssh-key generate-api-key", f"ssh-key add '{ANN}'", "browser"):
        said = await cloud.fails(line, Denied, caller=caller)
        assert "is for VMs tagged 'ci'" in said

    made = await cloud.data("new --name job --tag nightly", caller)
    assert made["tags"] == ["ci", "nightly"]
    assert (await cloud.data("new --name plain", caller))["tags"] == ["ci"]
    assert (await cloud.data("cp web two --copy-tags=false", caller))["tags"] == ["ci"]
    await cloud.run("rm job", caller)
    assert [vm["vm_name"] for vm in (await cloud.data("undo", caller))["restored"]] == ["job"]

    assert "keeps the tag there" in await cloud.fails("tag -d web ci", Denied, caller=caller)
    assert (await cloud.data("tag web more", caller))["tags"] == ["ci", "more"]
    await cloud.run("tag -d web ci")  # by its owner
    await cloud.fails("stat web", NotFound, caller=caller)
    (entry,) = [key for key in (await cloud.data("ssh-key list"))["ssh_keys"] if key["tag"]]
    assert (entry["name"], entry["tag"], entry["vm_name"]) == ("ci", "ci", None)


async def test_a_key_for_one_user_of_a_vm(cloud: Control, tmp_path: Path) -> None:
    await cloud.run("new --name web")
    signer = SshKeyFile.new(tmp_path, "signer")
    await cloud.run(f"ssh-key add --vm web --ssh-user deploy '{signer.line}'")
    caller = await cloud.cloud.caller_for_key(signer.line, source="x")
    assert caller is not None
    assert (await cloud.cloud.route(caller, "web")).login_user == "deploy"
    assert (await cloud.cloud.route(cloud.ann, "web")).login_user == "atoll"
    long = signer.token('{"cmds":["ssh"]}')
    short = (await cloud.run(f"ssh-key shorten {long}")).text
    for token in (long, short):  # no wider than the key
        by_token = await cloud.cloud.tokens.caller_for_token(token, "x")
        assert by_token is not None
        assert (await cloud.run("ssh web id", by_token)).run_in_vm == replace(
            await cloud.cloud.route(cloud.ann, "web"), login_user="deploy", caller=by_token
        )
    # It is not among the keys of the usual login user.
    await cloud.run("restart web")
    identity = cloud.engine.identities[on_engine(cloud, "web").vm]
    assert [line.split()[2] for line in identity.authorized_keys] == ["laptop"]
    assert "deploy@web" in (await cloud.run("ssh-key list")).text
    for flags in ("--ssh-user deploy", "--tag ci --ssh-user deploy", "--vm web --ssh-user '-x'",
                  "--vm web --ssh-user 'a b'", "--vm web --ssh-user Ann"):  # fmt: skip
        await cloud.fails(f"ssh-key add {flags} '{CI_KEY}'", Invalid)


async def test_vms_learn_which_keys_a_tag_lets_in(cloud: Control) -> None:
    await cloud.run("new --name web --tag ci")
    await cloud.run("new --name db")
    await cloud.run(f"ssh-key add --tag ci '{CI_KEY}'")

    async def opened(name: str, *keys: str) -> None:
        async def check() -> bool | None:
            identity = cloud.engine.identities[on_engine(cloud, name).vm]
            return [line.split()[2] for line in identity.authorized_keys] == list(keys) or None

        await poll(check, seconds=10, what=f"{name} to know {keys}", every=0.005)

    await opened("web", "laptop", "ci")
    await opened("db", "laptop")
    await cloud.run("tag db ci")
    await opened("db", "laptop", "ci")
    await cloud.run("tag -d web ci")
    await opened("web", "laptop")


async def test_the_last_key_of_the_account_itself_stays(cloud: Control) -> None:
    await cloud.run(f"ssh-key add --tag ci '{CI_KEY}'")
    assert "that is your last key" in await cloud.fails("ssh-key remove laptop", Conflict)


async def test_keys_and_tokens_are_renamed(cloud: Control) -> None:
    await cloud.run(f"ssh-key add '{CI_KEY}'")
    assert await cloud.data("ssh-key rename ci runner") == {
        "status": "renamed",
        "old_name": "ci",
        "new_name": "runner",
    }
    await cloud.run("ssh-key rename runner runner")  # to what it is called already
    await cloud.run("ssh-key generate-api-key --label old")
    await cloud.run("ssh-key generate-api-key --label other")
    assert (await cloud.run("ssh-key rename old new")).text == "old is now new"
    listed = await cloud.data("ssh-key list")
    assert [key["name"] for key in listed["ssh_keys"]] == ["laptop", "runner"]
    assert {token["label"] for token in listed["api_keys"]} == {"new", "other"}
    await cloud.fails("ssh-key rename runner laptop", Conflict)
    await cloud.fails("ssh-key rename runner 'a b'", Invalid)
    await cloud.fails("ssh-key rename new other", Conflict)
    await cloud.fails("ssh-key rename new 'a b'", Invalid)
    await cloud.fails("ssh-key rename nope x", NotFound)
    await cloud.fails("ssh-key rename runner x", NotFound, caller=cloud.bob)


async def test_a_signed_token_is_shortened(cloud: Control, tmp_path: Path) -> None:
    signer = SshKeyFile.new(tmp_path, "signer")
    await cloud.run(f"ssh-key add --tag ci '{signer.line}'")
    ends = int(cloud.clock()) + 60
    long = signer.token(f'{{"cmds":["whoami","ls"],"exp":{ends}}}')
    await cloud.run(f"exe0-to-exe1 {long}")
    reply = await cloud.run(f"ssh-key shorten {long}")
    assert re.fullmatch(r"atoll1\.[A-Za-z0-9_-]{43}", reply.text)
    assert reply.data["cmds"] == ["ls", "whoami"]
    assert reply.data["namespace"] == "v0@atoll.localhost"
    assert reply.data["expires_at"] == "2027-01-15T08:01:00Z"
    tokens = cloud.cloud.tokens
    short = await tokens.caller_for_token(reply.text, "x")
    whole = await tokens.caller_for_token(long, "x")
    assert short is not None
    assert whole is not None
    assert short.scope == whole.scope == Scope(cmds=frozenset({"ls", "whoami"}), tag="ci")
    assert short.credential == whole.credential
    await cloud.fails(f"ssh-key shorten {long}", Denied, caller=cloud.bob)
    await cloud.fails(f"ssh-key shorten {long[:-1]}", Denied)
    await cloud.fails(f"ssh-key shorten {reply.text}", Denied)
    await cloud.run("ssh-key remove key-1")
    assert await tokens.caller_for_token(reply.text, "x") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", "not a public SSH key of a known kind"),
        ("ssh-ed25519", "not a public SSH key of a known kind"),
        ("ssh-ed25519 AAAA", "not a public SSH key"),
        ("ssh-ed25519 AAAAB3NzaC1yc2E=", "not a public SSH key"),
        ("ssh-dss AAAAB3NzaC1kc3M=", "not a public SSH key of a known kind"),
        ('command="x" ssh-ed25519 AAAA', "not a public SSH key of a known kind"),
        ("ssh-ed25519-cert-v01@openssh.com AAAA", "not a public SSH key of a known kind"),
        ("ssh-ed25519 " + "A" * 20_000, "not a public SSH key of a known kind"),
    ],
)
async def test_bad_keys_are_refused(cloud: Control, text: str, said: str) -> None:
    assert said in await cloud.fails(f"ssh-key add {shlex.quote(text)}", Invalid)
    assert await cloud.cloud.caller_for_key(text, source="x") is None


NEGATIVE = b"".join(
    len(part).to_bytes(4, "big") + part for part in (b"ssh-rsa", b"\x81", b"\xff" * 256)
)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"-",
        bytes(range(256)),
        b"\xff\xfe" + CI_KEY.encode("utf-16-le"),
        CI_KEY.encode() + b"\n" + CI_KEY.encode(),
        CI_KEY.encode().replace(b" ci", b" ci\r" + CI_KEY.encode()),
        CI_KEY.encode().replace(b"AAAAC3", b"AAAAC3\0"),
        b'command="id" ' + CI_KEY.encode(),
        b"ssh-rsa " + base64.b64encode(NEGATIVE),
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
        b"---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----\n",
        b"PuTTY-User-Key-File-3: ssh-ed25519\r\n",
        b"ssh-ed25519 " + b"A" * 1_000_000,
    ],
)
async def test_files_that_are_no_key_are_refused(cloud: Control, content: bytes) -> None:
    before = await cloud.data("ssh-key list")
    with pytest.raises(Invalid) as refused:
        await cloud.run("ssh-key add --name odd -", stdin=content)
    assert len(refused.value.message) < 200
    assert refused.value.message.isprintable()
    assert await cloud.data("ssh-key list") == before


async def test_weak_rsa_keys_are_refused(cloud: Control) -> None:
    weak = asyncssh.generate_private_key("ssh-rsa", key_size=1024)
    line = weak.export_public_key("openssh").decode().strip()
    said = await cloud.fails(f"ssh-key add '{line}'", Invalid)
    assert said == "an RSA key of 1024 bits is too weak. Try: ssh-keygen -t ed25519"


async def test_key_errors(cloud: Control) -> None:
    assert "is yours already" in await cloud.fails(f"ssh-key add '{ANN}'", Conflict)
    said = await cloud.fails(f"ssh-key add '{ANN}'", Conflict, caller=cloud.bob)
    assert "another account's" in said
    assert "you have a key named" in await cloud.fails(
        f"ssh-key add --name laptop '{CI_KEY}'", Conflict
    )
    await cloud.fails(f"ssh-key add --name 'a b' '{CI_KEY}'", Invalid)
    assert "that is your last key" in await cloud.fails("ssh-key remove laptop", Conflict)
    assert "key 'nope' not found" in await cloud.fails("ssh-key remove nope", NotFound)
    await cloud.fails(f"ssh-key add --vm nope '{CI_KEY}'", NotFound)
    await cloud.fails(f"ssh-key add --tag NO '{CI_KEY}'", Invalid)
    await cloud.run("new --name web")
    said = await cloud.fails(f"ssh-key add --vm web --tag ci '{CI_KEY}'", Invalid)
    assert "--vm and --tag exclude one another" in said


async def test_api_keys(cloud: Control) -> None:
    reply = await cloud.run("ssh-key generate-api-key --label ci --cmds 'ls, new' --exp 30d")
    token = reply.data.pop("token")
    assert reply.text == token
    assert reply.data.pop("fingerprint").startswith("api:")
    assert reply.data == {
        "label": "ci",
        "namespace": "v0@atoll.localhost",
        "cmds": ["ls", "new"],
        "expires_at": "2027-02-14T08:00:00Z",
    }
    (entry,) = (await cloud.data("ssh-key list"))["api_keys"]
    assert (entry["label"], entry["cmds"], entry["vm_name"]) == ("ci", ["ls", "new"], None)
    tagged = (await cloud.run("ssh-key generate-api-key --tag ci --label tagged")).text
    caller = await cloud.cloud.tokens.caller_for_token(tagged, "x")
    assert caller is not None
    assert caller.scope.tag == "ci"
    assert "only for" in (await cloud.run("ssh-key list")).text.lower()
    await cloud.run("ssh-key remove tagged")
    assert (await cloud.run("ssh-key remove ci")).text == "removed ci"
    assert (await cloud.data("ssh-key list"))["api_keys"] == []


async def test_api_key_errors(cloud: Control) -> None:
    for flags, said in (
        ("--exp 0d", "--exp '0d' is not a time"),
        ("--exp 5", "--exp '5' is not a time"),
        ("--exp 9999y", "--exp 9999y is more than 100 years"),  # dates end with the year 9999
        ("--cmds nope", "no command 'nope'"),
        ("--cmds share", "no command 'share'"),  # a parent does not imply its children
        ("--label 'a b'", "is not a label"),
    ):
        assert said in await cloud.fails(f"ssh-key generate-api-key {flags}", Invalid)
    await cloud.fails("ssh-key generate-api-key --vm nope", NotFound)


async def test_tokens_run_only_their_commands(cloud: Control) -> None:
    await cloud.run("new --name web")
    await cloud.run("new --name db")
    cmds = frozenset(["ls", "ssh web", "ssh-key generate-api-key"])
    caller = replace(cloud.ann, scope=Scope(cmds=cmds))
    await cloud.run("ls", caller)
    await cloud.run("ssh web id", caller)
    await cloud.fails("ssh db id", Denied, caller=caller)
    said = await cloud.fails("rm web", Denied, caller=caller)
    assert said.startswith("this token does not allow `rm`. It allows: ls, ssh web")
    assert (await cloud.run("rm --help", caller)).text.startswith("Remove VMs")
    said = await cloud.fails("ssh-key generate-api-key --cmds ls,rm", Denied, caller=caller)
    assert said == "a token cannot give more than it has: rm. Try fewer --cmds"
    await cloud.run("ssh-key generate-api-key --cmds ls", caller)


async def test_browser(cloud: Control) -> None:
    reply = await cloud.run("browser")
    assert re.fullmatch(r"https://atoll\.localhost:8443/login/[A-Za-z0-9_-]{43}", reply.text)
    assert reply.data == {"url": reply.text, "expires_at": "2027-01-15T08:10:00Z"}


# --- help ---


async def test_help(cloud: Control) -> None:
    text = (await cloud.run("help")).text
    assert text.splitlines()[1].split(None, 1) == ["new", "Make a VM and wait until it answers"]
    assert (await cloud.run("?")).text == text
    assert "Usage: share port <vm> [port]" in (await cloud.run("help share port")).text
    assert (await cloud.run("share port --help")).text == (await cloud.run("help share port")).text
    family = (await cloud.run("help share")).text
    assert "share set-public" in family
    assert "rename" not in family
    await cloud.fails("help nope", Invalid)
    names = [flag["names"] for flag in (await cloud.data("rm --help"))["flags"]]
    assert names == [["--all"], ["--json"], ["--help"], ["--dry-run"]]


async def test_doc(cloud: Control) -> None:
    assert (await cloud.run("doc")).text.startswith("# Pages\n")
    assert (await cloud.run("doc rm")).text.startswith("# rm\n")
    assert (await cloud.run("exit")).text == ""


async def test_json_is_one_line_and_indented_for_people(cloud: Control) -> None:
    text = (await cloud.run("ls --json")).text
    assert text == '{"vms":[]}'
    assert isinstance(text, Json)
    assert text.indented() == '{\n  "vms": []\n}'
    unsafe = Json({"a": "\x9b2J", "b": [1]})
    assert "\x9b" not in unsafe + unsafe.indented()
    assert json.loads(unsafe) == json.loads(unsafe.indented()) == {"a": "\x9b2J", "b": [1]}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", {"new", "ls", "share", "ssh-key", "exit", "quit"}),
        ("re", {"rename", "restart", "resume"}),
        ("share a", {"add", "add-link", "add-share-link", "accept", "ask"}),
        ("share set-", {"set-public", "set-private"}),
        ("rm ", {"web", "web-next"}),
        ("rm web ", {"web-next"}),
        ("rm web-", {"web-next"}),
        ("rename web ", set()),
        ("new --", {"--name", "--image", "--json", "--help"}),
        ("new --image ", {"debian"}),
        ("new --tag ", {"prod"}),
        ("tag web ", {"prod"}),
        ("ssh-key remove ", {"laptop"}),
        ("help ren", {"rename"}),
        ("doc share-set-", {"share-set-public", "share-set-private"}),
        ("doc ski", {"skill"}),
        ("nope ", set()),
        ("rm 'we", {"web", "web-next"}),
    ],
)
async def test_completion(cloud: Control, line: str, words: set[str]) -> None:
    await cloud.run("new --name web --tag prod")
    await cloud.run("new --name web-next")
    await cloud.run("new --name other", cloud.bob)
    found = await cloud.language.complete(cloud.ann, line)
    assert found == sorted(found)
    assert set(found) >= words
    if not words or line.startswith(("rm", "share", "ssh-key")):
        assert set(found) == words


async def test_changes_are_recorded(cloud: Control) -> None:
    await cloud.run("new --name web")
    await cloud.run("ls")
    await cloud.run("rm web")
    async with cloud.store.read() as tx:
        found = await events.latest(tx, cloud.ann.account.id, limit=10)
    assert [(event.kind, event.vm, event.door) for event in found] == [
        ("rm", "web", "ssh"),
        ("new", "web", "ssh"),
    ]
    assert found[0].detail["by"] == cloud.ann.key_fingerprint
