"""Who is at the other end of a unix socket, as the kernel knows it."""

from __future__ import annotations

import asyncio
import socket
import struct

_UCRED = struct.Struct("3i")  # pid, uid, gid


def uid_of(writer: asyncio.StreamWriter) -> int:
    """The uid the peer had when it connected."""
    sock: socket.socket = writer.get_extra_info("socket")
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    uid: int = _UCRED.unpack(raw)[1]
    return uid
