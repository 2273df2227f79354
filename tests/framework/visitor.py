"""Somebody at a VM's page: signed in as people are; each request is on a connection of its own."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from contextlib import suppress
from dataclasses import dataclass

from atoll.base.proc import run
from atoll.domain.web import TOKEN_COOKIE
from framework.atoll import Atoll

ASK_S = 5.0


@dataclass(frozen=True, slots=True)
class Visitor:
    """`cookie` is the value of the VM's own; empty for a stranger."""

    atoll: Atoll
    vm: str
    cookie: str = ""

    async def ask(self) -> int | None:
        """The status of the page; None without an answer, as while nobody listens."""
        https = self.atoll.config.https
        host = f"{self.vm}.{https.domain}"
        lines = ["GET / HTTP/1.1", f"Host: {host}:{https.port}", "Connection: close"]
        lines += [f"Cookie: {TOKEN_COOKIE}={self.cookie}"] if self.cookie else []
        trusting = ssl.create_default_context(cafile=authority(self.atoll))
        with suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            async with asyncio.timeout(ASK_S):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", https.port, ssl=trusting, server_hostname=host
                )
                try:
                    writer.write("\r\n".join([*lines, "", ""]).encode())
                    return int((await reader.readuntil(b"\r\n")).split()[1])
                finally:
                    writer.transport.abort()
        return None


def authority(atoll: Atoll) -> str:
    """The CA's certificate."""
    return str(atoll.config.control_state / "keys" / "ca.pem")


async def signed_in(somebody: Atoll, vm: str) -> Visitor:
    """By the link that `browser` gives, and then at the VM, which they may open."""
    jar = somebody.folder / f"{somebody.key.name}.jar"
    jar.unlink(missing_ok=True)
    argv = ["curl", "-sSL", "--fail", "--cacert", authority(somebody), "--max-time", "30"]
    argv += ["-H", "Accept: text/html", "-b", str(jar), "-c", str(jar)]
    link = json.loads((await somebody.ssh("browser", "--json")).out)["url"]
    await run([*argv, "--data", "", link], seconds=40)
    await run([*argv, somebody.url(vm)], seconds=40)
    (cookie,) = re.findall(rf"{TOKEN_COOKIE}\t(\S+)", jar.read_text())
    return Visitor(somebody, vm, cookie)
