"""Serve an ASGI application: on loopback to HAProxy, or at the service address to VMs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from atoll.base.aio import shielded
from atoll.base.errors import Conflict
from atoll.base.sockets import IP_FREEBIND

LOOPBACK = "127.0.0.1"
_STOP_S = 5
_FRAME = 64 * 1024  # what a page may say at once; atoll.doors.web.terminal.wire
_PING_S = 25.0  # a peer that has vanished is noticed; shorter than what firewalls forget


async def serve(app: ASGIApp, *, port: int, address: str = LOOPBACK) -> None:
    """Listen on `port` until cancelled; running requests get 5 s to end.

    Signals are left to the process that owns this task. Raises Conflict when the port is taken.
    """
    settings = uvicorn.Config(
        app,
        access_log=False,  # paths hold one-time codes
        log_config=None,
        proxy_headers=False,
        server_header=False,
        lifespan="off",
        ws="websockets-sansio",
        ws_max_size=_FRAME,
        ws_max_queue=1,
        ws_ping_interval=_PING_S,
        ws_ping_timeout=_PING_S,
        ws_per_message_deflate=False,  # a terminal's output would cost more CPU than it saves
        h11_max_incomplete_event_size=32 * 1024,
        timeout_keep_alive=75,  # longer than HAProxy keeps an idle connection to us
        timeout_graceful_shutdown=_STOP_S,
    )
    server = _Server(settings)
    with listening(port, address) as sock:
        try:
            await server.serve(sockets=[sock])
        except asyncio.CancelledError:
            await shielded(_stop(server), seconds=_STOP_S + 1)
            raise


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Not ours to capture."""
        yield


def listening(port: int, address: str = LOOPBACK) -> socket.socket:
    """The socket. The address may come later: the engine makes that of services, when it is up.

    Raises Conflict when the port is taken.
    """
    # asyncio turns TCP_NODELAY on for connections whose socket names the protocol, and for no others.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address != LOOPBACK:
            sock.setsockopt(socket.SOL_IP, IP_FREEBIND, 1)
        sock.bind((address, port))
    except OSError as error:
        sock.close()
        raise Conflict(
            f"cannot listen on {address} port {port}: {error.strerror}",
            hint="Try: another port under [control]",
        ) from error
    return sock


async def _stop(server: uvicorn.Server) -> None:
    if server.started:
        await server.shutdown()
