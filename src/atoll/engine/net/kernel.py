"""What a slot is in the kernel: built, checked, refreshed and removed with `ip` and `nft`.

Invariant: the uplink inside the namespace goes up last, and only on top of the rules. So "the host's
side ever had a carrier" means "complete", a half-built slot carries no packet, and the kernel is the
only record there is. Two tool runs build a slot (about 15 ms; netlink from Python measured slower).
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from atoll.base import proc
from atoll.base.errors import Conflict, Unavailable
from atoll.engine.net.address import (
    FORKED_GROUP,
    GUEST_DNS,
    GUEST_GATEWAY,
    TAP,
    TAP_MAC,
    UPLINK,
    Layout,
    Slot,
)

NAMESPACES = Path("/run/netns")  # where `ip netns` keeps them
LINKS = Path("/sys/class/net")
TOOL_SECONDS = 10.0  # each takes some ms; a loaded host may take a hundred times that
_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
# linux/rtnetlink.h, linux/if_link.h
_RTM_NEWLINK, _NLM_F_REQUEST, _NLM_F_ACK, _IFLA_GROUP = 16, 0x1, 0x4, 27


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Bytes to and from the VM since its slot was built."""

    rx_bytes: int
    tx_bytes: int


async def nft(text: str) -> None:
    """Apply rules in the host's own namespace, all or nothing."""
    await proc.run(["nft", "-f", "-"], stdin=text.encode(), seconds=TOOL_SECONDS)


async def accepts(text: str) -> bool:
    """Whether this kernel and nft know everything `text` uses; nothing is changed."""
    done = await proc.run(
        ["nft", "-c", "-f", "-"], stdin=text.encode(), seconds=TOOL_SECONDS, check=False
    )
    return done.code == 0


async def ip(*lines: str) -> None:
    """Run `ip` commands in one process; the first that fails ends it."""
    text = "\n".join(lines) + "\n"
    await proc.run(["ip", "-batch", "-"], stdin=text.encode(), seconds=TOOL_SECONDS)


async def build(slot: Slot, inner_rules: str) -> None:
    """Make `slot` from nothing; whatever carried its names before is removed first."""
    await remove(slot)
    await ip(
        f"netns add {slot.netns}",
        f"link add {slot.veth} type veth peer name {UPLINK} netns {slot.netns}",
        f"link set {slot.veth} addrgenmode none",
        f"addr add {slot.gateway} dev {slot.veth}",
        f"link set {slot.veth} up",
    )
    (Path("/proc/sys/net/ipv4/conf") / slot.veth / "rp_filter").write_text("1")
    await inside(slot, _inner_script(slot, inner_rules))


async def refresh(slot: Slot, inner_rules: str) -> None:
    """Replace the rules of a slot in use; connections stay."""
    await inside(slot, f"exec nft -f - <<'END'\n{inner_rules}END\n")


async def remove(slot: Slot) -> None:
    """Take away whatever exists of `slot`; nothing is fine."""
    lines = []
    if (LINKS / slot.veth).exists():  # first: it would outlive its namespace for some ms
        lines.append(f"link del {slot.veth}")
    if (NAMESPACES / slot.netns).exists():
        lines.append(f"netns del {slot.netns}")
    if lines:
        await ip(*lines)


async def inside(slot: Slot, script: str) -> None:
    """Run a shell script in the slot's namespace, as root."""
    argv = ["nsenter", f"--net={NAMESPACES / slot.netns}", "sh", "-euc", script]
    await proc.run(argv, seconds=TOOL_SECONDS)


def is_complete(slot: Slot) -> bool:
    """Whether `build` ran to its end: the uplink came up once. Closed or open does not matter."""
    try:
        rises = (LINKS / slot.veth / "carrier_up_count").read_text()
    except OSError:
        return False
    return rises.strip() != "0" and (NAMESPACES / slot.netns).exists()


