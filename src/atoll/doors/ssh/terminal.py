"""A session's terminal: keys in, text out, and its size.

Everything printed goes through `write`, which spells out what the terminal would act on; `draw`
alone sends control sequences, and they are ours. Reading is pulled: what nobody has asked for stays
as it came, for a command in a VM that takes the terminal over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

import asyncssh

from atoll.base.aio import unless
from atoll.base.text import escape
from atoll.commands.colour import Colour, is_wanted, paint
from atoll.doors.ssh.draw import Size
from atoll.doors.ssh.keys import Event, Keys
from atoll.doors.ssh.process import Channel

_CHUNK = 4096
_AHEAD = 1 << 16  # characters typed while a command runs; more wait on the client's side
_DUMB = frozenset(["", "dumb", "unknown", "network"])
_PASTE_ON, _PASTE_OFF = "\x1b[?2004h", "\x1b[?2004l"
T = TypeVar("T")


class Happening(StrEnum):
    """What is not a key."""

    RESIZED = "resized"
    HUNG_UP = "hung up"


Input: TypeAlias = Event | Happening


class Interrupted(Exception):
    """Ctrl-C, at a line or while a command ran."""


class Terminal:
    """The terminal of a session that has one."""

    def __init__(self, process: Channel) -> None:
        self._process = process
        self._keys = Keys()
        self._ahead = ""  # came while a command ran

    @property
    def size(self) -> Size:
        """As it is now."""
        columns, rows, *_pixels = self._process.term_size
        return Size.of(columns, rows)

    @property
    def is_dumb(self) -> bool:
        """Whether it has no movable cursor."""
        return (self._process.term_type or "") in _DUMB

    @property
    def is_idle(self) -> bool:
        """Whether all that came has been read."""
        return not self._ahead and self._keys.is_empty

    @property
    def has_colour(self) -> bool:
        """Whether it shows colours and its user wants them (`SendEnv NO_COLOR` says no)."""
        return is_wanted(self._process.term_type or "", self._process.env)

    def write(self, text: str, colour: Colour = Colour.NONE) -> None:
        """Print text."""
        safe = escape(text).replace("\n", "\r\n")
        self.draw(paint(safe, colour) if self.has_colour else safe)

    def draw(self, sequences: str) -> None:
        """Send text of ours as it is."""
        if sequences and not self._process.is_closing():
            self._process.stdout.write(sequences)

    async def drained(self) -> None:
        """Wait until the client has room for more. Raises OSError when it is gone."""
        await self._process.stdout.drain()

    def bell(self) -> None:
        """Something could not be done."""
        self.draw("\a")

    def ready(self) -> Event | None:
        """An event that has come already."""
        self._keys.feed(self._ahead)
        self._ahead = ""
        return self._keys.next()

    async def next(self) -> Input:
        """The next thing that happens."""
        while (event := self.ready()) is None:
            try:
                data = await self._process.stdin.read(_CHUNK)
            except asyncssh.TerminalSizeChanged:
                return Happening.RESIZED
            except asyncssh.BreakReceived:
                data = "\x03"
            except (asyncssh.SignalReceived, asyncssh.Error, OSError):
                return Happening.HUNG_UP
            if not data:
                return Happening.HUNG_UP
            self._keys.feed(data)
        return event

    @asynccontextmanager
    async def editing(self) -> AsyncIterator[None]:
        """Pastes come marked while the body runs."""
        self.draw("" if self.is_dumb else _PASTE_ON)
        try:
            yield
        finally:
            self.draw("" if self.is_dumb else _PASTE_OFF)

    def typed_ahead(self) -> str:
        """What came and was not read, raw."""
        ahead = self._keys.rest() + self._ahead
        self._ahead = ""
        return ahead

    async def until_done(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for a command; raises Interrupted on Ctrl-C, what was typed before is dropped."""
        try:
            return await unless(work, self._interrupt())
        except Interrupted:
            self.typed_ahead()
            raise

    async def _interrupt(self) -> None:
        """Raises Interrupted on Ctrl-C; keeps what else is typed."""
        self._ahead = self._keys.rest() + self._ahead
        while len(self._ahead) < _AHEAD:
            try:
                data = await self._process.stdin.read(_CHUNK)
            except asyncssh.TerminalSizeChanged:
                continue
            except asyncssh.BreakReceived as error:
                raise Interrupted from error
            except (asyncssh.SignalReceived, asyncssh.Error, OSError):
                break
            if not data:
                break
            if "\x03" in data:
                raise Interrupted
            self._ahead += data
        await asyncio.Event().wait()  # hung up, or too much: the command goes on
