"""One terminal: its shell, its last output, and the pages attached to it.

Invariants: output that an attached page has not shown is held, so none of it is lost to that page; the
shell is read no further than HELD ahead of the slowest page, and freely when none is attached. What is
typed goes to the shell in order, no further than TYPED ahead per page and PAGES such in all, those that
left included. LEAVE_S after it was finished nothing of it is left.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from atoll.base.aio import TaskGroup, unless
from atoll.base.errors import AtollError, Exhausted, Unavailable
from atoll.doors.web.terminal.client import Client
from atoll.doors.web.terminal.ring import Ring
from atoll.doors.web.terminal.wire import TYPED, WINDOW

RING = 1 << 20
HELD = WINDOW  # what is ahead of every page is of no use before it can be sent
PAGES = 16  # attached at a time
PIECES = 4096  # typed by pages in turn; each costs more than its bytes
LEAVE_S = 10.0  # a shell that was hung up is gone by then, or is left behind
_FIRST_SIZE = (80, 24)
_RESIZE_S = 0.02


class Shell(Protocol):
    """What runs in a terminal."""

    async def run(self) -> str:
        """Serve until it ends; how it ended, for people."""

    async def write(self, data: bytes) -> None:
        """Type; waits while it takes no more."""

    def resize(self, columns: int, rows: int) -> None:
        """Another size."""

    def pause(self) -> None:
        """Show no more for now."""

    def resume(self) -> None:
        """Go on."""

    def hang_up(self) -> None:
        """End it."""


class Starting(Protocol):
    """Starts a terminal's shell."""

    async def __call__(self, size: tuple[int, int], show: Callable[[bytes], None], /) -> Shell:
        """Raises AtollError."""


