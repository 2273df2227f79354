"""A real ACME server for tests: Caddy's, which believes the DNS server a test gives it.

Caddy 2.6 asks the resolvers of /etc/resolv.conf alone, so it runs in a mount namespace with its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from atoll.base.aio import poll
from framework.clients import free_port

READY_S = 20.0
NAME = "localhost"  # in the certificate of its own door
_RUN = 'mount --bind "$0" /etc/resolv.conf && exec caddy run --config "$1"'


@dataclass(frozen=True, slots=True)
class AcmeServer:
    """A running server: its directory, the CA of its own door, and the one it signs with."""

    directory: str
    ca_file: Path


@asynccontextmanager
async def acme_server(*, resolver: str) -> AsyncIterator[AcmeServer]:
    """Serve until the body ends. `resolver`: address of the DNS server it asks, on port 53."""
    folder = Path(tempfile.mkdtemp(prefix="atoll-acme-"))
    port = free_port()
    (folder / "resolv.conf").write_text(f"nameserver {resolver}\noptions timeout:2 attempts:1\n")
    (folder / "caddy.json").write_text(json.dumps(_config(folder, port)))
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *("unshare", "--mount", "sh", "-c", _RUN),
            *(str(folder / "resolv.conf"), str(folder / "caddy.json")),
            stdout=log,
            stderr=log,
            env={**os.environ, "HOME": str(folder), "GODEBUG": "netdns=go"},
        )
    root = folder / "store/pki/authorities/local/root.crt"

    async def answers() -> bool | None:
        assert process.returncode is None, (folder / "log").read_text()
        with suppress(OSError):  # it listens before it has a certificate
            context = ssl.create_default_context(cafile=str(root))
            _, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, server_hostname=NAME
            )
            writer.close()
            await writer.wait_closed()
            return True
        return None

    try:
        await poll(answers, seconds=READY_S, what="caddy answering")
        yield AcmeServer(f"https://{NAME}:{port}/acme/local/directory", root)
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), 20)
        shutil.rmtree(folder)


def _config(folder: Path, port: int) -> dict[str, object]:
    route = {
        "match": [{"host": [NAME]}],
        "handle": [{"handler": "acme_server"}],
        "terminal": True,
    }
    return {
        "admin": {"disabled": True},
        "storage": {"module": "file_system", "root": str(folder / "store")},
        "apps": {
            "http": {
                "servers": {
                    "acme": {
                        "listen": [f"127.0.0.1:{port}"],
                        "routes": [route],
                        "automatic_https": {"disable_redirects": True},
                    }
                }
            },
            "pki": {"certificate_authorities": {"local": {"install_trust": False}}},
            "tls": {
                "automation": {
                    "policies": [{"subjects": [NAME], "issuers": [{"module": "internal"}]}]
                }
            },
        },
    }
