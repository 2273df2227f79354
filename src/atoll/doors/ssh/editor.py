"""Reads a line from a terminal, edited as readline does it: keys, history, search, pastes.

The rules are in `line`, `recall` and `draw`; this drives them. A paste never sends itself: its
newlines are shown, and Enter sends all of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from atoll.doors.ssh.draw import Drawing
from atoll.doors.ssh.keys import Key, Pasted, Typed
from atoll.doors.ssh.line import Line
from atoll.doors.ssh.recall import Recall
from atoll.doors.ssh.terminal import Happening, Input, Interrupted, Terminal

# Called for Tab and for `?`: may change the line or print below it; False: nothing to offer.
Asked: TypeAlias = Callable[["Editor"], Awaitable[bool]]


class Editor:
    """One prompt's editor. `on_tab` and `on_question` may be absent."""

    def __init__(
        self,
        *,
        terminal: Terminal,
        recall: Recall,
        on_tab: Asked | None = None,
        on_question: Asked | None = None,
    ) -> None:
        self.line = Line()
        self.terminal = terminal
        self.tabs = 0  # Tab keys in a row, this one included
        self._recall = recall
        self._on_tab = on_tab
        self._on_question = on_question
        self._drawing = Drawing(is_dumb=terminal.is_dumb)
        self._prompt = ""
        self._search: _Search | None = None

    async def read(self, prompt: str) -> str | None:
        """The next line; None at the end of input. Raises Interrupted on Ctrl-C."""
        self._prompt = prompt
        self.line.set("")
        self._drawing.forget()
        async with self.terminal.editing():
            while True:
                event = await self._next()
                if event is Happening.HUNG_UP or self._is_end(event):
                    self.below()
                    return None
                if event is Key.INTERRUPT:
                    self._give_up()
                    raise Interrupted
                if event is Key.ENTER:
                    return self._send()
                await self._handle(event)

    async def _next(self) -> Input:
        """What comes next; the line is shown when nothing has come yet."""
        event = self.terminal.ready()
        if event is not None:
            return event
        self._show()
        return await self.terminal.next()

    def below(self, text: str = "") -> None:
        """Print text under the line; the line is shown again below it."""
        self._show(at_end=True)
        self.terminal.draw(self._drawing.leave())
        self.terminal.write(text)

    def _show(self, *, at_end: bool = False) -> None:
        prompt, line = self._prompt, self.line
        shown, cursor = line.text, len(line.text) if at_end else line.cursor
        if self._search is not None:
            prompt, shown = f"(search) {self._search.part}: ", self._search.found
            cursor = len(shown) if at_end else max(0, shown.find(self._search.part))
        size = self.terminal.size
        self.terminal.draw(self._drawing.update(prompt + shown, len(prompt) + cursor, size))

    def _is_end(self, event: Input) -> bool:
        return event is Key.END_OF_INPUT and not self.line.text and self._search is None

    def _give_up(self) -> None:
        self._search = None
        self.line.cursor = len(self.line.text)
        self._show()
        self.terminal.draw("^C\r\n")
        self._recall.leave()

    def _send(self) -> str:
        self._accept()
        self.below()
        return self.line.text

    async def _handle(self, event: Input) -> None:
        self.tabs = self.tabs + 1 if event is Key.TAB else 0
        if self._search is not None and self._go_on_searching(event):
            return
        match event:
            case Typed(text=text):
                await self._type(text)
            case Pasted(text=text, is_whole=is_whole):
                self._check(self.line.insert(text.removesuffix("\n")) and is_whole)
            case Key.TAB:
                self._check(self._on_tab is not None and await self._on_tab(self))
            case Key.UP:
                self._step(self._recall.older(self.line.text))
            case Key.DOWN:
                self._step(self._recall.newer())
            case Key.SEARCH:
                self._search = _Search(self._recall, self.line.text)
            case Key.CLEAR if not self.terminal.is_dumb:
                self.terminal.draw("\x1b[H\x1b[2J")
                self._drawing.forget()
            case Key.END_OF_INPUT:
                self._check(self.line.press(Key.DELETE))
            case Key():
                self._check(self.line.press(event))
            case Happening():
                pass  # resized: it is drawn anew anyway

    async def _type(self, text: str) -> None:
        """A question mark asks when it is the last that came: with Enter behind it, it is meant."""
        asks = text.endswith("?") and self._on_question is not None and self.terminal.is_idle
        self._check(self.line.insert(text[:-1] if asks else text))
        if asks and self._on_question is not None and not await self._on_question(self):
            self._check(self.line.insert("?"))

    def _step(self, step: str | None) -> None:
        if step is not None:
            self.line.set(step)
        self._check(step is not None)

    def _go_on_searching(self, event: Input) -> bool:
        """Whether the event was one of the search; any other key takes what was found."""
        search = self._search
        assert search is not None
        match event:
            case Typed(text=text) | Pasted(text=text):
                self._check(search.look_for(search.part + text))
            case Key.BACKSPACE:
                self._check(search.look_for(search.part[:-1]))
            case Key.SEARCH:
                self._check(search.go_on())
            case Key.ESCAPE:
                self._search = None
                self._recall.leave()
            case Happening():
                return False
            case _:
                self._accept()
                return False
        return True

    def _accept(self) -> None:
        """The line that was found is the line now."""
        if self._search is not None:
            self.line.set(self._search.take())
            self._search = None

    def _check(self, is_done: bool) -> None:
        if not is_done:
            self.terminal.bell()


class _Search:
    """Ctrl-R: the newest line with some part, then older ones."""

    def __init__(self, recall: Recall, line: str) -> None:
        self._recall = recall
        self._at: int | None = None
        self.part = ""
        self.found = line

    def look_for(self, part: str) -> bool:
        """Another part to look for; what was found stays when there is none."""
        self.part = part.replace("\n", " ")
        return self._go(self._recall.find(self.part))

    def go_on(self) -> bool:
        """The next older one."""
        return self._go(self._recall.find(self.part, self._at))

    def take(self) -> str:
        """What was found."""
        return self.found if self._at is None else self._recall.line(self._at)

    def _go(self, number: int | None) -> bool:
        if number is None:
            return False
        self._at = number
        self.found = self._recall.line(number)
        return True
