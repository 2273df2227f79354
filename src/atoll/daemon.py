"""Composition root: builds every object of a process and owns its top task group.

Imports everything, is imported by `__main__` only.
"""

from __future__ import annotations

import asyncio
import gc
import time

from atoll.base import log
from atoll.base.aio import TaskGroup
from atoll.base.fetch import Fetcher
from atoll.base.limits import Limits
from atoll.commands.addresses import Addresses
from atoll.commands.language import Language
from atoll.commands.library import Library
from atoll.commands.verbs import REGISTRY
from atoll.config import Config
from atoll.doors.api.app import Api
from atoll.doors.edge.access_log import AccessLog
from atoll.doors.edge.asked import Questions
from atoll.doors.edge.files import Files
from atoll.doors.edge.loop import EdgeSync
from atoll.doors.front.app import Front
from atoll.doors.front.serve import serve
from atoll.doors.local import LocalDoor, PublicKeys, socket_path
from atoll.doors.metadata.app import URL as METADATA_URL
from atoll.doors.metadata.app import Metadata
from atoll.doors.names.files import Files as NameFiles
from atoll.doors.names.files import read_addresses
from atoll.doors.names.loop import NameSync, no_addresses
from atoll.doors.ssh.door import SshDoor
from atoll.doors.ssh.run import Runner
from atoll.doors.ssh.shells import Shells
from atoll.doors.web.app import Web
from atoll.doors.web.assets import Assets
from atoll.doors.web.elsewhere import BACK
from atoll.doors.web.openid.endpoints import Endpoints
from atoll.doors.web.openid.provider import Provider
from atoll.doors.web.terminal.pool import Terminals
from atoll.engine import node
from atoll.rpc.client import EngineClient
from atoll.services.certificates.assembly import certificates
from atoll.services.certificates.proofs import HttpProofs
from atoll.services.cloud import Cloud
from atoll.services.elsewhere import Elsewhere
from atoll.services.identities import Identities
from atoll.services.issuer import Issuer
from atoll.services.keys import Keys
from atoll.services.openid import OpenId
from atoll.services.sessions import Sessions
from atoll.services.vm_addresses import VmAddresses
from atoll.services.workload import Workload
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
        keys=keys.tokens,
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
    proofs = HttpProofs(changes=cloud.changes)
    edge = EdgeSync(
        config=config,
        keys=folder,
        cloud=cloud,
        sessions=sessions,
        signing=keys.tokens,
        tokens=cloud.vm_tokens,
        changes=cloud.changes,
        is_informed=lambda: cloud.facts.connected,
        keeping=cloud.shelf,
        naming=cloud.domains,
        proofs=lambda: proofs.answers,
    )
    questions = Questions(
        path=Files(config.edge_run).questions, domain=config.https.domain, tokens=cloud.vm_tokens
    )
    visits = AccessLog(
        path=Files(config.edge_run).visits, visits=cloud.visits, ports=cloud.web_ports
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
    fetcher = Fetcher()
    providers = [
        Elsewhere(
            settings=settings,
            redirect_uri=names.url(names.domain, f"{BACK}{settings.name}"),
            fetcher=fetcher,
        )
        for settings in config.oidc.providers
    ]
    web = Web(
        names=names,
        assets=Assets(),
        ssh=addresses.lobby_command,
        session_seconds=config.https.session_hours * 3600,
        registry=REGISTRY,
        library=library,
        language=language,
        sessions=sessions,
        mailed_links=cloud.mailed_links,
        passkeys=cloud.passkeys,
        published=cloud.publishing.named,
        changes=cloud.news,
        terminals=terminals,
        audit=cloud.audit,
        custom=cloud.domains.served,
        providers=providers,
        identities=Identities(store=store, joining=cloud.joining),
    )
    issuer = Issuer(url=names.url(names.domain, ""), folder=folder)
    openid = OpenId(store=store, issuer=issuer, sessions=sessions, published=cloud.publishing.named)
    provider = Provider(names=names, openid=openid, issuer=issuer, web=web)
    metadata = Metadata(
        workload=Workload(store=store, facts=cloud.facts, issuer=issuer, names=names),
        limits=Limits(monotonic=time.monotonic),
        more=Endpoints(openid=openid, issuer=issuer, back=METADATA_URL).routes(),
    )
    front = Front(
        names=names,
        cloud=(*api.routes(), *web.cloud_routes(), *provider.routes()),
        vm=web.vm_routes(),
        refuse=web.refuse,
        custom=cloud.domains.served,
    )
    cloud.accounts.when_key_ends(lambda key: api.end(key.fingerprint))
    cloud.tokens.when_token_ends(api.end)
    local = LocalDoor(
        path=socket_path(config.paths.run),
        language=language,
        owners=cloud.accounts,
        keys=PublicKeys(gateway=keys.host_key_public, host_ca=keys.host_ca_public),
        problems=lambda: [cloud.audit.problem] if cloud.audit.problem else [],
        issuer=issuer,
        signing=keys.tokens,
        changed=cloud.changes.bump,
    )
    gc.collect()
    gc.freeze()  # what is here by now stays; walking it for every few requests was 15% of `/exec ls`
    try:
        async with TaskGroup() as group:
            group.create_task(cloud.run(), name="cloud")
            group.create_task(_edge(edge, questions, visits), name="edge")
            if config.acme.directory:
                job = certificates(
                    config, keys=folder, cloud=cloud, proofs=proofs, changes=cloud.changes
                )
                group.create_task(job, name="certificates")
            if config.dns.enabled:
                by_name = places.by_name if places else no_addresses
                zone = NameSync(config=config, changes=cloud.changes, vms=by_name)
                group.create_task(zone.run(), name="names")
            group.create_task(serve(front.app(), port=config.control.api_port), name="http")
            group.create_task(_metadata(metadata, config), name="metadata")
            group.create_task(web.run(), name="web")
            group.create_task(ssh.run(), name="ssh")
            async with local.serving():
                _log.info("control ready", ssh_port=config.ssh.port)
                await asyncio.Event().wait()
    finally:
        await cloud.audit.close()  # the doors are shut, and what they cut short is noted


async def _metadata(metadata: Metadata, config: Config) -> None:
    """At the address that the engine gives services for VMs; see atoll.engine.net.services."""
    port = config.control.services_port
    await serve(metadata.app(), port=port, address=str(config.network.service))


def _places(config: Config, store: Store, keys: Keys) -> VmAddresses | None:
    """The VMs' own addresses, where there is a network for them."""
    network, files = config.dns.vm_network, NameFiles(config.dns_run)
    if network is None:
        return None
    return VmAddresses(
        store=store,
        network=network,
        key=keys.address_key,
        own=lambda: set(read_addresses(files)) | set(config.dns.ipv6),
    )


async def _edge(edge: EdgeSync, questions: Questions, visits: AccessLog) -> None:
    await edge.prepare()
    async with questions.serving(), visits.serving():
        await edge.run()
