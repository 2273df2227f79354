"""Composition root: builds every object of a process and owns its top task group.

Imports everything, is imported by `__main__` only.
"""

from __future__ import annotations

import asyncio
import gc

from atoll.base import log
from atoll.base.aio import TaskGroup
from atoll.commands.addresses import Addresses
from atoll.commands.language import Language
from atoll.commands.library import Library
from atoll.commands.verbs import REGISTRY
from atoll.config import Config
from atoll.doors.api.app import Api
from atoll.doors.edge.loop import EdgeSync
from atoll.doors.front.app import Front
from atoll.doors.front.serve import serve
from atoll.doors.local import LocalDoor, PublicKeys, socket_path
from atoll.doors.names.files import Files, read_addresses
from atoll.doors.names.loop import NameSync, no_addresses
from atoll.doors.ssh.door import SshDoor
from atoll.doors.ssh.run import Runner
from atoll.doors.ssh.shells import Shells
from atoll.doors.web.app import Web
from atoll.doors.web.assets import Assets
from atoll.doors.web.terminal.pool import Terminals
from atoll.engine import node
from atoll.rpc.client import EngineClient
from atoll.services.cloud import Cloud
from atoll.services.keys import Keys
from atoll.services.sessions import Sessions
from atoll.services.vm_addresses import VmAddresses
from atoll.store.engine import Store

_log = log.get("control")


async def run_engine(config: Config) -> None:
    """The engine, until cancelled."""
    await node.run(config)


async def run_control(config: Config) -> None:
    """Control with all its doors, until cancelled."""
    store = Store(config.database_url)
    engine = EngineClient(socket=config.engine_socket)
    try:
        await store.migrate()
        await _serve(config, store, engine)
    finally:
        await engine.close()
        await store.close()


async def _serve(config: Config, store: Store, engine: EngineClient) -> None:
    folder = config.control_state / "keys"
    keys = Keys(folder)
    cloud = Cloud(config=config, store=store, engine=engine, keys=keys)
    sessions = Sessions(
        store=store,
        changes=cloud.changes,
        key=keys.session_key,
        session_seconds=config.https.session_hours * 3600,
    )
    language = Language(cloud=cloud, sessions=sessions)
    places = _places(config, store, keys)
    ssh = SshDoor(
        places=places,
        listen=config.ssh.listen,
        port=config.ssh.port,
        domain=config.https.domain,
        directory=cloud,
        language=language,
        history=cloud.history,
        keys=keys,
    )
    cloud.accounts.when_key_ends(lambda key: ssh.end_key(key.fingerprint))
    edge = EdgeSync(
        config=config,
        keys=folder,
        cloud=cloud,
        sessions=sessions,
        changes=cloud.changes,
        is_informed=lambda: cloud.facts.connected,
    )
    terminals = Terminals(
        shells=Shells(opener=ssh, language=language, history=cloud.history),
        language=language,
        sessions=sessions,
        changes=cloud.changes,
    )
    cloud.facts.when_vm_ends(terminals.end_vm)  # before its connection ends: it says why
    cloud.facts.when_vm_ends(ssh.end_vm)
    cloud.withdrawal.when_lost(terminals.end_access)
    cloud.withdrawal.when_lost(ssh.end_access)
    addresses = Addresses(config)
    names = addresses.names
    library = Library(registry=REGISTRY, addresses=addresses)
    api = Api(
        url=names.url(names.domain, ""),
        library=library,
        language=language,
        callers=cloud.tokens,
        answers=cloud.answers,
        ca=folder / "ca.pem",
        runner=Runner(opener=ssh),
    )
    web = Web(
        names=names,
        assets=Assets(),
        ssh=addresses.lobby_command,
        session_seconds=config.https.session_hours * 3600,
        registry=REGISTRY,
        library=library,
        language=language,
        sessions=sessions,
        published=cloud.published,
        changes=cloud.news,
        terminals=terminals,
    )
    front = Front(
        names=names,
        cloud=(*api.routes(), *web.cloud_routes()),
        vm=web.vm_routes(),
        refuse=web.refuse,
    )
    cloud.accounts.when_key_ends(lambda key: api.end(key.fingerprint))
    cloud.tokens.when_token_ends(api.end)
    local = LocalDoor(
        path=socket_path(config.paths.run),
        language=language,
        owners=cloud.accounts,
        keys=PublicKeys(gateway=keys.host_key_public, host_ca=keys.host_ca_public),
    )
    gc.collect()
    gc.freeze()  # what is here by now stays; walking it for every few requests was 15% of `/exec ls`
    async with TaskGroup() as group:
        group.create_task(cloud.run(), name="cloud")
        group.create_task(_edge(edge), name="edge")
        if config.dns.enabled:
            by_name = places.by_name if places else no_addresses
            zone = NameSync(config=config, changes=cloud.changes, vms=by_name)
            group.create_task(zone.run(), name="names")
        group.create_task(serve(front.app(), port=config.control.api_port), name="http")
        group.create_task(web.run(), name="web")
        group.create_task(ssh.run(), name="ssh")
        async with local.serving():
            _log.info("control ready", ssh_port=config.ssh.port)
            await asyncio.Event().wait()


def _places(config: Config, store: Store, keys: Keys) -> VmAddresses | None:
    """The VMs' own addresses, where there is a network for them."""
    network, files = config.dns.vm_network, Files(config.dns_run)
    if network is None:
        return None
    return VmAddresses(
        store=store,
        network=network,
        key=keys.address_key,
        own=lambda: set(read_addresses(files)) | set(config.dns.ipv6),
    )


async def _edge(edge: EdgeSync) -> None:
    await edge.prepare()
    await edge.run()
