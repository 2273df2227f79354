"""A real SMTP server in a test: what it took, and what it says instead of taking it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword

from atoll.base.aio import poll

PASSWORD = "correct horse"


@dataclass
class Server:
    """`answers` are given to the next messages in place of taking them."""

    port: int = 0  # known once it listens
    took: list[tuple[list[str], EmailMessage]] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    is_slow: asyncio.Event | None = None  # nothing is answered until it is set
    asked: int = 0

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:
        """See aiosmtpd."""
        self.asked += 1
        if self.is_slow is not None:
            await self.is_slow.wait()
        if self.answers:
            return self.answers.pop(0)
        content = envelope.content
        assert isinstance(content, bytes)
        message = message_from_bytes(content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.took.append((list(envelope.rcpt_tos), message))
        return "250 taken"

    async def has(self, count: int) -> list[tuple[list[str], EmailMessage]]:
        """Wait until so many messages have come."""

        async def check() -> bool | None:
            return len(self.took) >= count or None

        await poll(check, seconds=10, what=f"{count} messages", every=0.005)
        return self.took


@asynccontextmanager
async def smtp(
    *, starttls: ssl.SSLContext | None = None, tls: ssl.SSLContext | None = None, auth: bool = False
) -> AsyncIterator[Server]:
    """Listen on loopback while the body runs."""
    made = Server()

    def login(_server: Any, _session: Any, _envelope: Any, _how: str, data: Any) -> AuthResult:
        is_right = isinstance(data, LoginPassword) and data.password == PASSWORD.encode()
        return AuthResult(success=is_right, handled=False)

    def protocol() -> SMTP:
        return SMTP(
            made,
            tls_context=starttls,
            require_starttls=starttls is not None,
            enable_SMTPUTF8=True,
            auth_required=auth and tls is None,
            auth_require_tls=auth and tls is None,
            authenticator=login if auth else None,
        )

    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        if made.is_slow is not None:
            made.is_slow.set()
