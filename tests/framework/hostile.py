"""Lines that nobody in his right mind types, and a cloud that must refuse them in order.

Invariant that `Target.check` asserts: a line is answered, or refused by an AtollError of the caller's
own fault, short and with its exit code; what is refused has written nothing into the store, and so has
what only reads.
"""

from __future__ import annotations

import random
import shlex
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

from atoll.base.errors import AtollError, Internal, Unavailable
from atoll.commands.parse import GLOBAL, LINE_BYTES, parse
from atoll.commands.reply import Reply
from atoll.commands.verbs import REGISTRY
from fakes.engine import FakeEngine
from framework.cloud import Control, control, store_in

VM = "web"
ERROR_CHARS = 1500
# They write by design without changing anything that a dry run could tell.
WRITING = frozenset({"browser"})
SLOW = frozenset({"stat"})  # it waits between two readings
WORDS: Sequence[str] = (
    "", " ", "-", "--", "---", "--=", "-=x", "=", "*", "?", "[", "[!a", "**", "..", "../../etc/passwd",
    "'", '"', "\\", "''", "'\\''", "$(id)", "`id`", "; ls", "| wc", "\n", "\r\n", "\t", "\0", "a\0b",
    "\x1b[2J", "\x9b", "\u202e", "\u2028", "\ufeff", "\ud800", "\udcff", "\udc80x", "é", "e\u0301", "İ",
    "ǆ", "٣", "１", "🏝", "👩‍👩‍👧", "%s%n", "{}", "null", "true", "-1", "1e9", "9" * 30, "9" * 5000,
    "0x10", "1_000", "inf", "nan", "1T", "1P", "0", "00", VM, "WEB", f"{VM}.", f"{VM}/", "a" * 52,
    "a" * 53, "a" * 10_000, "é" * 10_000, "*" * 199, "*" * 5000, "*a" * 100, "[" * 200, ",", ",,,", "a,b",
    "a=b", "A=", "=B", "A=\nB", "@", "ann@example.com", "all", "never", "30d", "-9d", "ssh-ed25519 AAAA",
    "atoll1.x", "exe0.e30.x", "#!/bin/sh", "help", "--name", "--name=", "-d", "-l", *GLOBAL,
)  # fmt: skip


@dataclass
class Target:
    """The cloud, and what came of the lines so far."""

    cloud: Control
    probe: sqlite3.Connection
    ran: int = 0
    refused: int = 0

    async def check(self, line: str) -> None:
        """Run one line; raises AssertionError, or what else got out, when it is not refused in order."""
        before = self.version()
        came = await self._came_of(line)
        if isinstance(came, AtollError):
            self.refused += 1
            assert not isinstance(came, Internal | Unavailable), f"{came!r} is a fault of ours"
            assert 400 <= came.http < 500, came.http
            assert came.exit == 2 or 66 <= came.exit <= 78, came.exit
            assert 0 < len(str(came)) < ERROR_CHARS, f"{str(came)[:200]!r}…"
            assert self.version() == before, f"{came!r}, and yet the store was written to"
            return
        self.ran += 1
        came.text.encode()
        parsed = parse(REGISTRY, line)
        is_reading = not parsed.command.mutates or parsed.wants_help or parsed.is_dry_run
        if is_reading and parsed.command.name not in WRITING:
            assert self.version() == before, f"`{parsed.command.name}` only reads"

    async def _came_of(self, line: str) -> Reply | AtollError:
        try:
            return await self.cloud.run(line)
        except AtollError as error:
            return error

    def version(self) -> int:
        """Another number after every transaction that wrote."""
        return int(self.probe.execute("PRAGMA data_version").fetchone()[0])


@asynccontextmanager
async def target(folder: Path) -> AsyncIterator[Target]:
    """A cloud with one VM."""
    folder.mkdir(parents=True, exist_ok=True)
    engine = FakeEngine(folder / "engine.sock")
    async with engine.serving(), control(folder / "control", engine, loops=True) as cloud:
        await cloud.run(f"new --name {VM}")
        audit = await store_in(folder / "audit")
        await cloud.cloud.audit.flush()
        cloud.cloud.audit._store = audit  # which is written to by every line, and by design
        try:
            with closing(sqlite3.connect(folder / "control" / "atoll.db")) as probe:
                yield Target(cloud, probe)
            await cloud.cloud.audit.flush()
        finally:
            await audit.close()


def line(dice: random.Random) -> str:
    """One line."""
    match dice.randrange(10):
        case 0:
            return _text(dice, dice.choice((3, 30, 300)))
        case 1:
            return _broken(dice, dice.choice(_EXAMPLES))
        case 2 if dice.randrange(40) == 0:
            filling = dice.choice(WORDS) * dice.choice((1, 2, LINE_BYTES))
            return f"{_verb(dice)} {filling}"[: LINE_BYTES * 2]
    words = [_word(dice) for _ in range(dice.choice((0, 1, 1, 2, 3, 5, 40)))]
    quoted = map(shlex.quote, words) if dice.randrange(4) else words
    return " ".join([_verb(dice), *quoted])


def _verb(dice: random.Random) -> str:
    return " ".join(dice.choice(_HEADS))


def _word(dice: random.Random) -> str:
    flags = _FLAGS if dice.randrange(2) else WORDS
    word = dice.choice(flags)
    if word.startswith("--") and dice.randrange(2):
        word += "=" + dice.choice(WORDS)
    return word if dice.randrange(8) else _broken(dice, word)


def _text(dice: random.Random, size: int) -> str:
    return "".join(chr(dice.choice(_CHARS)) for _ in range(dice.randrange(size)))


def _broken(dice: random.Random, text: str) -> str:
    """A few random changes."""
    for _ in range(dice.choice((1, 1, 2, 5))):
        at = dice.randrange(len(text) + 1)
        put = dice.choice(WORDS)[:200] if dice.randrange(3) else _text(dice, 4)
        text = text[:at] + put + text[at + dice.randrange(4) :]
    return text


_HEADS = [words for words in REGISTRY.heads() if words[0] not in SLOW]
_FLAGS = sorted(
    {flag for command in REGISTRY for option in command.options for flag in option.flags}
)
_EXAMPLES = [
    example for command in REGISTRY if command.words[0] not in SLOW for example in command.examples
]
_CHARS = [
    *range(0x20, 0x7F),
    *range(0x20),
    0x22,
    0x27,
    0x2D,
    0x3D,
    0x5C,
    0xE9,
    0x202E,
    0xD800,
    0xDCFF,
    0x1F3DD,
]
