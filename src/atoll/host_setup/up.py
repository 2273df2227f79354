"""`atoll up`: from an installed package to a cloud one can use. Run again it changes nothing."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

from atoll.base import ids
from atoll.base.aio import poll
from atoll.base.errors import AtollError, Unavailable
from atoll.base.units import MIB, parse_size, show_size
from atoll.config import Config
from atoll.doors.local import socket_path
from atoll.doors.web.assets import vendored
from atoll.engine import downgrade
from atoll.host_setup import first_vm, layout, remembered
from atoll.host_setup.local import Local
from atoll.host_setup.people import Key, Person, caller, ensure_key
from atoll.host_setup.processes import choose
from atoll.host_setup.progress import Progress, beside
from atoll.host_setup.web_files.declared import FOR_PAGES
from atoll.host_setup.web_files.install import install, is_installed
from atoll.host_setup.web_files.registry import Registry, address
from atoll.rpc.client import EngineClient
from atoll.rpc.messages import Image, Node, NodeInfo, Prepare

START_S = 120.0  # the first start probes KVM with a guest under a deadline of its own
EDGE_S = 60.0
PREPARE_S = 3600.0  # an image is downloaded and built; minutes on a fast line


async def up(config: Config, config_path: Path, progress: Progress) -> None:
    """Start everything, make the image, the first account and the first VMs; say what was done."""
    layout.require_root("atoll up")
    await asyncio.to_thread(downgrade.refuse, config.pool)  # while what runs is still the newer one
    await layout.prepare(config)
    if layout.ensure_config_file(config, config_path):
        progress.say(f"  wrote {config_path}")
    await _web_files(config, progress)
    person = caller()
    engine = EngineClient(socket=config.engine_socket)
    local = Local(socket=socket_path(config.paths.run))
    try:
        await choose(config, config_path).start()
        node = await progress.step("engine", engine_ready(engine))
        await progress.step("control", control_ready(local))
        await progress.step("edge", _edge_ready(config))
        await _image(config, engine, node.accel, progress)
        await _come_back(config, engine, progress)
        key = await _owner(local, person, progress)
        await first_vm.ensure(config, local, key, progress)
        await _summary(config, local, node, progress)
    finally:
        await engine.close()


async def _web_files(config: Config, progress: Progress) -> None:
    """What the page is made with, from npm; before anything starts, since control reads it then."""
    folder = vendored()
    if await asyncio.to_thread(is_installed, folder, FOR_PAGES):
        return
    registry = Registry(url=address(), cache=config.paths.cache / "npm")
    job = asyncio.to_thread(install, folder, FOR_PAGES, registry, progress.note)
    await progress.step("files of the web page", job)


async def engine_ready(engine: EngineClient) -> Node:
    """The node's facts, as soon as the engine answers."""

    async def ask() -> Node | None:
        try:
            return await engine.call(NodeInfo(), Node, seconds=10)
        except Unavailable:
            return None

    return await poll(ask, seconds=START_S, what="starting the engine", every=0.1)


async def control_ready(local: Local) -> None:
    """Return as soon as control answers."""

    async def ask() -> bool | None:
        return await local.answers() or None

    await poll(ask, seconds=START_S, what="starting control", every=0.1)


async def _edge_ready(config: Config) -> None:
    async def connect() -> bool | None:
        try:
            _reader, writer = await asyncio.open_connection(
                _reachable(config.https.listen), config.https.port
            )
        except OSError:
            return None
        writer.close()
        return True

    await poll(connect, seconds=EDGE_S, what="starting HAProxy", every=0.1)


async def _image(config: Config, engine: EngineClient, accel: str, progress: Progress) -> None:
    """Build the default image by today's recipe, and its warm template, unless they are there."""
    cpus = config.vms.cpus_on(accel)
    memory_bytes = parse_size(config.vms.memory, what="vms.memory") // MIB * MIB
    request = Prepare(
        op=ids.new("op"), image=config.vms.image, cpus=cpus, memory_bytes=memory_bytes
    )

    async def watch() -> None:
        async for event in engine.events():
            if event.vm is None:
                progress.note(event.detail or event.kind)

    await progress.step(
        f"image {config.vms.image}, warm at {cpus} CPU, {show_size(memory_bytes)}",
        beside(engine.call(request, Image, seconds=PREPARE_S), watch),
    )


async def _come_back(config: Config, engine: EngineClient, progress: Progress) -> None:
    """VMs that ran before `down` are wanted running, so control resumes them; wait for it."""
    vms = remembered.read(config.paths.state)
    if not vms:
        return
    missing = await progress.step(
        f"{len(vms)} VM{'s' * (len(vms) > 1)} back from disk", remembered.wait_running(engine, vms)
    )
    for vm, why in missing.items():
        progress.say(f"  {vm} did not come back: {why}")
    remembered.forget(config.paths.state)


async def _owner(local: Local, person: Person, progress: Progress) -> Key:
    key = await ensure_key(person)
    if key.is_new:
        progress.say(f"  made an SSH key for {person.name}: {key.private}")
    label = f"{person.name}-{key.private.name.removeprefix('id_')}".replace("_", "-")
    await local.ensure_owner(email=person.email, key=key.line, label=label)
    return key


async def _summary(config: Config, local: Local, node: Node, progress: Progress) -> None:
    vms = (await local.data("ls --json")).get("vms", [])
    ssh = ssh_command(config)
    progress.say("")
    progress.say(f"  {node.accel}: {node.accel_reason}, QEMU {node.qemu_version}, {len(vms)} VMs")
    for problem in node.problems:
        progress.say(f"  degraded: {problem}")
    for vm in vms[:10]:
        name = str(vm["vm_name"])
        progress.say(
            f"  {name:<16} {vm['status']:<9} {vm['https_url']}   {ssh_command(config, name)}"
        )
    progress.say("")
    progress.say(f"  a new VM      {ssh} new")
    progress.say(f"  all commands  {ssh} help")
    progress.say(f"  your browser  {await _browser_link(local)}")
    progress.say(
        "  short names   atoll ssh-config --install   (then: ssh atoll new, ssh web.atoll)"
    )


async def _browser_link(local: Local) -> str:
    try:
        reply = await local.execute("browser")
    except AtollError as error:
        return str(error)
    return str(reply["text"]).strip().replace("\n", " ")


def ssh_command(config: Config, user: str = "") -> str:
    """`ssh -p 2222 web@localhost`, as short as it can be."""
    host = config.ssh.host or "localhost"
    port = "" if config.ssh.port == 22 else f"-p {config.ssh.port} "
    return f"ssh {port}{shlex.quote(f'{user}@{host}' if user else host)}"


def _reachable(listen: str) -> str:
    return "127.0.0.1" if listen in ("0.0.0.0", "::", "") else listen
