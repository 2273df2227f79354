"""DNS for VMs: dnsmasq on the service address, and nowhere else.

Invariant: it listens on one address, reads no file of the host but resolv.conf, and answers for
`int`, the names of our own services, itself: those never leave the machine.

Answers with private addresses pass (no `stop-dns-rebind`): a VM may well use names of the owner's
network, and rebinding attacks browsers, which do not run here.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path

from atoll.base import log, proc
from atoll.base.aio import poll

PRIVATE_DOMAIN = "int"
RESTART_SECONDS = (0.2, 5.0)  # first pause after it ended, and the longest
FOREVER = 100 * 365 * 86400.0
_log = log.get("engine.net.dns")


def render(
    *,
    address: IPv4Address,
    upstream: Sequence[IPv4Address],
    pid_file: Path,
    records: Sequence[str] = (),
) -> list[str]:
    """dnsmasq's argument vector; no upstream means the host's resolv.conf, followed as it changes.

    `records` are arguments for names of our own.
    """
    argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", f"--pid-file={pid_file}"]
    argv += ["--user=nobody", "--group=nogroup"]
    argv += ["--log-facility=/dev/null"]  # what keeps it from starting still goes to stderr
    argv += [f"--listen-address={address}", "--bind-interfaces", "--except-interface=lo"]
    argv += ["--no-hosts", "--domain-needed", f"--local=/{PRIVATE_DOMAIN}/", *records]
    argv += ["--cache-size=5000", "--dns-forward-max=1000", "--edns-packet-max=1232"]
    if upstream:
        argv += ["--no-resolv", *(f"--server={server}" for server in upstream)]
    else:
        argv += ["--resolv-file=/etc/resolv.conf"]
    return argv


class Resolver:
    """One dnsmasq, started again whenever it ends. `starts` counts, for `doctor`."""

    def __init__(
        self,
        *,
        address: IPv4Address,
        upstream: Sequence[IPv4Address],
        pid_file: Path,
        records: Sequence[str] = (),
    ) -> None:
        self.starts = 0
        self.last_error = ""
        self._pid_file = pid_file
        self._argv = render(address=address, upstream=upstream, pid_file=pid_file, records=records)

    async def run(self) -> None:
        """Run for ever; cancelling ends dnsmasq.

        One left by a killed engine served the VMs until now and is replaced. Raises Unavailable
        when dnsmasq is not installed.
        """
        await self.end_predecessor()
        pause, longest = RESTART_SECONDS
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            self.starts += 1
            ended = await proc.run(self._argv, seconds=FOREVER, check=False)
            self.last_error = ended.err.decode(errors="replace").strip()[-500:]
            _log.warning("dnsmasq ended", code=ended.code, error=self.last_error)
            pause = RESTART_SECONDS[0] if loop.time() - began > longest else pause
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    async def end_predecessor(self) -> None:
        """End the dnsmasq an earlier engine left, known by its pid file; none is fine."""
        try:
            pid = int(self._pid_file.read_text())
            handle = os.pidfd_open(pid)
        except (OSError, ValueError):
            return
        try:
            # Only after the handle is held is the check about that very process.
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if f"--pid-file={self._pid_file}".encode() not in words:
                return
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            await poll(lambda: _ended(handle), seconds=5, what=f"ending the previous dnsmasq {pid}")
        except (FileNotFoundError, ProcessLookupError):
            return
        finally:
            os.close(handle)


async def _ended(handle: int) -> bool | None:
    """True once the process has ended, and so closed its sockets; None before."""
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    return True if poller.poll(0) else None
