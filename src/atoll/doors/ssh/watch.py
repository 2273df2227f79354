"""A reply whose pieces stand for one another, on a terminal: the last one, on a screen of its own."""

from __future__ import annotations

from contextlib import aclosing, suppress

from atoll.base.aio import unless
from atoll.commands.reply import Reply
from atoll.doors.ssh.follow import left
from atoll.doors.ssh.keys import Key, Typed
from atoll.doors.ssh.pager import ENTER, LEAVE, screen
from atoll.doors.ssh.pages import Pages
from atoll.doors.ssh.process import Channel
from atoll.doors.ssh.terminal import Happening, Interrupted, Terminal

_QUIT = "q quit"


class _QuitError(Exception):
    """Whoever watched has seen enough."""


class Watch:
    """Shows what a reply goes on with until `q` or Ctrl-C."""

    def __init__(self, process: Channel, terminal: Terminal) -> None:
        self._process = process
        self._terminal = terminal
        self._pages = self._made("")

    async def show(self, reply: Reply) -> None:
        """Raises Interrupted on Ctrl-C, OSError when the channel ends."""
        self._pages = self._made(reply.text)
        self._terminal.draw(ENTER)
        try:
            self._draw()
            with suppress(_QuitError):
                await unless(unless(self._follow(reply), left(self._process)), self._keys())
        finally:
            self._terminal.draw(LEAVE)  # what was looked at last stays above the prompt
            self._terminal.draw("".join(f"{row}\r\n" for row in self._pages.seen))

    async def _follow(self, reply: Reply) -> None:
        """A client that has not taken the last screen gets the one after the next."""
        assert reply.more is not None
        async with aclosing(reply.more) as pieces:
            await self._terminal.drained()
            async for piece in pieces:
                self._pages = self._made(piece.text)
                self._draw()
                await self._terminal.drained()

    async def _keys(self) -> None:
        while True:
            event = await self._terminal.next()
            if event is Key.INTERRUPT:
                raise Interrupted
            if event in (Happening.HUNG_UP, Key.END_OF_INPUT) or _quits(event):
                raise _QuitError
            if event is Happening.RESIZED:
                self._pages.resize(self._terminal.size)
                self._draw()
            else:
                self._terminal.bell()

    def _made(self, text: str) -> Pages:
        return Pages(text, self._terminal.size, colour=self._terminal.has_colour)

    def _draw(self) -> None:
        status = _QUIT if self._pages.is_one else f"{self._pages.where}  {_QUIT}"
        self._terminal.draw(screen(self._pages, status, self._terminal.size))


def _quits(event: object) -> bool:
    return isinstance(event, Typed) and "q" in event.text.lower()
