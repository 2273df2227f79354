"""A QEMU that is only its monitor: speaks QMP on a real socket, and says what a test wants it to."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": []}}
EVENT = {"event": "RTC_CHANGE", "data": {}, "timestamp": {"seconds": 1, "microseconds": 0}}


class Monitor:
    """Answers each command with {}, or with what `answers` has for it.

    It refuses what is in `refused`, never answers `quit`, ends at `hang-up`; `storm` sends 100 events
    first. `first` is sent before every answer.
    """

    def __init__(self) -> None:
        self.answers: dict[str, object] = {}
        self.refused = {"cont"}
        self.heard: list[dict[str, Any]] = []  # every command, in order
        self.first = b""
        self._writers: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def serving(self, path: Path) -> AsyncIterator[None]:
        """Listen on `path` while the body runs."""
        async with await asyncio.start_unix_server(self._converse, path):
            yield
            for writer in self._writers:
                writer.close()

    def say(self, line: bytes) -> None:
        """Send a line that nobody asked for."""
        for writer in self._writers:
            writer.write(line)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(line(GREETING))
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError):
            async for request in _requests(reader):
                number = {"id": request["id"]} if "id" in request else {}
                self.heard.append(request)
                if request["execute"] in self.refused:
                    error = {"class": "GenericError", "desc": "no"}
                    writer.write(line({"error": error, **number}))
                    continue
                match request["execute"]:
                    case "quit":
                        continue
                    case "hang-up":
                        break
                    case "storm":
                        writer.write(line(EVENT) * 100)
                    case "qmp_capabilities":
                        writer.write(line({"return": {}, **number}))
                        continue
                writer.write(self.first)
                answer = self.answers.get(request["execute"], {})
                writer.write(line({"return": answer, **number}))
        self._writers.discard(writer)
        writer.close()


def line(message: object) -> bytes:
    """As QEMU writes it."""
    return json.dumps(message).encode() + b"\r\n"


def event(name: object, data: object) -> bytes:
    """An event; the types are the test's business."""
    return line({**EVENT, "event": name, "data": data})


async def _requests(reader: asyncio.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """Objects need no line ends between them in QMP."""
    text = ""
    while data := await reader.read(4096):
        text = (text + data.decode()).lstrip()  # a blank comes with a descriptor
        while text:
            try:
                request, end = json.JSONDecoder().raw_decode(text)
            except ValueError:
                break  # not whole yet
            text = text[end:].lstrip()
            yield request
