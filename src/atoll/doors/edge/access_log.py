"""HAProxy's line per request of a VM, on a unix datagram socket: see `log-format` in `haproxy.cfg.in`.

HAProxy never waits for this socket: what does not fit is dropped there. A flood costs us no more than
LINES_PER_S lines a second; beyond that the socket is left alone until the next one begins.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple, Protocol

from atoll.base.aio import TaskGroup
from atoll.base.source import plain
from atoll.domain.visit import Visit

LINES_PER_S = 2000
_LINE_BYTES = 4096
_PATH_LETTERS = 200
# name account by weight method status bytes ms source port backend end "path"
_LINE = re.compile(
    r"([a-z0-9-]{1,63})[.][a-z0-9.-]+ ([0-9A-Za-z._-]{1,80}) (cookie|token|-) ([0-9]{1,4}|-)"
    r" ([!-~]{1,200}) (-?[0-9]{1,3}) ([0-9]{1,18}) \+?(-?[0-9]{1,12}) ([0-9a-fA-F.:]{2,45})"
    r" ([0-9]{1,5}|-) (\w+) ([A-Za-z-]{2}) (\".*\")\n?"
)
_REFUSED_BACKEND = "edge"  # nobody was asked: the rules of the frontend answered
_NO_LISTENER = ("SC", "503")  # the VM refused the connection (its Server, while Connecting)


class Noting(Protocol):
    """Keeps visits."""

    def note(self, vm_name: str, visit: Visit) -> None:
        """One more."""
        ...


class Looking(Protocol):
    """Looks where a web address should lead."""

    def missed(self, vm_name: str, port: int) -> None:
        """Somebody was let in to this port inside, and nothing listened there."""
        ...


class Line(NamedTuple):
    """What a line says."""

    vm_name: str
    visit: Visit
    is_missed: bool  # nothing listened at the port


class AccessLog:
    """Reads the socket at `path`, whose folder gives it to HAProxy's group."""

    def __init__(
        self,
        *,
        path: Path,
        visits: Noting,
        ports: Looking,
        now: Callable[[], float] = time.time,
        lines_per_s: int = LINES_PER_S,
    ) -> None:
        self._path = path
        self._visits = visits
        self._ports = ports
        self._now = now
        self._lines_per_s = lines_per_s
        self._left = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Read while the body runs."""
        self._path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.bind(str(self._path))
            os.chmod(self._path, 0o660)
            async with TaskGroup() as group:
                ticking = group.create_task(self._refill(sock))
                try:
                    yield
                finally:
                    ticking.cancel()
                    asyncio.get_running_loop().remove_reader(sock)
                    self._path.unlink(missing_ok=True)

    async def _refill(self, sock: socket.socket) -> None:
        """Read on, at most so much in each second."""
        while True:
            self._left = self._lines_per_s
            asyncio.get_running_loop().add_reader(sock, self._read, sock)
            await asyncio.sleep(1.0)

    def _read(self, sock: socket.socket) -> None:
        """All that is there, up to what this second may cost."""
        while self._left > 0:
            try:
                data = sock.recv(_LINE_BYTES)
            except BlockingIOError:
                return
            self._left -= 1
            line = parse(data, now=self._now())
            if line is None:
                continue
            self._visits.note(line.vm_name, line.visit)
            if line.is_missed:
                self._ports.missed(line.vm_name, line.visit.port)
        asyncio.get_running_loop().remove_reader(sock)


def parse(data: bytes, *, now: float) -> Line | None:
    """A line about one request; None for anything else, such as a failed handshake."""
    found = _LINE.fullmatch(data.decode("utf-8", errors="replace"))
    if found is None:
        return None
    name, account, by, weight, method, status, sent, ms, source, port, backend, end, path = (
        found.groups()
    )
    try:
        text, address = str(json.loads(path, strict=False)), str(ip_address(source))
    except ValueError:
        return None
    visit = Visit(
        at=now - max(0, int(ms)) / 1000,
        account="" if account == "-" else account,
        by="" if by == "-" else by,
        method=method[:16],
        port=0 if port == "-" else int(port),
        path=text[:_PATH_LETTERS],
        status=max(0, int(status)),
        bytes=int(sent),
        ms=max(0, int(ms)),
        source=plain(address),
        is_let_in=backend != _REFUSED_BACKEND,
        count=1 if weight == "-" else max(1, int(weight)),
    )
    return Line(name, visit, is_missed=visit.is_let_in and (end, status) == _NO_LISTENER)
