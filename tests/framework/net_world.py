"""What tests of the network need around it: guests without QEMU, and an outside.

A guest is a namespace with a tap of the guest's MAC and address, and a thread that carries frames
between it and the slot's tap, as QEMU's virtio-net does. So the real stack speaks on both ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import socket
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from atoll.base.aio import poll

T = TypeVar("T")
WORLD = "198.51.100.2"
HOST_TO_WORLD = "198.51.100.1"
METADATA = "169.254.169.254"
_libc = ctypes.CDLL(None, use_errno=True)


def sh(script: str) -> str:
    """Run a shell script as root; its output."""
    done = subprocess.run(
        ["sh", "-euc", script], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 0, f"{script}\n{done.stderr}"
    return done.stdout


def within(netns: str | None, action: Callable[[], T]) -> T:
    """Call `action` in a namespace; sockets it makes stay there. None: in ours."""
    if netns is None:
        return action()

    def enter() -> T:
        fd = os.open(f"/run/netns/{netns}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            assert _libc.setns(fd, 0x40000000) == 0, os.strerror(ctypes.get_errno())
        finally:
            os.close(fd)
        return action()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(enter).result(timeout=20)


class Guest:
    """The inside of one VM. `tap` is the slot's, as `Network.open_tap` gives it."""

    def __init__(self, name: str, tap: int) -> None:
        self.netns = name
        sh(f"""
        ip netns add {name}
        ip netns exec {name} sh -euc '
          echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
          ip link set lo up
          ip tuntap add eth0 mode tap vnet_hdr
          ip link set eth0 address 52:54:00:a7:01:01
          ip addr add 10.0.2.15/24 dev eth0
          ip link set eth0 up'
        """)
        self._inner = within(name, lambda: _attach("eth0"))
        sh(f"ip -n {name} route add default via 10.0.2.2")
        self.carry(tap)

    def carry(self, tap: int) -> None:
        """Go on at this tap, with every connection, as memory that another QEMU loads."""
        self._tap = tap
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def halt(self) -> None:
        """Stop carrying; the slot's tap is closed as by a QEMU that ended."""
        self._stop.set()
        self._thread.join(timeout=5)
        os.close(self._tap)

    def close(self) -> None:
        """Halt, and be gone."""
        self.halt()
        os.close(self._inner)
        sh(f"ip netns del {self.netns}")

    def _carry(self) -> None:
        other = {self._tap: self._inner, self._inner: self._tap}
        poller = select.poll()
        for fd in other:
            os.set_blocking(fd, False)
            poller.register(fd, select.POLLIN)
        while not self._stop.is_set():
            for fd, _ in poller.poll(50):
                with contextlib.suppress(BlockingIOError, OSError):
                    while True:
                        os.write(other[fd], os.read(fd, 65600))


def _attach(name: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x0002 | 0x1000 | 0x4000))
    return fd


@contextlib.contextmanager
def outside() -> Iterator[str]:
    """A namespace that is not ours, one hop from the host; also claims the metadata address."""
    sh(f"""
    ip netns add tworld
    ip link add tworld0 type veth peer name w0 netns tworld
    ip addr add {HOST_TO_WORLD}/24 dev tworld0
    ip link set tworld0 up
    ip -n tworld link set lo up
    ip -n tworld addr add {WORLD}/24 dev w0
    ip -n tworld addr add {METADATA}/32 dev w0
    ip -n tworld link set w0 up
    ip -n tworld route add 10.214.0.0/16 via {HOST_TO_WORLD}
    ip route add {METADATA}/32 via {WORLD} dev tworld0
    """)
    try:
        yield "tworld"
    finally:
        sh("ip link del tworld0; ip netns del tworld")


class Echo:
    """A TCP server that answers with the address it sees; accepts on any address of a namespace."""

    def __init__(self, netns: str | None, port: int) -> None:
        def listen() -> socket.socket:
            server = socket.create_server(("0.0.0.0", port), backlog=64)
            server.settimeout(0.05)
            return server

        self._server = within(netns, listen)
        self._stop = threading.Event()
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                client, peer = self._server.accept()
                client.sendall(f"{peer[0]}\n".encode())
                self._held.append(client)  # open until the end: a tracked connection each

    def close(self) -> None:
        """Stop, and close every connection."""
        self._stop.set()
        self._thread.join(timeout=5)
        for client in (*self._held, self._server):
            client.close()


def ask(netns: str | None, address: str, port: int, *, seconds: float = 5.0) -> str | None:
    """What an Echo at that address answers; None when it cannot be reached."""

    def connect() -> str | None:
        try:
            with socket.create_connection((address, port), timeout=seconds) as client:
                return client.recv(100).decode().strip()
        except OSError:
            return None

    return within(netns, connect)


async def delivered(client: socket.socket, data: bytes) -> None:
    """Send on a connection and wait until the other end has acknowledged every byte."""

    async def acknowledged() -> bool | None:
        waiting = struct.unpack("i", fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4)))[0]
        return True if waiting == 0 else None

    client.sendall(data)
    await poll(acknowledged, seconds=5, every=0.01, what="an acknowledgement")


class Datagrams:
    """A UDP receiver that counts who sent what."""

    def __init__(self, netns: str | None, port: int) -> None:
        def bind() -> socket.socket:
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            receiver.bind(("0.0.0.0", port))
            return receiver

        self._socket = within(netns, bind)

    def received(self, *, quiet_seconds: float = 0.3) -> list[tuple[str, bytes]]:
        """The first datagram, waited for, and then all until none came for `quiet_seconds`."""
        self._socket.settimeout(5)
        found: list[tuple[str, bytes]] = []
        with contextlib.suppress(TimeoutError):
            while True:
                data, peer = self._socket.recvfrom(2000)
                found.append((peer[0], data))
                self._socket.settimeout(quiet_seconds)
        return found

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def send(
    netns: str | None, address: str, port: int, data: bytes, *, source: str = "", flows: int = 1
) -> None:
    """`flows` datagrams, each from a port of its own, all open at once."""

    def transmit() -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(flows):
                sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                sender.bind((source, 0))
                sender.sendto(data, (address, port))

    within(netns, transmit)
