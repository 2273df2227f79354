"""A real authoritative DNS server for tests: Knot, on an address of loopback, with updates by TSIG."""

from __future__ import annotations

import asyncio
import base64
import os
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from atoll.base.aio import poll
from atoll.base.dns_server import Server
from atoll.base.proc import run

READY_S = 20.0
_CONFIG = """
server:
    rundir: "{folder}"
    listen: {address}@53
    pidfile: "{folder}/knot.pid"
    user: root:root
log:
  - target: stderr
    any: warning
key:
  - id: atoll
    algorithm: hmac-sha256
    secret: {secret}
acl:
  - id: atoll
    key: atoll
    action: update
    update-type: [TXT]
database:
    storage: "{folder}"
template:
  - id: default
    storage: "{folder}"
    file: "%s.zone"
"""
_SOA = "@ 3600 IN SOA ns hostmaster 1 3600 600 86400 1\n@ IN NS ns\n"


@dataclass(frozen=True, slots=True)
class Knot:
    """A running server. `key_file` holds the key that may update TXT records."""

    address: str
    key_file: Path
    folder: Path

    @property
    def server(self) -> Server:
        """As our code names it."""
        return Server(self.address)

    async def txt(self, name: str) -> str:
        """What others see there, by another client than ours."""
        argv = ["kdig", f"@{self.address}", "+short", "TXT", name]
        return (await run(argv, seconds=10)).out.decode()


def loopback() -> str:
    """An address of this machine alone that nobody else is likely to have taken."""
    return f"127.{random.randint(1, 254)}.{random.randint(0, 254)}.{random.randint(2, 254)}"


@asynccontextmanager
async def knot(zones: dict[str, Iterable[str]]) -> AsyncIterator[Knot]:
    """Serve `zones`, each with lines of a zone file."""
    folder = Path(tempfile.mkdtemp(prefix="atoll-knot-"))
    address, secret = loopback(), base64.b64encode(os.urandom(32)).decode()
    text = _CONFIG.format(folder=folder, address=address, secret=secret) + "zone:\n"
    for zone, lines in zones.items():
        text += f"  - domain: {zone}\n    acl: atoll\n"
        head = f"$ORIGIN {zone}.\n$TTL 1\n{_SOA}ns IN A {address}\n"
        (folder / f"{zone}.zone").write_text(head + "\n".join(lines) + "\n")
    (folder / "knot.conf").write_text(text)
    key_file = folder / "key"
    key_file.write_text(f"hmac-sha256:atoll:{secret}\n")
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "knotd", "-c", str(folder / "knot.conf"), stdout=log, stderr=log
        )

    async def answers() -> bool | None:
        assert process.returncode is None, (folder / "log").read_text()
        argv = ["kdig", f"@{address}", "+short", "+timeout=1", "+retry=0", "SOA", next(iter(zones))]
        return bool((await run(argv, seconds=10, check=False)).out.strip()) or None

    try:
        await poll(answers, seconds=READY_S, what="knotd answering")
        yield Knot(address, key_file, folder)
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), 20)
        shutil.rmtree(folder)
