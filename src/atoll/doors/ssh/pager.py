"""Prints a result on a terminal: at once if it fits, else page by page.

Only whole results come here; what a command says while it runs is printed as it comes.
"""

from __future__ import annotations

from atoll.base.text import cut, pad
from atoll.commands.qr import Qr
from atoll.commands.render import Json
from atoll.commands.table import Table
from atoll.doors.ssh.draw import Size
from atoll.doors.ssh.keys import Key, Pasted, Typed
from atoll.doors.ssh.pages import Pages
from atoll.doors.ssh.terminal import Happening, Input, Terminal

_KEYS = "space next, b back, / search, q quit"
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"  # the screen without history, as less uses it
_HOME, _TO_END, _TO_LINE_END = "\x1b[H", "\x1b[J", "\x1b[K"
_REVERSE, _PLAIN = "\x1b[7m", "\x1b[0m"
_DOWN = {" ": 1.0, "f": 1.0, "d": 0.5, "b": -1.0, "u": -0.5}
_ROWS = {"j": 1, "e": 1, "k": -1, "y": -1}
_STEPS = {Key.ENTER: 1, Key.DOWN: 1, Key.UP: -1}
_PAGES = {Key.PAGE_DOWN: 1, Key.RIGHT: 1, Key.PAGE_UP: -1, Key.LEFT: -1}
_QUITS = (Key.INTERRUPT, Key.END_OF_INPUT, Typed("q"), Typed("Q"))


class Pager:
    """Shows one text on one terminal."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._search: str | None = None  # what is being typed behind `/`
        self._said = ""

    async def show(self, text: str, *, is_whole: bool = False) -> None:
        """Print it; `is_whole` forbids cutting it into pages or to the width."""
        terminal = self._terminal
        if isinstance(text, Json):
            text = text.indented()
        if is_whole or terminal.is_dumb:
            terminal.write(text + "\n")
            return
        pages = Pages(text, terminal.size, colour=terminal.has_colour)
        if pages.is_one or isinstance(text, Qr):  # half a QR code is none
            self._print(text)
            return
        terminal.draw(ENTER)
        try:
            await self._look(pages)
        finally:
            terminal.draw(LEAVE)  # what was looked at last stays above the prompt
            terminal.draw("".join(f"{row}\r\n" for row in pages.seen))

    def _print(self, text: str) -> None:
        """Lines that are too long are left to the terminal, which copies them whole."""
        terminal = self._terminal
        fitted = text.fitted(terminal.size.columns) if isinstance(text, Table | Qr) else text
        if isinstance(fitted, Table | Qr) and terminal.has_colour:
            terminal.draw(fitted.painted().replace("\n", "\r\n") + "\r\n")
        else:
            terminal.write(fitted + "\n")

    async def _look(self, pages: Pages) -> None:
        while True:
            event = await self._next(pages)
            if event is Happening.HUNG_UP:
                return
            # Keys that came together are still keys, one after the other.
            for key in map(Typed, event.text) if isinstance(event, Typed) else (event,):
                if self._search is not None:
                    self._type(pages, key)
                elif key in _QUITS:
                    return
                else:
                    self._handle(pages, key)

    async def _next(self, pages: Pages) -> Input:
        event = self._terminal.ready()
        if event is not None:
            return event
        self._draw(pages)
        return await self._terminal.next()

    def _draw(self, pages: Pages) -> None:
        prompt = f"/{self._search}" if self._search is not None else ""
        status = prompt or f"{pages.where}  {self._said or _KEYS}"
        self._terminal.draw(screen(pages, status, self._terminal.size))
        self._said = ""

    def _handle(self, pages: Pages, event: Input) -> None:
        match event:
            case Happening.RESIZED:
                pages.resize(self._terminal.size)
            case Key() if event in _STEPS:
                pages.step(_STEPS[event])
            case Key() if event in _PAGES:
                pages.step(_PAGES[event] * pages.height)
            case Key.HOME:
                pages.go(0)
            case Key.END:
                pages.go(pages.last)
            case Typed(text=letter):
                self._press(pages, letter)
            case _:
                self._terminal.bell()

    def _press(self, pages: Pages, letter: str) -> None:
        if letter in _DOWN:
            pages.step(int(_DOWN[letter] * pages.height))
        elif letter in _ROWS:
            pages.step(_ROWS[letter])
        elif letter in "gG":
            pages.go(0 if letter == "g" else pages.last)
        elif letter == "/":
            self._search = ""
        elif letter in "nN":
            self._find(pages, "", down=letter == "n")
        else:
            self._said = f"no key {letter!r}: {_KEYS}"

    def _type(self, pages: Pages, event: Input) -> None:
        """What is typed behind `/`."""
        assert self._search is not None
        match event:
            case Typed(text=text) | Pasted(text=text):
                self._search += text.replace("\n", " ")
            case Key.BACKSPACE if self._search:
                self._search = self._search[:-1]
            case Key.ENTER:
                part, self._search = self._search, None
                self._find(pages, part)
            case Happening.RESIZED:
                pages.resize(self._terminal.size)
            case _:
                self._search = None

    def _find(self, pages: Pages, part: str, *, down: bool = True) -> None:
        if not pages.find(part, down=down):
            self._said = "not found"


def screen(pages: Pages, status: str, size: Size) -> str:
    """A screen of a text, drawn over what is there; the last row tells something about it."""
    rows = "".join(f"{row}{_TO_LINE_END}\r\n" for row in pages.seen)
    bar = pad(cut(status, size.columns - 1), size.columns - 1)
    return f"{_HOME}{rows}{_REVERSE}{bar}{_PLAIN}{_TO_END}"
