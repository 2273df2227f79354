"""What the VM says about itself when asked: file system, memory, load, listening ports.

Reads /proc and statvfs only. `root` is / except under test.
"""

from __future__ import annotations

import os

PORTS_LIMIT = 1024
_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp


def stat(root: str = "/") -> dict[str, object]:
    """Sizes in bytes, uptime in seconds, load averages, TCP ports listening on any address."""
    disk = os.statvfs(root)
    memory = _meminfo(_text(root, "proc/meminfo"))
    total, available = memory.get("MemTotal", 0), memory.get("MemAvailable", 0)
    uptime, load = _text(root, "proc/uptime").split(), _text(root, "proc/loadavg").split()
    return {
        "fs_total_bytes": disk.f_blocks * disk.f_frsize,
        "fs_used_bytes": (disk.f_blocks - disk.f_bfree) * disk.f_frsize,
        "fs_available_bytes": disk.f_bavail * disk.f_frsize,
        "memory_total_bytes": total,
        "memory_available_bytes": available,
        "swap_total_bytes": memory.get("SwapTotal", 0),
        "swap_free_bytes": memory.get("SwapFree", 0),
        "uptime_seconds": float(uptime[0]) if uptime else 0.0,
        "load": [float(part) for part in load[:3]],
        "ports": ports(_text(root, "proc/net/tcp"), _text(root, "proc/net/tcp6")),
    }


def ports(*tables: str) -> list[int]:
    """TCP ports in state LISTEN on something other than loopback, sorted, at most PORTS_LIMIT."""
    found = set()
    for table in tables:
        for line in table.splitlines()[1:]:
            fields = line.split()
            if len(fields) > 3 and fields[3] == _LISTEN:
                address, _, port = fields[1].rpartition(":")
                if not _is_loopback(address):
                    found.add(int(port, 16))
    return sorted(found)[:PORTS_LIMIT]


def _is_loopback(address: str) -> bool:
    """Addresses are 32-bit words in host order (little-endian), in hex."""
    return (
        address
        in (
            "00000000000000000000000001000000",  # ::1
        )
        or (
            address[-2:] == "7F"
            and (len(address) == 8 or address.startswith("0000000000000000FFFF0000"))
        )
    )


def _meminfo(text: str) -> dict[str, int]:
    """Field -> bytes."""
    values = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            values[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return values


def _text(root: str, name: str) -> str:
    try:
        with open(os.path.join(root, name), encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""  # no IPv6, or not a Linux /proc under test