class Terminal:
    """Made idle; the first page that attaches starts the shell, in the page's size."""

    def __init__(self, *, id_: str, account: str, session_id: str, title: str, vm: str) -> None:
        self.id = id_
        self.account = account
        self.session_id = session_id  # of the browser that opened it
        self.title = title  # the command it stands for
        self.vm = vm  # its id; empty for the prompt
        self.ring = Ring(RING)
        self.clients: set[Client] = set()
        self.over = ""  # how it ended
        self.left_at = 0.0  # when the last page left; 0 while one is attached
        self._size = _FIRST_SIZE
        self._shell: Shell | None = None
        self._typed: deque[tuple[Client, bytearray]] = deque()
        self._waiting = 0  # bytes of that
        self._keys = asyncio.Event()
        self._wanted = asyncio.Event()  # a page has come
        self._resized = asyncio.Event()
        self._finished = asyncio.Event()
        self._is_paused = False

    @property
    def is_over(self) -> bool:
        """Whether its shell has ended."""
        return bool(self.over)

    async def run(self, start: Starting) -> None:
        """Wait for the first page, then serve the shell until it ends."""
        await self._wanted.wait()
        if self.over:
            return
        try:
            self.finish(await unless(self._lived(start), self._left_behind()))
        except AtollError as error:
            self.finish(str(error))
        finally:
            self.finish("The terminal ended.")

    async def _lived(self, start: Starting) -> str:
        self._shell = shell = await start(self._size, self.show)
        if self.over:  # closed meanwhile
            shell.hang_up()
        self._resized.set()  # it may have another size by now
        return await self._serve(shell)

    async def _left_behind(self) -> None:  # what answers in a VM is its owner's, and may be deaf
        await self._finished.wait()
        await asyncio.sleep(LEAVE_S)
        raise Unavailable(f"{self.title}: it did not end within {LEAVE_S:g} s")

    async def _serve(self, shell: Shell) -> str:
        async with TaskGroup() as group:
            tasks = [group.create_task(work(shell)) for work in (self._type, self._follow)]
            how = await shell.run()
            for task in tasks:
                task.cancel()
        return how

    async def _follow(self, shell: Shell) -> None:
        """Sizes, as they come from a window that is dragged: not each of them."""
        while True:
            await self._resized.wait()
            self._resized.clear()
            shell.resize(*self._size)
            await asyncio.sleep(_RESIZE_S)

    async def _type(self, shell: Shell) -> None:
        while True:
            while self._typed:
                client, data = self._typed.popleft()
                self._waiting -= len(data)
                await shell.write(bytes(data))
                client.took(len(data))
            self._keys.clear()
            await self._keys.wait()

    # -- the shell's side

    def show(self, data: bytes) -> None:
        """Output has come."""
        self.ring.append(data)
        self._throttle()
        for client in self.clients:
            client.news.set()

    def finish(self, how: str) -> None:
        """It ended; the first word counts."""
        if self.over:
            return
        self.over = how
        self._typed.clear()
        self._waiting = 0
        self._wanted.set()
        self._finished.set()
        if self._shell is not None:
            self._shell.hang_up()
        for client in self.clients:
            client.news.set()

    # -- the pages' side

    def attach(self, client: Client, have: int | None, size: tuple[int, int]) -> None:
        """Let a page in that shows everything up to `have`; raises Exhausted."""
        if len(self.clients) >= PAGES:
            raise Exhausted(f"{PAGES} pages show this terminal", hint="Close one of them")
        is_new = have is None or not self.ring.holds(have)
        if have is None or is_new:
            self.begin(client)
        else:
            self._from(client, have, is_new=False)
        self.clients.add(client)
        self.left_at = 0.0
        self.resize(client, size)
        if is_new and client.sent > 0 and self._shell is not None:
            self._repaint(self._shell)
        self._wanted.set()
        self._throttle()

    def begin(self, client: Client) -> None:
        """Have a page begin anew with what is held."""
        offset, modes = self.ring.beginning()
        self._from(client, offset, is_new=True, modes=modes)

    def _from(self, client: Client, offset: int, *, is_new: bool, modes: str = "") -> None:
        client.sent = client.shown = offset
        client.begins({"offset": offset, "live": self.ring.end, "reset": is_new, "modes": modes})

    def _repaint(self, shell: Shell) -> None:
        """What drew the screen is no longer held, so whoever drew it is made to draw it again."""
        columns, rows = self._size
        shell.resize(columns, max(1, rows - 1))
        shell.resize(columns, rows)

    def detach(self, client: Client, now: float) -> None:
        """A page has left."""
        self.clients.discard(client)
        if not self.clients:
            self.left_at = now
        self._throttle()

    def type(self, client: Client, data: bytes) -> bool:
        """What a page's user typed; False: it types further ahead than it may."""
        if client.typed + len(data) > TYPED or self._waiting + len(data) > PAGES * TYPED:
            return False
        if self.over or not data:
            return True
        if self._typed and self._typed[-1][0] is client:  # many small frames are few pieces
            self._typed[-1][1].extend(data)
        elif len(self._typed) < PIECES:
            self._typed.append((client, bytearray(data)))
        else:
            return False
        client.typed += len(data)
        self._waiting += len(data)
        self._keys.set()
        return True

    def resize(self, client: Client, size: tuple[int, int]) -> None:
        """The last page that says a size sets it for all."""
        if size == self._size:
            return
        self._size = size
        self._resized.set()
        for other in self.clients - {client}:
            other.resized(size)

    def shown(self, client: Client, offset: int) -> bool:
        """A page has everything before `offset` on its screen; False: it cannot have.

        One from before the page was told to begin anew says nothing.
        """
        if offset > client.sent:
            return False
        client.shown = max(client.shown, offset)
        client.news.set()
        self._throttle()
        return True

    def _throttle(self) -> None:
        """Hold the shell while a page is behind; a little hysteresis saves switching for each chunk."""
        if self._shell is None:
            return
        behind = max((self.ring.end - client.shown for client in self.clients), default=0)
        if not self._is_paused and behind >= HELD:
            self._is_paused = True
            self._shell.pause()
        elif self._is_paused and behind < HELD // 2:
            self._is_paused = False
            self._shell.resume()
