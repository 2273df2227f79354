"""Terminals of a whole control: store, language, sessions, uvicorn, SSH and a shell are real."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from atoll.base.aio import TaskGroup, poll
from atoll.commands.addresses import Addresses
from atoll.config import Config
from atoll.domain.web import HOST_HEADER, SESSION_COOKIE
from atoll.doors.front.serve import serve
from atoll.doors.ssh.shells import Shells
from atoll.doors.web.terminal.pool import Terminals
from atoll.services.sessions import Sessions
from fakes.engine import FakeEngine
from fakes.sshd import FakeSshd
from framework.clients import free_port, listening
from framework.cloud import Control, control
from framework.fountain import Fountains
from framework.front import http


class Page:
    """What terminal.js is to a terminal, without a screen: keeps all output, acknowledges it."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.output = b""
        self.notes: list[dict[str, Any]] = []
        self.offset = 0
        self.acks = True
        self.code: int | None = None
        self.reason = ""
        self._typed = 0

    async def run(self) -> None:
        """Take what comes until the end."""
        try:
            while True:
                await self._take(await self.socket.recv())
        except ConnectionClosed as closed:
            self.code = closed.rcvd.code if closed.rcvd else 1006
            self.reason = closed.rcvd.reason if closed.rcvd else ""

    async def _take(self, frame: str | bytes) -> None:
        if isinstance(frame, str):
            note = json.loads(frame)
            self.notes.append(note)
            if "from" in note:
                self.offset = note["from"]["offset"]
                self.output = b"" if note["from"]["reset"] else self.output
            return
        self.output += frame
        self.offset += len(frame)
        if self.acks:
            await self.say("ack", self.offset)

    async def say(self, what: str, value: object) -> None:
        with suppress(ConnectionClosed):  # `run` tells
            await self.socket.send(json.dumps({what: value}))

    async def type(self, text: str) -> None:
        await self.socket.send(text.encode())

    async def shows(self, pattern: str, *, seconds: float = 10) -> re.Match[bytes]:
        """Wait until the output has it."""

        async def check() -> re.Match[bytes] | None:
            return re.search(pattern.encode(), self.output, re.DOTALL)

        try:
            return await poll(check, seconds=seconds, what=pattern, every=0.01)
        except Exception as error:
            raise AssertionError(f"no {pattern!r} in {self.output[-2000:]!r}") from error

    async def took(self, count: int, *, seconds: float = 100) -> None:
        """Wait until so many bytes have come since the output was emptied; keeps none of them."""
        left = count

        async def check() -> bool | None:
            nonlocal left
            left -= len(self.output)
            self.output = b""
            return left <= 0 or None

        await poll(check, seconds=seconds, what=f"{count} bytes", every=0.02)

    async def told(self, what: str) -> Any:
        """Wait for a text frame of this kind."""

        async def check() -> tuple[Any] | None:
            return next(((note[what],) for note in self.notes if what in note), None)

        return (await poll(check, seconds=10, what=what, every=0.01))[0]

    async def ends(self) -> int:
        """The code that a page is sent away with; nobody is listening otherwise."""
        try:
            while True:
                await self.socket.recv()
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 1006

    async def closed(self) -> tuple[int, str]:
        """Wait for the end; code and reason."""

        async def check() -> bool | None:
            return self.code is not None or None

        await poll(check, seconds=10, what="the end of the socket", every=0.01)
        assert self.code is not None
        return self.code, self.reason


@dataclass
class House:
    """A control with one VM of ann's, called web."""

    cloud: Control
    vm: FakeSshd
    sessions: Sessions
    terminals: Terminals
    port: int
    group: TaskGroup
    cookies: dict[str, str] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """As the browser sees it."""
        return Addresses(self.cloud.cloud.config).names.url(
            self.cloud.cloud.config.https.domain, ""
        )

    async def sign_in(self, who: str) -> str:
        """A session of ann's or bob's; its id, which the cookie holds."""
        account = self.cloud.callers[who].account
        self.cookies[who] = await self.sessions.new_session(account.id)
        return self.cookies[who]

    def headers(self, who: str = "ann", **more: str) -> dict[str, str]:
        """As HAProxy passes them on."""
        cookie = {"cookie": f"{SESSION_COOKIE}={self.cookies[who]}"} if who in self.cookies else {}
        host = self.cloud.cloud.config.https.domain
        named = {name.replace("_", "-"): value for name, value in more.items()}
        return {HOST_HEADER: host, "origin": self.origin} | cookie | named

    async def post(self, path: str, who: str = "ann", **form: str) -> httpx2.Response:
        """Send a form."""
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{self.port}") as client:
            headers = self.headers(who, accept="text/html")
            return await client.post(path, data=form, headers=headers)

    async def get(self, path: str, who: str = "ann") -> httpx2.Response:
        """Load a page."""
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{self.port}") as client:
            return await client.get(path, headers=self.headers(who, accept="text/html"))

    async def opened(self, who: str = "ann", **form: str) -> str:
        """Open a terminal; its id."""
        answer = await self.post("/terminal", who, **(form or {"kind": "vm", "vm": "web"}))
        assert answer.status_code == 303, answer.text
        return answer.headers["location"].removeprefix("/terminal/")

    def socket(self, id_: str, who: str = "ann", *, path: str = "", **more: str) -> connect:
        """A WebSocket to a terminal, before its hello; `path` for one that is somewhere else."""
        headers = self.headers(who, **more)
        url = f"ws://127.0.0.1:{self.port}{path or f'/terminal/{id_}/socket'}"
        return connect(
            url, additional_headers=headers, max_size=None, compression=None, proxy=None,
            ping_interval=None,
        )  # fmt: skip

    async def attach(
        self,
        id_: str,
        who: str = "ann",
        *,
        have: int | None = None,
        size: tuple[int, int] = (80, 24),
        acks: bool = True,
    ) -> Page:
        """A page on a terminal."""
        page = Page(await self.socket(id_, who))
        page.acks = acks
        await page.say("hello", {"have": have, "size": size})
        self.group.create_task(page.run())
        return page


@asynccontextmanager
async def house(
    folder: Path,
    *,
    config: Config | None = None,
    port: int | None = None,
    shells: Fountains | None = None,
) -> AsyncIterator[House]:
    """Serve while the body runs; ann is signed in. `shells` take the place of those over SSH."""
    engine, port = FakeEngine(folder / "engine.sock"), port or free_port()
    async with (
        FakeSshd().serving() as vm,
        engine.serving(),
        control(folder / "control", engine, config=config, loops=True) as made,
        TaskGroup() as group,
    ):
        await made.run("new --name web")
        (folder / "ca.pem").touch()
        cloud = made.cloud
        sessions = Sessions(
            store=made.store, changes=cloud.changes, keys=cloud.keys.tokens, session_seconds=3600,
            now=cloud.now,
        )  # fmt: skip
        built = http(
            config=cloud.config, language=made.language, sessions=sessions, callers=cloud.tokens,
            answers=cloud.answers, published=cloud.publishing.named, changes=cloud.news,
            ca=folder / "ca.pem", ways=cloud,
            shells=shells or Shells(opener=vm, language=made.language, history=cloud.history),
        )  # fmt: skip
        terminals = built.terminals
        cloud.facts.when_vm_ends(terminals.end_vm)
        async with TaskGroup() as pages_group, built.running():
            task = group.create_task(serve(built.app, port=port))
            await listening(port, seconds=30)
            here = House(made, vm, sessions, terminals, port, pages_group)
            await here.sign_in("ann")
            yield here
        task.cancel()
