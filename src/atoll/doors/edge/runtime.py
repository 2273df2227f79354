"""HAProxy's runtime socket: read and change maps, end open streams.

One connection per request, as HAProxy likes it: it answers, then closes. Every answer is checked;
what HAProxy refuses is an Unavailable with its words, and the caller then compares everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path

from atoll.base.aio import deadline
from atoll.base.errors import Unavailable
from atoll.doors.edge.decide import ADMITTED, EPOCH, Change, Table
from atoll.doors.edge.files import Files

SECONDS = 10.0
GRACE_S = 0.25  # most answers take less; whoever lost access has lost it within a second
# HAProxy reads a command and its payload into one buffer of 16 kB (tune.bufsize).
_PAYLOAD_BYTES = 8_000
_STREAM = re.compile(r"(0x[0-9a-f]+): \[.*?\] id=(\d+) ")
_SERVER = re.compile(r"  server=vm(?:_once)? \(id=\d+\) addr=([0-9.]+):\d+")
_NEW_VERSION = re.compile(r"New version created: (\d+)")


class Runtime:
    """Commands on the runtime socket.

    HAProxy keeps whom it let in in the map `admitted`, under an epoch that is an entry of the same map:
    every change of another map here ends in a new epoch, so nothing that was found before it counts.
    """

    def __init__(self, files: Files) -> None:
        self._path = files.socket
        self._admitted = files.map(ADMITTED)

    async def pid(self) -> int:
        """The process that answers: a new one has read the map files anew."""
        for line in (await self.ask("show info")).splitlines():
            if line.startswith("Pid:"):
                return int(line.partition(":")[2])
        raise Unavailable("HAProxy does not tell its pid")

    async def table(self, path: Path) -> tuple[dict[str, str], bool]:
        """A map's entries, and whether a key stands in it twice (then it must be replaced)."""
        entries: dict[str, str] = {}
        twice = False
        for line in (await self.ask(f"show map {path}")).splitlines():
            if not line:
                continue
            try:
                _, key, value = line.split(" ", 2)
            except ValueError as error:
                raise Unavailable(f"HAProxy shows no map {path}: {line[:200]}") from error
            twice = twice or key in entries
            entries[key] = value
        return entries, twice

    async def replace(self, path: Path, table: Table) -> None:
        """Make a map exactly `table`, in one step for the requests that look into it."""
        answer = await self.ask(f"prepare map {path}")
        version = _NEW_VERSION.search(answer)
        if version is None:
            raise Unavailable(f"HAProxy does not prepare {path}: {answer[:200]}")
        # Payloads of several commands cannot share a connection: each ends it for the next.
        for payload in _payloads(table.items()):
            await self._quietly(f"add map @{version[1]} {path} <<\n{payload}\n")
        await self._quietly(f"commit map @{version[1]} {path}")
        await self.forget_admitted()

    async def apply(self, path_of: dict[str, Path], changes: Sequence[Change]) -> None:
        """Make `changes` one after the other; raises Unavailable when one did not fit."""
        commands = [_command(path_of[change.table], change) for change in changes]
        for batch in _batches(commands):
            await self._quietly("; ".join(batch + self._new_epoch()))

    async def forget_admitted(self) -> None:
        """Have every request looked at anew."""
        await self._quietly("; ".join(self._new_epoch()))

    def _new_epoch(self) -> list[str]:
        """Between the two commands there is none, and nobody is remembered."""
        epoch = secrets.token_hex(8)
        return [f"clear map {self._admitted}", f"add map {self._admitted} {EPOCH} {epoch}"]

    async def end_streams(self, addresses: Iterable[str]) -> int:
        """End every stream that is open now and whose server is one of these addresses; returns how many.

        They have GRACE_S to end by themselves, so that answers under way to others arrive.
        """
        wanted = set(addresses)
        if not wanted or not (open_now := await self._streams(wanted)):
            return 0
        await asyncio.sleep(GRACE_S)
        doomed = open_now & await self._streams(wanted)
        for batch in _batches([f"shutdown session {address}" for address, _ in doomed]):
            await self.ask("; ".join(batch))  # "No such session": it ended by itself
        return len(doomed)

    async def _streams(self, servers: set[str]) -> frozenset[tuple[str, int]]:
        """The streams to these servers: address in memory, which names it, and number.

        A later stream may have the same address, and has another number.
        """
        found, stream = set(), ("", 0)
        for line in (await self.ask("show sess all")).splitlines():
            if match := _STREAM.match(line):
                stream = match[1], int(match[2])
            elif (match := _SERVER.match(line)) and match[1] in servers:
                found.add(stream)
        return frozenset(found)

    async def _quietly(self, command: str) -> None:
        """Run commands that say nothing when all is well."""
        said = (await self.ask(command)).strip()
        if said:
            raise Unavailable(f"HAProxy: {said[:300]}")

    async def ask(self, command: str) -> str:
        """Send one line (or several joined by `;`, or one with a payload); return the answer."""
        async with deadline(SECONDS, "HAProxy's runtime socket", hint="Try: atoll doctor"):
            try:
                reader, writer = await asyncio.open_unix_connection(self._path)
                try:
                    writer.write(command.encode() + b"\n")
                    await writer.drain()
                    return (await reader.read()).decode(errors="replace")
                finally:
                    writer.close()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
            except OSError as error:
                raise Unavailable(
                    f"HAProxy does not listen on {self._path}: {error}", hint="Try: atoll doctor"
                ) from error


def _command(path: Path, change: Change) -> str:
    if change.value is None:
        return f"del map {path} {change.key}"
    # `set map` refuses a new key and `add map` doubles an old one.
    verb = "set" if change.replaces else "add"
    return f"{verb} map {path} {change.key} {change.value}"


def _payloads(entries: Iterable[tuple[str, str]]) -> list[str]:
    lines = [f"{key} {value}" for key, value in entries]
    return ["\n".join(batch) for batch in _batches(lines)]


def _batches(lines: Sequence[str]) -> list[list[str]]:
    """Split so that each batch stays below HAProxy's buffer."""
    batches: list[list[str]] = []
    size = _PAYLOAD_BYTES
    for line in lines:
        size += len(line) + 2
        if size > _PAYLOAD_BYTES:
            batches.append([])
            size = len(line) + 2
        batches[-1].append(line)
    return batches
