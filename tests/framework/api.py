"""The API of a whole control in a test, asked as HAProxy asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

from atoll.base.limits import Limits
from atoll.doors.api.run import VmRunner
from atoll.doors.front.app import Custom, no_custom
from atoll.services.sessions import Sessions
from framework.cloud import Control
from framework.front import Http, http

BASE = "https://atoll.localhost:8443"


class Door:
    """One client with one token of ann's."""

    def __init__(self, built: Http, token: str, sessions: Sessions) -> None:
        self.app = built.app
        self.web = built.web
        self.token = token
        self.sessions = sessions
        self.client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=built.app), base_url=BASE
        )

    async def exec(self, line: str, **headers: str) -> httpx2.Response:
        """Run one line."""
        bearer = {"authorization": f"Bearer {self.token}"}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post("/exec", content=line.encode(), headers=bearer | named)

    async def data(self, line: str, **headers: str) -> Any:
        """The JSON of a line that works."""
        answer = await self.exec(line, **headers)
        assert answer.status_code == 200, answer.text
        return answer.json()


@asynccontextmanager
async def door(
    control: Control,
    folder: Path,
    *,
    cmds: tuple[str, ...] | None = None,
    runner: VmRunner | None = None,
    limits: Limits | None = None,
    custom: Custom = no_custom,
) -> AsyncIterator[Door]:
    """The application of `control`; `cmds` limits the token."""
    cloud = control.cloud
    (folder / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    sessions = Sessions(
        store=control.store,
        changes=cloud.changes,
        keys=cloud.keys.tokens,
        session_seconds=60,
        now=cloud.now,
    )
    built = http(
        config=cloud.config,
        language=control.language,
        sessions=sessions,
        callers=cloud.tokens,
        answers=cloud.answers,
        published=cloud.publishing.named,
        changes=cloud.news,
        ca=folder / "ca.pem",
        ways=cloud,
        audit=cloud.audit,
        runner=runner,
        limits=limits,
        custom=custom,
    )
    cloud.accounts.when_key_ends(lambda key: built.api.end(key.fingerprint))
    cloud.tokens.when_token_ends(built.api.end)
    _, token = await cloud.tokens.new(control.ann.account, "test", cmds)
    made = Door(built, token, sessions)
    try:
        async with built.running():
            yield made
    finally:
        await made.client.aclose()
