"""One engine per instance: two would take each other's VMs for leftovers, and end them.

The claim is an abstract unix socket's name. It lives in the network namespace, as most of what an
instance names does, needs no folder that a configuration could move, and ends with the process.
"""

from __future__ import annotations

import errno
import socket
import struct

from atoll.base.errors import Conflict


def claim(instance: str) -> socket.socket:
    """Be the engine of `instance` until the answer is closed. Raises Conflict if another is."""
    name = f"\0atoll/engine/{instance}"
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        ours.bind(name)
        ours.listen(1)
    except OSError as error:
        ours.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise Conflict(
            f"another engine runs instance {instance!r} here (process {_holder(name)})",
            hint="A second Atoll on one machine needs a [network] `instance` of its own",
        ) from error
    return ours


def _holder(name: str) -> str:
    """Pid of the process that listens on `name` (SO_PEERCRED, unix(7)); `?` when it is gone."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as asking:
        asking.settimeout(1)
        try:
            asking.connect(name)
            found = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        except OSError:
            return "?"
        return str(struct.unpack("iII", found)[0])
