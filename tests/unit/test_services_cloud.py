"""The cloud towards its doors: who calls, where a VM is, what is published, and staying in step."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

from atoll.base.aio import poll
from atoll.base.errors import Conflict, Invalid, NotFound
from atoll.domain.vm import Wanted
from atoll.rpc.messages import GIB, Delete, Resume, Spec, Vm, VmState
from atoll.services.keys import Keys
from atoll.store import operations, vms
from fakes.engine import FakeEngine
from framework.cloud import ANN, BOB, Clock, Control, control
from framework.published import published

STRAY = Vm(
    vm="vm-strayvm00001",
    owner="acct-else",
    spec=Spec(image="debian", cpus=1, memory_bytes=GIB, disk_bytes=GIB),
    state=VmState.RUNNING,
    address="10.213.9.2",
)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[FakeEngine]:
    made = FakeEngine(tmp_path / "engine.sock")
    async with made.serving():
        yield made


@pytest.fixture
async def cloud(tmp_path: Path, engine: FakeEngine) -> AsyncIterator[Control]:
    async with control(tmp_path / "control", engine, loops=True) as made:
        yield made


async def until(cloud: Control, name: str, status: str) -> None:
    """Wait until `ls` says so."""

    async def check() -> bool | None:
        listed = (await cloud.data("ls"))["vms"]
        return {vm["vm_name"]: vm["status"] for vm in listed}.get(name) == status or None

    await poll(check, seconds=10, what=f"{name} to be {status}", every=0.01)


def only(engine: FakeEngine) -> str:
    """The id of the one VM."""
    (vm,) = engine.vms
    return vm


async def test_callers_are_known_by_their_key(cloud: Control) -> None:
    caller = await cloud.cloud.caller_for_key(f"{ANN} some comment", source="192.0.2.7")
    assert caller is not None
    assert caller.account.email == "ann@example.com"
    assert caller.account.is_admin
    assert (caller.key_fingerprint or "").startswith("SHA256:")
    assert caller.source == "192.0.2.7"
    new = asyncssh.generate_private_key("ssh-ed25519").export_public_key("openssh").decode()
    assert await cloud.cloud.caller_for_key(new, source="x") is None


async def test_the_owner_of_the_machine(cloud: Control) -> None:
    accounts = cloud.cloud.accounts
    assert await accounts.owner() == cloud.ann.account
    new = asyncssh.generate_private_key("ssh-ed25519").export_public_key("openssh").decode()
    cloud.clock.time += 1
    for _ in range(2):  # again: the same account, the same key
        owner = await accounts.ensure_owner(email="x@example.com", key_line=new, label="a b")
        assert owner == cloud.ann.account
    assert [key.name for key in await accounts.keys(cloud.ann)] == ["laptop", "key-1"]
    with pytest.raises(Conflict, match="another account's"):
        await accounts.ensure_owner(email="x@example.com", key_line=BOB, label="")
    for wrong in ("", "x", "a b@c", "a@b\nc", "@"):
        with pytest.raises(Invalid, match="is not an e-mail address"):
            await accounts.ensure(wrong, ANN)


async def test_route(cloud: Control, engine: FakeEngine) -> None:
    await cloud.run("new --name web")
    route = await cloud.cloud.route(cloud.ann, "web")
    vm = engine.vms[only(engine)]
    assert (route.vm_id, route.vm_name, route.address) == (vm.vm, "web", vm.address)
    with pytest.raises(NotFound, match='VM "web" not found'):
        await cloud.cloud.route(cloud.bob, "web")
    await cloud.run("pause web")
    with pytest.raises(Conflict) as caught:
        await cloud.cloud.route(cloud.ann, "web")
    assert caught.value.hint == "Try: resume web"


async def test_route_asks_the_engine_before_it_refuses(cloud: Control, engine: FakeEngine) -> None:
    await cloud.run("new --name web")
    vm = only(engine)
    cloud.cloud.facts.gone(vm)
    assert (await cloud.cloud.route(cloud.ann, "web")).vm_id == vm


async def test_the_end_of_a_vm_is_told_once(cloud: Control, engine: FakeEngine) -> None:
    ended: list[str] = []
    cloud.cloud.facts.when_vm_ends(ended.append)
    await cloud.run("new --name web")
    await until(cloud, "web", "running")
    await cloud.run("pause web")
    assert ended == [only(engine)]
    await cloud.run("resume web")
    await cloud.run("restart web")
    await cloud.run("rm web")
    assert set(ended) == {only(engine)}
    assert len(ended) >= 2, "when it was removed"


async def test_published(cloud: Control, engine: FakeEngine) -> None:
    await cloud.run("new --name web")
    await cloud.run("share port web 3000")
    await cloud.run("share set-public web")
    await cloud.run("new --name db", cloud.bob)
    await cloud.run("pause db", cloud.bob)
    await cloud.run("new --name gone")
    await cloud.run("rm gone")
    address = next(vm.address for vm in engine.vms.values() if vm.state is VmState.RUNNING)
    assert await cloud.cloud.published() == (
        published("db", None, {cloud.bob.account.id}),
        published("web", address, {cloud.ann.account.id}, is_public=True, port=3000),
    )


@pytest.mark.parametrize(
    "line",
    [
        "new",
        "rm web",
        "pause web",
        "rename web x",
        "share set-public web",
        "share port web 1",
        "cp web",
    ],
)
async def test_what_the_edge_shows_wakes_it(cloud: Control, line: str) -> None:
    await cloud.run("new --name web")
    version = cloud.cloud.changes.version
    await cloud.run(line)
    assert await cloud.cloud.changes.wait_beyond(version) > version


async def test_events_change_what_is_shown(cloud: Control, engine: FakeEngine) -> None:
    await cloud.run("new --name web")
    engine.die(only(engine))
    await until(cloud, "web", "stopped")
    (web,) = await cloud.cloud.published()
    assert web.address is None


async def test_an_engine_that_leaves_and_returns(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with contextlib.AsyncExitStack() as stack:
        serving = contextlib.AsyncExitStack()
        await serving.enter_async_context(engine.serving())
        cloud = await stack.enter_async_context(control(tmp_path / "c", engine, loops=True))
        await cloud.run("new --name web")
        await serving.aclose()

        async def is_away() -> bool | None:
            return (not cloud.cloud.facts.connected) or None

        await poll(is_away, seconds=20, what="the loss to be seen", every=0.01)
        engine.die(only(engine))  # nobody hears of it

        async def is_started() -> bool | None:
            return any(isinstance(request, Resume) for request in engine.asked) or None

        async with engine.serving():
            await poll(is_started, seconds=20, what="web to be started", every=0.01)
            await until(cloud, "web", "running")
            assert engine.vms[only(engine)].state is VmState.RUNNING


@pytest.mark.parametrize("state", [VmState.STOPPED, VmState.PAUSED])
async def test_vms_that_ran_run_again_after_the_machine_was_down(
    tmp_path: Path, engine: FakeEngine, state: VmState
) -> None:
    async with control(tmp_path / "c", engine) as cloud:
        for name in ("web", "paused", "removed"):
            await cloud.run(f"new --name {name}")
        await cloud.run("pause paused")
        await cloud.run("rm removed")
        (web,) = (vm.vm for vm in engine.vms.values() if vm.state is VmState.RUNNING)
    engine._put(web, state=state, address=None, pid=None)
    async with control(tmp_path / "c", engine, loops=True) as cloud:
        await until(cloud, "web", "running")
        await until(cloud, "paused", "paused")
        resumed = [request.vm for request in engine.asked if isinstance(request, Resume)]
        assert resumed == [web]


async def test_a_vm_that_powers_itself_off_stays_off(tmp_path: Path, engine: FakeEngine) -> None:
    async with control(tmp_path / "c", engine, loops=True) as cloud:
        await cloud.run("new --name web")
        await cloud.cloud.reconciler.reconcile()
        engine._put(only(engine), state=VmState.STOPPED, address=None, pid=None)

        async def is_noted() -> bool | None:
            async with cloud.store.read() as tx:
                (vm,) = await vms.everywhere(tx)
            return vm.wanted is Wanted.STOPPED or None

        await poll(is_noted, seconds=10, what="the power-off to be noted", every=0.01)
    async with control(tmp_path / "c", engine, loops=True) as cloud:
        await cloud.cloud.journal.resume()
        await until(cloud, "web", "stopped")
        await cloud.run("resume web")
        await until(cloud, "web", "running")


async def test_a_vm_nobody_knows_is_kept_and_reported(cloud: Control, engine: FakeEngine) -> None:
    engine.vms[STRAY.vm] = STRAY
    await cloud.cloud.reconciler.reconcile()
    assert engine.vms.keys() == {STRAY.vm}
    assert cloud.cloud.facts.strays == {STRAY.vm: STRAY}
    assert await cloud.cloud.published() == ()


async def test_a_vm_the_journal_ended_is_deleted(cloud: Control, engine: FakeEngine) -> None:
    await cloud.run("new --name web")
    vm = only(engine)
    async with cloud.store.begin() as tx:
        await vms.remove(tx, vm)
    await cloud.cloud.reconciler.reconcile()
    assert engine.vms == {}
    assert any(isinstance(request, Delete) for request in engine.asked)
    async with cloud.store.read() as tx:
        assert await operations.unfinished(tx) == ()


def test_keys_are_made_once_and_private(tmp_path: Path) -> None:
    first, again = (Keys(tmp_path / "keys") for _ in range(2))
    assert first.host_ca_public == again.host_ca_public
    assert first.user_ca_public == again.user_ca_public != first.host_ca_public
    assert first.session_key == again.session_key
    assert len(first.session_key) == 32
    assert first.vm_host_key("vm-1")[1] == again.vm_host_key("vm-1")[1]
    assert first.vm_host_key("vm-1")[1] != first.vm_host_key("vm-2")[1]
    assert first.new_host_key() != first.new_host_key()
    for path in (tmp_path / "keys").iterdir():
        expected = 0o644 if path.suffix == ".pub" else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected


def test_host_keys_of_vms_are_keys_that_openssh_reads(tmp_path: Path) -> None:
    private, public = Keys(tmp_path / "keys").vm_host_key("vm-1")
    (tmp_path / "key").write_text(private)
    (tmp_path / "key").chmod(0o600)
    shown = subprocess.run(
        ["ssh-keygen", "-y", "-f", tmp_path / "key"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.split()[:2] == public.split()


def test_certificates_say_who_and_how_long(tmp_path: Path) -> None:
    clock = Clock()
    keys = Keys(tmp_path / "keys", now=clock)
    _, public = keys.new_host_key()
    host = listed(tmp_path, keys.host_certificate(public, ("vm-1", "web", "web.x")))
    assert "host certificate" in host
    assert host.split("Principals:")[1].split()[:3] == ["vm-1", "web", "web.x"]
    assert "before 2037-01-12T08:00:00" in host
    user = listed(tmp_path, keys.user_certificate(public, ("atoll",), 60))
    assert "user certificate" in user
    assert user.split("Principals:")[1].split()[0] == "atoll"
    assert "from 2027-01-15T07:00:00 to 2027-01-15T08:01:00" in user


def listed(folder: Path, certificate: str) -> str:
    """What OpenSSH reads in a certificate."""
    path = folder / "key-cert.pub"
    path.write_text(certificate + "\n")
    argv = ["ssh-keygen", "-L", "-f", str(path)]
    environment = {"TZ": "UTC", "PATH": os.environ["PATH"]}
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=environment)
    return done.stdout