def found(layout: Layout) -> set[int]:
    """Slots of which anything at all exists."""
    spaces = os.listdir(NAMESPACES) if NAMESPACES.exists() else []
    numbers = {layout.number_of_netns(name) for name in spaces}
    numbers |= {layout.number_of_veth(name) for name in os.listdir(LINKS)}
    return {number for number in numbers if number is not None}


def traffic(slot: Slot) -> Traffic:
    """Zeros when the slot is not there."""
    counts = []
    for name in ("tx_bytes", "rx_bytes"):  # what the host sends is what the VM receives
        try:
            counts.append(int((LINKS / slot.veth / "statistics" / name).read_text()))
        except OSError:
            counts.append(0)
    return Traffic(rx_bytes=counts[0], tx_bytes=counts[1])


def plug(slot: Slot, *, into: bool) -> None:
    """Raise or lower the host's end of the wire: while it is down no packet passes, either way.

    A fifth of a millisecond; an address keeps its place and its route comes back. Raises Unavailable
    when the slot is not there.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH22x", slot.veth.encode(), 0)
        try:
            held = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request)
            flags = struct.unpack("16sH22x", held)[1]
            flags = flags | _IFF_UP if into else flags & ~_IFF_UP
            request = struct.pack("16sH22x", slot.veth.encode(), flags)
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, request)
        except OSError as error:
            raise Unavailable(f"network slot {slot.number} is gone: {error.strerror}") from error


async def open_tap(slot: Slot, *, forked: bool = False) -> int:
    """A close-on-exec descriptor of the slot's tap, for one QEMU.

    `forked`: its guest believes in connections that are not its own, or are of another time: from now
    on each of them is reset, in both directions, as soon as it is used.
    Raises Conflict while another process holds it, Unavailable when the slot is not there.
    """
    # A namespace belongs to a thread: this one is made for the purpose and ends with it.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tap") as thread:
        return await asyncio.get_running_loop().run_in_executor(thread, _open_tap, slot, forked)


def _open_tap(slot: Slot, forked: bool) -> int:
    try:
        space = os.open(NAMESPACES / slot.netns, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise Unavailable(f"network slot {slot.number} does not exist") from error
    try:
        if _libc.setns(space, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise Unavailable(f"cannot enter namespace {slot.netns}: {os.strerror(number)}")
    finally:
        os.close(space)
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", TAP.encode(), flags))
        if forked:
            _set_group(TAP, FORKED_GROUP)
    except OSError as error:
        os.close(tap)
        raise Conflict(
            f"the tap of network slot {slot.number} cannot be opened: {error.strerror}",
            hint="Another QEMU may hold it. Try: atoll doctor",
        ) from error
    return tap


def _set_group(link: str, group: int) -> None:
    """Put a link of this thread's namespace into a group, which rules can ask for (rtnetlink(7)).

    `ip link set group` does the same in 5 ms; this in 0.1. Raises OSError.
    """
    about = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, socket.if_nametoindex(link), 0, 0)
    body = about + struct.pack("=HHI", 8, _IFLA_GROUP, group)
    head = struct.pack("=IHHII", 16 + len(body), _RTM_NEWLINK, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(TOOL_SECONDS)
        kernel.sendto(head + body, (0, 0))
        failed = struct.unpack_from("=i", kernel.recv(4096), 16)[0]  # struct nlmsgerr
    if failed:
        raise OSError(-failed, os.strerror(-failed))


def _inner_script(slot: Slot, inner_rules: str) -> str:
    return f"""\
echo 1 > /proc/sys/net/ipv4/ip_forward
if [ -e /proc/sys/net/ipv6 ]; then echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; fi
ip -batch - <<'END'
link set lo up
tuntap add {TAP} mode tap vnet_hdr
link set {TAP} address {TAP_MAC}
addr add {GUEST_GATEWAY} dev {TAP}
addr add {GUEST_DNS} dev {TAP}
addr add {slot.outer} dev {UPLINK}
END
nft -f - <<'END'
{inner_rules}END
ip -batch - <<'END'
link set {TAP} up
link set {UPLINK} up
route add default via {slot.gateway.ip}
END
"""
