"""Keeps the zone that Knot serves equal to the store.

Invariants: the zone's serial only grows, since the last one is kept with control's data and not with
what a reboot deletes; the file is whole before Knot is told. Which serial Knot really answers with is
asked for over the network, so a Knot that restarted, or one that did not listen, is noticed alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv6Address
from pathlib import Path
from typing import Protocol

from atoll.base import atomic, log
from atoll.base.dns_server import Server
from atoll.base.errors import AtollError, Invalid
from atoll.base.proc import run
from atoll.base.timeout import timeout
from atoll.config import Config
from atoll.doors.names import addresses
from atoll.doors.names.files import Files, ensure_update_key, read_addresses
from atoll.doors.names.zone import (
    CHALLENGE,
    Zone,
    is_same,
    next_serial,
    render,
    render_challenge,
    serial_of,
    servers,
)
from atoll.services.dns import lookup

LOOK_S = 5.0  # how soon a Knot that does not serve our serial is noticed
SPACING_S = 1.0  # between two looks: a burst of new VMs is one change of the zone
RETRY_S = 1.0
ASK_S = 2.0
KNOTC_S = 10.0

_log = log.get("dns")


class Versions(Protocol):
    """A counter that goes up when the names of VMs may have changed."""

    version: int

    async def wait_beyond(self, version: int) -> int:
        """Return the version once it is greater."""
        ...


async def no_addresses() -> Mapping[str, IPv6Address]:
    """Where VMs have no address of their own."""
    return {}


class NameSync:
    """Owns the zone files."""

    def __init__(
        self,
        *,
        config: Config,
        changes: Versions,
        vms: Callable[[], Awaitable[Mapping[str, IPv6Address]]] = no_addresses,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._changes = changes
        self._vms = vms
        self._now = now
        self._files = Files(config.dns_run)
        self._kept = config.control_state / "dns" / f"{config.https.domain}.zone"
        self._trouble = ""
        self.served = 0  # the serial Knot answers with; tests read it

    async def run(self) -> None:
        """Follow the changes for ever. While Knot or root's files are away it tries again."""
        version = -1
        while True:
            with contextlib.suppress(TimeoutError):
                async with timeout(LOOK_S):
                    await self._changes.wait_beyond(version)
            version = self._changes.version
            try:
                await self._push()
                self._trouble = ""
            except (AtollError, OSError) as error:
                version = -1
                if str(error) != self._trouble:
                    _log.warning("zone not served", reason=str(error))
                self._trouble = str(error)
                await asyncio.sleep(RETRY_S)
            await asyncio.sleep(SPACING_S)

    async def _push(self) -> None:
        ensure_update_key(self._config)
        text = self._keep(await self._wanted())
        self._publish(text)
        domain, serial = self._config.https.domain, serial_of(text)
        if await self._serial() != serial:
            await run(
                ["knotc", "-b", "-s", str(self._files.socket), "zone-reload", f"{domain}."],
                seconds=KNOTC_S,
            )
            if (found := await self._serial()) != serial:
                raise Invalid(f"Knot serves {domain} with serial {found}, not {serial}")
            _log.info("zone served", domain=domain, serial=serial)
        self.served = serial or 0

    async def _serial(self) -> int | None:
        knot = Server(str(addresses.LOOPBACK), self._config.dns.port)
        return await lookup.serial(self._config.https.domain, at=knot, seconds=ASK_S)

    async def _wanted(self) -> Zone:
        config, own = self._config, read_addresses(self._files)
        zone = Zone(
            domain=config.https.domain,
            name_servers=servers(config.https.domain, config.dns.name_servers),
            ipv4=addresses.public_ipv4(config, own),
            ipv6=addresses.public_ipv6(config, own),
            ttl_s=config.dns.ttl_s,
            vm_ttl_s=config.dns.vm_ttl_s,
            caa=config.dns.caa,
            vms=await self._vms(),
        )
        if not zone.ipv4 and not zone.ipv6:
            raise Invalid(
                "this machine has no public address that names could resolve to",
                hint="Set dns.ipv4 to the address the world reaches it by",
            )
        return zone

    def _keep(self, zone: Zone) -> str:
        """The zone's text, with the serial it had if it says what it said."""
        old = self._kept.read_text() if self._kept.exists() else ""
        text = render(zone, serial=next_serial(serial_of(old), self._now()))
        if is_same(old, text):
            return old
        self._kept.parent.mkdir(exist_ok=True)
        atomic.write(self._kept, text.encode())
        return text

    def _publish(self, text: str) -> None:
        domain = self._config.https.domain
        challenge = f"{CHALLENGE}.{domain}"
        server = servers(domain, self._config.dns.name_servers)[0]
        for name, content in ((challenge, render_challenge(challenge, server)), (domain, text)):
            self._write(self._files.zone(name), content)

    def _write(self, path: Path, text: str) -> None:
        if path.exists() and path.read_text() == text:
            return
        atomic.write(path, text.encode(), mode=0o640, exact=True)
