"""The app in docs/openid.md works as it stands there."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx2

from framework.openid import ANN, WEB, agree, world
from framework.openid_app import source


async def test_the_app_of_the_docs_knows_its_visitor(tmp_path: Path) -> None:
    async with world(tmp_path) as cloud:
        cloud.clock.time = time.time()  # the app has a clock of its own
        names: dict[str, Any] = {"TRANSPORT": httpx2.ASGITransport(app=cloud.app)}
        exec(source().replace('verify="ca.pem"', "transport=TRANSPORT"), names)
        transport = httpx2.ASGITransport(app=names["app"])
        async with httpx2.AsyncClient(
            transport=transport, base_url=f"https://{WEB}:8443"
        ) as visitor:
            url = (await visitor.get("/login")).headers["location"]
            given = await agree(await cloud.browser(), url)
            arrived = await visitor.get(given.headers["location"])
        await names["cloud"].aclose()
    assert arrived.text == f"You are {ANN.email}"
