"""The monitor connection against a peer that speaks QMP on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from atoll.base.errors import Unavailable
from atoll.engine.qemu.qmp import Qmp, QmpFailed
from fakes.monitor import Monitor, event, line

# Lines that end the connection: QEMU runs hostile guests, and may be one.
HOSTILE = {
    "over 10 MB": event("X", "x" * (11 << 20)),
    "no name": event([], {}),
    "a list": line([1]),
    "an answer to nobody": line({"return": {}, "id": ["x"]}),
    "no text": b"\xff\xfe\n",
    "nested too deeply": b"[" * 200_000 + b"\n",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "qmp.sock"


@asynccontextmanager
async def connected(path: Path, monitor: Monitor | None = None) -> AsyncIterator[Qmp]:
    qmp = Qmp(path)
    async with (monitor or Monitor()).serving(path):
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


async def test_an_event_before_the_answer_to_its_command_is_heard(path: Path) -> None:
    monitor = Monitor()
    async with connected(path, monitor) as qmp, qmp.listening("BLOCK_JOB_READY") as heard:
        monitor.first = event("OTHER", {}) + event("BLOCK_JOB_READY", {"device": "job"})
        assert await qmp.execute("blockdev-mirror") == {}
        async with asyncio.timeout(5):
            assert (await heard.get())["data"] == {"device": "job"}
        assert heard.empty()


async def test_a_large_event_is_an_event(path: Path) -> None:
    monitor = Monitor()
    async with connected(path, monitor) as qmp, qmp.listening("X") as heard:
        monitor.first = event("X", "x" * (9 << 20))
        assert await qmp.execute("stop") == {}
        async with asyncio.timeout(5):
            assert len(str((await heard.get())["data"])) == 9 << 20


@pytest.mark.parametrize("sent", HOSTILE.values(), ids=HOSTILE.keys())
async def test_what_cannot_be_read_ends_the_connection_and_no_more(path: Path, sent: bytes) -> None:
    monitor = Monitor()
    async with connected(path, monitor) as qmp, qmp.listening("JOB_STATUS_CHANGE"):
        monitor.first = sent
        for _ in range(2):
            with pytest.raises(Unavailable):
                await qmp.execute("stop", seconds=5)
        await qmp.close()
