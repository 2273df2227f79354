"""The monitor connection against a peer that speaks QMP on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from atoll.base.errors import Unavailable
from atoll.engine.qemu.qmp import Qmp, QmpFailed

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": []}}
EVENT = {"event": "RTC_CHANGE", "data": {}, "timestamp": {"seconds": 1, "microseconds": 0}}


async def _requests(reader: asyncio.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """Objects need no line ends between them in QMP."""
    text = ""
    while data := await reader.read(4096):
        text += data.decode()
        while text:
            try:
                request, end = json.JSONDecoder().raw_decode(text)
            except ValueError:
                break  # not whole yet
            text = text[end:].lstrip()
            yield request


class Monitor:
    """Answers `stop`, refuses `cont`, never answers `quit`; `storm` sends 100 events first."""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(message: object) -> None:
            writer.write(json.dumps(message).encode() + b"\r\n")

        say(GREETING)
        with contextlib.suppress(ConnectionError):
            async for request in _requests(reader):
                number = {"id": request["id"]} if "id" in request else {}
                match request["execute"]:
                    case "cont":
                        error = {"class": "GenericError", "desc": "no"}
                        say({"error": error, **number})
                        continue
                    case "quit":
                        continue
                    case "hang-up":
                        break
                    case "storm":
                        for _ in range(100):
                            say(EVENT)
                say({"return": {}, **number})
        writer.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "qmp.sock"


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[Qmp]:
    server = await asyncio.start_unix_server(Monitor(), path)
    qmp = Qmp(path)
    async with server:
        await qmp.connect(seconds=5)
        try:
            yield qmp
        finally:
            await qmp.close()


async def test_answers_refusals_and_silence(path: Path) -> None:
    async with connected(path) as qmp:
        assert await qmp.execute("stop") == {}
        with pytest.raises(QmpFailed, match="qemu refused cont: no"):
            await qmp.execute("cont")
        with pytest.raises(Unavailable, match=r"qmp quit on .* took over"):
            await qmp.execute("quit", seconds=0.05)
        assert await qmp.execute("stop") == {}


async def test_an_end_is_told(path: Path) -> None:
    async with connected(path) as qmp:
        with pytest.raises(Unavailable, match="qemu ended during hang-up"):
            await qmp.execute("hang-up")
        with pytest.raises(Unavailable):
            await qmp.execute("stop")
        await qmp.close()  # closed already is fine


async def test_nobody_there(path: Path) -> None:
    qmp = Qmp(path)
    with pytest.raises(Unavailable, match="no monitor"):
        await qmp.connect(seconds=1)
    await qmp.close()


async def test_events_arrive_and_none_are_kept(path: Path) -> None:
    """A guest can cause events for as long as it runs."""
    async with connected(path) as qmp:
        events = qmp.events()
        first = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        await qmp.execute("storm")
        heard = [await first, *[await anext(events) for _ in range(99)]]
        assert {str(event["event"]) for event in heard} == {"RTC_CHANGE"}
        listeners = qmp._client._listeners
        assert [len(listener.history) for listener in listeners] == [0, 0]
        assert all(listener.empty() for listener in listeners)
        await events.aclose()  # type: ignore[attr-defined]
