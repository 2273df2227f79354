"""All terminals of the page: whose they are, how many there may be, and when one ends.

A terminal is its account's, so another browser of the same person may attach; it ends with the browser
session that opened it, with its VM's run, with its shell, or when nobody has come back for long.
Invariant: what is looked up here is looked up for an account; another's does not exist.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Protocol

from atoll.base import log
from atoll.base.aio import TaskGroup
from atoll.base.errors import AtollError, Conflict, Exhausted, Internal, NotFound
from atoll.base.timeout import timeout
from atoll.commands.reply import Reply
from atoll.domain.account import Account, Caller, Route
from atoll.doors.web.live import Waiting
from atoll.doors.web.terminal.terminal import Shell, Starting, Terminal
from atoll.doors.web.visitor import Signed, caller_of

PER_ACCOUNT = 16
TOTAL = 128  # each may hold a mebibyte of output
UNATTENDED_S = 12 * 3600.0  # a build that runs over night is still there in the morning
OVER_S = 600.0  # an ended one can be read for some minutes
LOOK_S = 30.0  # how late a session's end by time, and the limits above, are seen
_RETRY_S = 1.0

_log = log.get("terminals")


class Shells(Protocol):
    """Starts what runs in terminals."""

    async def in_vm(
        self, route: Route, size: tuple[int, int], show: Callable[[bytes], None]
    ) -> Shell:
        """A shell in a VM; raises AtollError."""

    async def prompt(
        self, caller: Caller, size: tuple[int, int], show: Callable[[bytes], None]
    ) -> Shell:
        """The lobby's prompt; raises AtollError."""


class Executing(Protocol):
    """The commands."""

    async def execute(self, caller: Caller, line: str) -> Reply:
        """Run one line; raises AtollError."""


class SignedIn(Protocol):
    """Who is signed in."""

    async def session(self, session_id: str) -> Signed | None:
        """The live session with this id."""


class Terminals:
    """Opens, finds and ends them."""

    def __init__(
        self,
        *,
        shells: Shells,
        language: Executing,
        sessions: SignedIn,
        changes: Waiting,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.now = monotonic
        self._shells = shells
        self._language = language
        self._sessions = sessions
        self._changes = changes
        self._terminals: dict[str, Terminal] = {}
        self._group: TaskGroup | None = None

    async def run(self) -> None:
        """Serve until cancelled."""
        async with self.serving():
            await asyncio.Event().wait()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Terminals]:
        """Terminals can be opened while the body runs; then all end."""
        try:
            async with TaskGroup() as self._group:
                watching = self._group.create_task(self._watch())
                try:
                    yield self
                finally:
                    watching.cancel()
                    for terminal in self._terminals.values():
                        terminal.finish("Atoll is stopping; VMs go on running.")
        finally:
            self._group = None

    async def open(self, session: Signed, line: str, *, source: str) -> Terminal:
        """A new terminal of the session's account, for the command `line`: `ssh <vm>`, or the prompt.

        Raises what the command raises, or Exhausted.
        """
        caller = caller_of(session, source=source)
        vm = ""
        start: Starting = partial(self._shells.prompt, caller)
        if line:
            route = await self._route(caller, line)
            vm, start = route.vm_id, partial(self._shells.in_vm, route)
        self._make_room(session.account)
        terminal = Terminal(
            id_=secrets.token_urlsafe(16),
            account=session.account.id,
            session_id=session.id,
            title=line or "atoll",
            vm=vm,
        )
        if self._group is None:
            raise Conflict("control is stopping", hint="Try again in a moment")
        terminal.left_at = self.now()
        self._terminals[terminal.id] = terminal
        self._group.create_task(self._live(terminal, start))
        return terminal

    async def _route(self, caller: Caller, line: str) -> Route:
        reply = await self._language.execute(caller, line)
        if reply.run_in_vm is None:
            raise Conflict(f"`{line[:80]}` is no shell in a VM", hint="Try: ssh <vm>")
        return reply.run_in_vm

    def of(self, account: Account) -> list[Terminal]:
        """Those of an account, oldest first."""
        return [one for one in self._terminals.values() if one.account == account.id]

    def find(self, account: Account, id_: str) -> Terminal:
        """The account's terminal with this id; raises NotFound."""
        terminal = self._terminals.get(id_)
        if terminal is None or terminal.account != account.id:
            raise NotFound("this terminal is no longer there", hint="Open a new one")
        return terminal

    def close(self, terminal: Terminal) -> None:
        """Its user is done with it."""
        terminal.finish("The terminal was closed.")
        self._terminals.pop(terminal.id, None)

    def end_vm(self, vm: str) -> None:
        """A VM is no longer where it was; a paused one says no goodbye."""
        for terminal in self._terminals.values():
            if terminal.vm == vm:
                terminal.finish("The VM was paused or stopped.")

    def end_access(self, account: str, vm: str) -> None:
        """An account may no longer enter a VM."""
        for terminal in self._terminals.values():
            if terminal.vm == vm and terminal.account == account:
                terminal.finish("Access was withdrawn.")

    def _make_room(self, account: Account) -> None:
        """Let go of the one that nobody looks at for longest; raises Exhausted when all are in use."""
        for those, most in (
            (self.of(account), PER_ACCOUNT),
            (list(self._terminals.values()), TOTAL),
        ):
            if len(those) < most:
                continue
            left = [one for one in those if not one.clients]
            if not left:
                raise Exhausted(f"{most} terminals are open", hint="Close one of them")
            oldest = min(left, key=lambda one: (not one.is_over, one.left_at))
            oldest.finish("It made room for a newer terminal.")
            del self._terminals[oldest.id]

    async def _live(self, terminal: Terminal, start: Starting) -> None:
        try:
            await terminal.run(start)
        except Exception:  # noqa: BLE001  a defect in one terminal must not end all
            _log.exception("terminal failed", title=terminal.title)
            terminal.finish(str(Internal("This is a defect of Atoll", hint="Its log has details")))
        finally:
            if not terminal.clients:
                terminal.left_at = self.now()

    async def _watch(self) -> None:
        """End what has no session any more, and what nobody has looked at for long."""
        while True:
            version = self._changes.version
            try:
                await self.look()
            except AtollError as error:
                _log.warning("terminals not looked at", reason=str(error))
                await asyncio.sleep(_RETRY_S)
            with suppress(TimeoutError):
                async with timeout(LOOK_S):
                    await self._changes.wait_beyond(version)

    async def look(self) -> None:
        """One round; raises AtollError when the store does not answer."""
        terminals = list(self._terminals.values())
        clients = [client for terminal in terminals for client in terminal.clients]
        ids = {one.session_id for one in terminals} | {one.session_id for one in clients}
        over = {id_ for id_ in ids if await self._sessions.session(id_) is None}
        for terminal in terminals:
            if terminal.session_id in over:
                terminal.finish("You have signed out.")
            self._forget(terminal)
        for client in clients:
            if client.session_id in over:
                client.dismiss("You have signed out.")

    def _forget(self, terminal: Terminal) -> None:
        if terminal.clients:
            return
        alone = self.now() - terminal.left_at
        if alone > (OVER_S if terminal.is_over else UNATTENDED_S):
            terminal.finish("Nobody has looked at it for long.")
            self._terminals.pop(terminal.id, None)
