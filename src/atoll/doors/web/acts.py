"""Lines that pages run: each is an act with an id, which goes on when its page is left.

A page asks for an act as often as it likes and sees how far it is; its result is there for
`KEPT_S`. Bounded: an account has `AT_ONCE` under way, `OWN` of it and `HELD` of all are remembered; the
oldest results make room.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from atoll.base import log
from atoll.base.aio import TaskGroup
from atoll.base.errors import AtollError, Exhausted, Internal, NotFound, Unavailable
from atoll.commands.reply import Reply
from atoll.domain.account import Caller

KEPT_S = 600.0
AT_ONCE = 16
OWN = 32
HELD = 300
_LINES = 200  # of progress

_log = log.get("web")


class Executing(Protocol):
    """What is needed of atoll.commands.language.Language."""

    async def execute(
        self,
        caller: Caller,
        line: str,
        *,
        stdin: bytes = b"",
        progress: Callable[[str], None] | None = None,
    ) -> Reply:
        """Run one line; raises AtollError."""
        ...


@dataclass(slots=True, kw_only=True)
class Act:
    """One line, and what has come of it."""

    id: str
    account: str
    line: str
    stdin: str
    back: str  # the page it was asked on
    command: str
    started: float
    ended: float | None = None
    progress: list[str] = field(default_factory=list)
    reply: Reply | None = None
    error: AtollError | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_over(self) -> bool:
        """Whether it has its result."""
        return self.over.is_set()

    @property
    def exit(self) -> int:
        """Its exit code; 0 while it goes on."""
        if self.error is not None:
            return self.error.exit
        return self.reply.exit if self.reply is not None else 0

    def said(self, text: str) -> None:
        """A line of progress."""
        if len(self.progress) < _LINES:
            self.progress.append(text)


class Acts:
    """All acts of this life of control."""

    def __init__(
        self, *, language: Executing, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._language = language
        self._monotonic = monotonic
        self._acts: dict[str, Act] = {}
        self._group: TaskGroup | None = None

    async def run(self) -> None:
        """Acts live in here; until cancelled."""
        async with TaskGroup() as self._group:
            try:
                await asyncio.Event().wait()
            finally:
                self._group = None

    def start(
        self, caller: Caller, line: str, *, command: str, stdin: str = "", back: str = "/"
    ) -> Act:
        """Begin one. Raises Exhausted when too many are under way, Unavailable at the end."""
        if self._group is None:
            raise Unavailable("control is stopping", hint="Try again in a moment")
        self._forget(caller.account.id)
        own = [a for a in self._acts.values() if a.account == caller.account.id and not a.is_over]
        if len(own) >= AT_ONCE:
            raise Exhausted(
                f"{AT_ONCE} commands of yours are under way", hint="Wait for one to end"
            )
        if len(self._acts) >= HELD:
            raise Exhausted(f"{HELD} commands are under way", hint="Try again in a minute")
        act = Act(
            id=secrets.token_urlsafe(16),
            account=caller.account.id,
            line=line,
            stdin=stdin,
            back=back,
            command=command,
            started=self._monotonic(),
        )
        self._acts[act.id] = act
        self._group.create_task(self._do(caller, act))
        return act

    def get(self, caller: Caller, id_: str) -> Act:
        """One of the caller's; raises NotFound."""
        act = self._acts.get(id_)
        if act is None or act.account != caller.account.id:
            raise NotFound("this command's result is no longer kept", hint="Try: events")
        return act

    def seconds(self, act: Act) -> float:
        """How long it took, or has taken so far."""
        return (act.ended or self._monotonic()) - act.started

    async def _do(self, caller: Caller, act: Act) -> None:
        try:
            reply = await self._language.execute(
                caller, act.line, stdin=act.stdin.encode(), progress=act.said
            )
            if reply.more is not None:  # a page shows how it is now; terminals follow
                await reply.more.aclose()
            act.reply = reply
        except AtollError as error:
            act.error = error
        except asyncio.CancelledError:
            act.error = Unavailable(
                "control stopped before this ended; the outcome is unknown",
                hint="Try: ls, to see what happened",
            )
            raise
        except Exception:  # noqa: BLE001 - a defect in one act must not end the others
            _log.exception("act failed", command=act.command)
            act.error = Internal("a defect of ours; the log of control says more")
        finally:
            act.ended = self._monotonic()
            act.over.set()

    def _forget(self, account: str) -> None:
        """What is old, and what must go for one more of this account."""
        now = self._monotonic()
        for act in list(self._acts.values()):
            if act.ended is not None and now - act.ended > KEPT_S:
                del self._acts[act.id]
        self._make_room([act for act in self._acts.values() if act.account == account], OWN)
        self._make_room(list(self._acts.values()), HELD)

    def _make_room(self, acts: Sequence[Act], most: int) -> None:
        over = [act for act in acts if act.is_over]  # oldest first
        for act in over[: max(0, len(acts) - most + 1)]:
            del self._acts[act.id]
