"""Remove what an engine left in the kernel. Data stays. The engine must not run."""

from __future__ import annotations

import asyncio
import shutil

from atoll.base import log
from atoll.base.errors import AtollError
from atoll.config import Config
from atoll.engine.cgroup import Cgroups
from atoll.engine.jail import Jail
from atoll.engine.net.dns import Resolver
from atoll.engine.net.network import Network
from atoll.engine.net.services import Services
from atoll.engine.node import dns_pid_file

_log = log.get("teardown")


def teardown(config: Config) -> None:
    """End VM processes, remove control groups, network slots, rules, the jail and the sockets."""
    asyncio.run(_teardown(config))


async def _teardown(config: Config) -> None:
    await Cgroups(instance=config.network.instance).teardown()
    network = Network(settings=config.network, services=Services.of(config), slots_ready=0)
    try:
        await network.teardown()
    except AtollError as error:
        _log.error("network not removed", reason=str(error))
    resolver = Resolver(address=network.layout.service, upstream=(), pid_file=dns_pid_file(config))
    await resolver.end_predecessor()
    await Jail(folder=config.paths.run / "jail").teardown()
    await asyncio.to_thread(shutil.rmtree, config.paths.run / "vm", ignore_errors=True)
