"""Start HAProxy: `atoll serve edge`, root, which becomes HAProxy without any privilege.

What needs root is done here and before: the listening sockets, the rule that sends the VM ports to
them, the configuration. HAProxy itself starts as its own user, inherits the
sockets and can gain nothing by exec; so nothing it parses (maps and certificates come from control)
is ever parsed by root.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import NoReturn

from atoll.base import log
from atoll.base.aio import poll
from atoll.base.errors import Conflict, Unavailable
from atoll.base.proc import run
from atoll.base.sockets import IP_FREEBIND, IP_TRANSPARENT
from atoll.config import Config
from atoll.doors.edge import haproxy, name_maps, vm_ports
from atoll.doors.edge.files import EDGE_USER, TABLES, Files, install, make_folders

CONTROL_S = 120.0  # how long control may take to write certificate and maps on a first start
NFT_S = 10.0
BACKLOG = 4096

_log = log.get("edge")


async def prepare(config: Config, *, edge_user: str = EDGE_USER) -> None:
    """Folders, configuration and VM ports. Raises Unavailable when control does not come up."""
    files = Files(config.edge_run)
    make_folders(files, control_user=config.control.user, edge_user=edge_user)
    maps = (*TABLES, name_maps.DOMAINS, name_maps.PROOFS)
    needed = (files.certificate, files.crt_list, *map(files.map, maps))

    async def written() -> bool | None:
        return all(path.exists() for path in needed) or None

    await poll(written, seconds=CONTROL_S, what="control writing the edge's first files")
    install(files, haproxy.render(config), edge_user=edge_user)
    try:
        await run(["nft", "-f", "-"], stdin=vm_ports.render(config).encode(), seconds=NFT_S)
    except Unavailable as error:  # the default port and <port>-<vm> names work without it
        _log.warning("no VM ports", reason=str(error))


async def withdraw(config: Config) -> None:
    """Take the VM ports away again; `atoll down`."""
    script = vm_ports.render_removal(config)
    await run(["nft", "-f", "-"], stdin=script.encode(), seconds=NFT_S, check=False)


def become_haproxy(config: Config, *, edge_user: str = EDGE_USER) -> NoReturn:
    """Open the sockets and replace this process by HAProxy; `prepare` must have run."""
    secure = listen(config.https.listen, config.https.port, transparent=config.https.vm_ports)
    plain = listen(config.https.listen, config.https.http_port)
    environment = {
        "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        "ATOLL_EDGE_FD": str(secure.detach()),
        "ATOLL_PLAIN_FD": str(plain.detach()),
    }
    if config.https.is_beyond_vms:
        inside = listen(str(config.network.service), config.https.port, is_there=False)
        environment["ATOLL_INSIDE_FD"] = str(inside.detach())
    argv = command(Files(config.edge_run).configuration, edge_user=edge_user)
    os.execvpe(argv[0], argv, environment)  # noqa: S606  no shell is wanted


def command(configuration: Path, *, edge_user: str = EDGE_USER) -> list[str]:
    """The argv that runs HAProxy in the foreground with no capability and no way to one.

    `--pdeathsig` holds the promise of `Child`: no process outlives its supervisor.
    """
    return [
        *("setpriv", "--reuid", edge_user, "--regid", edge_user, "--init-groups"),
        *("--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs"),
        *("--pdeathsig", "TERM", "--", "haproxy", "-db", "-f", str(configuration)),
    ]


def unbound(address: str) -> socket.socket:
    """A TCP socket that can be bound to such an address; `::` takes IPv4 too."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return sock


def listen(
    address: str, port: int, *, transparent: bool = False, is_there: bool = True
) -> socket.socket:
    """A listening, inheritable TCP socket; the address may come later if it `is_there` not yet.

    Raises Conflict when the port is taken.
    """
    sock = unbound(address)
    try:
        if transparent:  # lets nft hand it connections to other ports, see vm_ports
            sock.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
        if not is_there:
            sock.setsockopt(socket.SOL_IP, IP_FREEBIND, 1)
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise Conflict(
            f"cannot listen on {address} port {port}: {error.strerror}",
            hint=f"Try: ss -ltnp sport = :{port}, or another https.port",
        ) from error
    sock.set_inheritable(True)
    return sock
