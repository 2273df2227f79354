"""Start Knot: `atoll serve dns`, root, which becomes Knot with the right to its port and no other.

What needs root is done here: folders, configuration with the key for updates, and the route by which
the VMs' IPv6 addresses are this machine's (AnyIP: one route in place of an address per VM).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NoReturn

from atoll.base import atomic, log
from atoll.base.aio import poll
from atoll.base.errors import AtollError
from atoll.base.proc import run
from atoll.config import Config
from atoll.doors.names import addresses, knot
from atoll.doors.names.files import DNS_USER, Files, make_folders, update_key, write_for

CONTROL_S = 120.0  # as long as the edge waits for control on a first start
_IP_S = 10.0
_log = log.get("dns")


async def prepare(config: Config) -> None:
    """Folders, configuration, route. Raises Unavailable when control does not write its files."""
    files = Files(config.dns_run)
    make_folders(files, control_user=config.control.user)
    own = await addresses.found(config)
    listed = json.dumps([str(one) for one in own]).encode()
    atomic.write(files.addresses, listed, mode=0o644, exact=True)
    needed = (update_key(config), files.zone(config.https.domain))

    async def written() -> bool | None:
        return all(path.exists() for path in needed) or None

    await poll(written, seconds=CONTROL_S, what="control writing the zone")
    text = knot.render(
        config, listen=addresses.listening(config, own), key=update_key(config).read_text()
    )
    write_for(files.configuration, text, DNS_USER)
    try:
        await route(config)
    except AtollError as error:  # names work without it; the doctor says what does not
        _log.warning("no addresses for VMs", reason=str(error))


async def route(config: Config) -> None:
    """Take connections to any address of the VMs' network; one routed earlier goes."""
    files, wanted = Files(config.dns_run), config.dns.vm_network
    if files.route.exists() and files.route.read_text() != str(wanted):
        await withdraw(config)
    if wanted is not None:
        atomic.write(files.route, str(wanted).encode())
        await run(
            ["ip", "-6", "route", "replace", "local", str(wanted), "dev", "lo"], seconds=_IP_S
        )


async def withdraw(config: Config) -> None:
    """Take the route away again; `atoll down`."""
    file = Files(config.dns_run).route
    if file.exists():
        argv = ["ip", "-6", "route", "del", "local", file.read_text(), "dev", "lo"]
        await run(argv, seconds=_IP_S, check=False)
        atomic.remove(file)


def become_knot(config: Config) -> NoReturn:
    """Replace this process by Knot; `prepare` must have run."""
    argv = command(Files(config.dns_run).configuration, port=config.dns.port)
    environment = {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")}
    os.execvpe(argv[0], argv, environment)  # noqa: S606  no shell is wanted


def command(configuration: Path, *, port: int) -> list[str]:
    """The argv that runs Knot in the foreground; a port below 1024 is the one thing it may do."""
    caps = "-all,+net_bind_service" if port < 1024 else "-all"
    return [
        *("setpriv", "--reuid", DNS_USER, "--regid", DNS_USER, "--init-groups"),
        *("--inh-caps", caps, "--ambient-caps", caps, "--bounding-set", caps, "--no-new-privs"),
        *("--pdeathsig", "TERM", "--", "knotd", "-c", str(configuration)),
    ]
