"""Where HAProxy asks about a token that it sees for the first time (`ask.lua`): a unix socket.

One question per connection: `<vm host> <token>` and a newline, answered by the value that stands for the
token in HAProxy's map, or by an empty line when it is no good. Whoever gets no answer refuses.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from atoll.base import log
from atoll.base.errors import AtollError
from atoll.base.timeout import timeout
from atoll.domain.vm_token import VmToken
from atoll.doors.edge import tickets

LIMIT = 20_000
SECONDS = 2.0  # as long as `ask.lua` waits
AT_ONCE = 20
_QUESTION = re.compile(r"([a-z0-9-]{1,63})[.]([a-z0-9.-]{1,253}) ([!-~]{1,16000})\n")
_log = log.get("edge")


class Admitting(Protocol):
    """Says who comes with a token."""

    async def admit(self, vm_name: str, token: str) -> VmToken | None:
        """None: it is not good at this VM's address."""
        ...


class Questions:
    """Answers on the socket at `path`, whose folder gives it to HAProxy's group."""

    def __init__(self, *, path: Path, domain: str, tokens: Admitting) -> None:
        self._path = path
        self._domain = domain
        self._tokens = tokens
        self._turn = asyncio.Semaphore(AT_ONCE)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Listen while the body runs."""
        self._path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._accept, self._path, limit=LIMIT)
        os.chmod(self._path, 0o660)
        try:
            yield
        finally:
            server.close()
            self._path.unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with timeout(SECONDS), self._turn:
                writer.write(await self._answer(await reader.readline()) + b"\n")
                await writer.drain()
        except (AtollError, OSError, ValueError) as error:  # TimeoutError is an OSError
            _log.warning("a token was not looked at", reason=str(error) or type(error).__name__)
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> bytes:
        asked = _QUESTION.fullmatch(line.decode("ascii", errors="replace"))
        if asked is None or asked[2] != self._domain:
            return b""
        token = await self._tokens.admit(asked[1], asked[3])
        return b"" if token is None else tickets.value(token).encode()
