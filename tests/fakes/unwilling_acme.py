"""An ACME server that goes along with a client up to a step, and there answers what a test says.

It believes every signature: what a good server does is tested with a real one.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Says:
    """An answer: JSON, or bytes as they are; with no status the connection ends, or hangs."""

    status: int | None = None
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    hangs: bool = False


def problem(status: int, kind: str, detail: str, **headers: str) -> Says:
    """An error as RFC 8555 (6.7) has them."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Says(status, {"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail}, named)


@dataclass
class UnwillingAcme:
    """`says` is by the name of a step: directory, new-nonce, new-acct, new-order, authz."""

    says: dict[str, Says] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    url: str = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Listen while the body runs."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield
        finally:
            server.close()

    def _willing(self, step: str) -> Says:
        match step:
            case "directory":
                names = {"newNonce": "new-nonce", "newAccount": "new-acct", "newOrder": "new-order"}
                return Says(200, {name: f"{self.url}/{path}" for name, path in names.items()})
            case "new-acct":
                return Says(201, {"status": "valid"}, {"Location": f"{self.url}/acct/1"})
            case "new-order":
                order = {
                    "status": "pending",
                    "identifiers": [{"type": "dns", "value": "shop.test"}],
                    "authorizations": [f"{self.url}/authz"],
                    "finalize": f"{self.url}/finalize",
                }
                return Says(201, order, {"Location": f"{self.url}/order/1"})
            case "authz":
                kinds = [{"type": "tls-alpn-01", "url": f"{self.url}/chall", "token": "eHg"}]
                who = {"type": "dns", "value": "shop.test"}
                return Says(200, {"status": "pending", "identifier": who, "challenges": kinds})
        return Says(200)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
            await reader.readexactly(int(fields.get("content-length", 0)))
            step = head.split()[1].lstrip("/")
            self.asked[step] += 1
            answer = self.says.get(step, self._willing(step))
            if answer.hangs:
                await reader.read()
            elif answer.status is not None:
                writer.write(_rendered(answer, is_head=head.startswith("HEAD")))
                await writer.drain()
        writer.close()


def _rendered(answer: Says, *, is_head: bool) -> bytes:
    body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
    is_problem = (answer.status or 0) >= 400
    headers = {
        "Content-Type": "application/problem+json" if is_problem else "application/json",
        "Content-Length": str(len(body)),
        "Replay-Nonce": "bm9uY2U",
        "Connection": "close",
        **answer.headers,
    }
    lines = [
        f"HTTP/1.1 {answer.status} x",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if is_head else body)
