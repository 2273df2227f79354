"""`POST /exec`: a command line in, JSON out, by an API token.

Statuses: 400 empty or badly quoted, 401 no good token, 403 outside the token's scope, 404 no such
command, 405 not POST, 413 over 64 KiB, 422 the command ran and failed, 429 too often (refused before
the line is read, so trying again is safe), 500 our fault, 504 no answer in time (the outcome is
unknown).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from atoll.base import log
from atoll.base.aio import unless
from atoll.base.errors import (
    AtollError,
    Denied,
    Exhausted,
    Internal,
    Invalid,
    Unavailable,
)
from atoll.base.limits import Limits
from atoll.base.timeout import timeout
from atoll.commands.parse import split
from atoll.commands.reply import Reply
from atoll.domain.account import Caller, Route
from atoll.doors.api.body import read_line
from atoll.doors.api.once import HEADER, Keeping, key_of, once
from atoll.doors.api.run import Lines, VmRunner, collect, left, output_lines, reply_lines
from atoll.doors.api.running import Entered, Running, ended
from atoll.doors.front.hosts import source_of

COMMAND_S = 30.0
LONG_S = 330.0
# They may copy memory or boot, and most take a pattern.
LONG = frozenset({"new", "cp", "pause", "resume", "restart", "rm", "undo"})
NDJSON = "application/x-ndjson"

_log = log.get("api")


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

    def changes(self, line: str) -> bool:
        """True when running it would change something; raises as `execute` for what is no command."""
        ...


class Callers(Protocol):
    """What is needed of atoll.services.tokens.Tokens."""

    async def caller_for_token(self, token: str, source: str) -> Caller | None:
        """Who calls with this token; None: unknown. Raises Denied saying why it is not good."""
        ...


class Exec:
    """The endpoint."""

    def __init__(
        self,
        *,
        language: Executing,
        callers: Callers,
        answers: Keeping,
        runner: VmRunner | None,
        limits: Limits | None = None,
    ) -> None:
        self._language = language
        self._callers = callers
        self._answers = answers
        self._runner = runner
        self._running = Running()
        self._limits = limits or Limits(monotonic=time.monotonic)

    def end(self, credential: str) -> None:
        """End what this key or token runs in VMs, and what goes on for it: it was removed."""
        self._running.end(credential)

    async def __call__(self, request: Request) -> Response:
        """Authenticate, count, read, run, answer."""
        mark = self._running.mark
        try:
            caller = await self._caller(_bearer(request), source_of(request))
        except Denied as error:
            return _answer(error, 401, {"www-authenticate": "Bearer"})
        except AtollError as error:
            return _answer(error, _status(error))
        entered = self._running.by(caller, since=mark)
        wait_s = self._limits.wait_s(caller.credential)
        if wait_s:
            often = Exhausted("this key calls too often", hint=f"Try again in {wait_s} s")
            return _answer(often, 429, {"retry-after": str(wait_s)})
        try:
            key = key_of(request)
            line = await read_line(request)
            words = split(line)
        except Invalid as error:
            return _answer(error, error.http)
        try:
            if key is not None and self._language.changes(line):
                run = partial(self._answered, request, caller, entered, line, words)
                return await once(self._answers, caller, key, line, run)
        except AtollError as error:
            return _answer(error, _status(error))
        return await self._answered(request, caller, entered, line, words)

    async def _answered(
        self,
        request: Request,
        caller: Caller,
        entered: Entered,
        line: str,
        words: Sequence[str],
    ) -> Response:
        try:
            return await self._run(request, caller, entered, line, words)
        except AtollError as error:
            return _answer(error, _status(error))

    async def _caller(self, token: str, source: str) -> Caller:
        found = await self._callers.caller_for_token(token, source) if token else None
        if found is None:
            raise Denied(
                "this API token is unknown, has ended or is missing",
                hint="Try: ssh … ssh-key generate-api-key, then Authorization: Bearer <token>",
            )
        return found

    async def _run(
        self,
        request: Request,
        caller: Caller,
        entered: Entered,
        line: str,
        words: Sequence[str],
    ) -> Response:
        verb = next((word for word in words if not word.startswith("--")), "")
        seconds = LONG_S if verb in LONG else COMMAND_S
        try:
            async with timeout(seconds):
                reply = await self._language.execute(caller, line)
        except TimeoutError:
            late = Unavailable(
                f"no answer within {seconds:g} s; the outcome is unknown",
                hint="Try: ls, to see what happened",
            )
            return _answer(late, 504)
        if reply.more is not None:
            if not _may_be_lines(request):
                raise Invalid(
                    "this goes on, and is answered in lines of JSON", hint=f"Try: Accept: {NDJSON}"
                )
            return Lines(reply_lines(reply), entered)
        if reply.run_in_vm is None:
            return _render(reply)
        return await self._run_in_vm(request, entered, reply.run_in_vm, reply.command)

    async def _run_in_vm(
        self, request: Request, entered: Entered, route: Route, command: str
    ) -> Response:
        """The plain form holds the output until the exit code is known; lines are sent as they come."""
        if HEADER in request.headers:
            raise Invalid(
                "an idempotency key does not cover what runs in a VM", hint=f"Leave {HEADER} out"
            )
        if not command:
            raise Invalid("there is no terminal here for a shell", hint="Try: ssh <vm> <command>")
        items = self._vm_runner().run_in_vm(route, command)
        if NDJSON in request.headers.get("accept", ""):
            return Lines(output_lines(items), entered)
        try:
            with entered() as must_end:
                async with timeout(COMMAND_S):
                    heard = unless(collect(items), left(request.receive))
                    output, code = await unless(heard, ended(must_end))
        except TimeoutError:
            late = Unavailable(
                f"the command ran over {COMMAND_S:g} s and was ended",
                hint=f"Try: Accept: {NDJSON}, which has no limit",
            )
            return _answer(late, 504)
        headers = {"x-atoll-exit": str(code), "x-exe-exit": str(code)}
        return Response(output, media_type="application/octet-stream", headers=headers)

    def _vm_runner(self) -> VmRunner:
        if self._runner is None:
            raise Unavailable("commands inside VMs are not served here", hint="Try: ssh")
        return self._runner


def _render(reply: Reply) -> Response:
    """What the command says, and 200: its data tells what of it failed, as the exit code does."""
    if reply.data is None:
        return JSONResponse({"output": reply.text}, status_code=200 if reply.exit == 0 else 422)
    return JSONResponse(reply.data, headers={"x-atoll-exit": str(reply.exit)})


def _status(error: AtollError) -> int:
    if error.code == "unknown-command":
        return 404
    if isinstance(error, Denied):
        return 403
    if isinstance(error, Internal | Unavailable):
        _log.warning("command failed on our side", code=error.code, reason=error.message)
        return 500
    return 422


def _answer(error: AtollError, status: int, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(error.to_wire(), status_code=status, headers=headers)


def _may_be_lines(request: Request) -> bool:
    accepted = request.headers.get("accept", "*/*")
    return any(media in accepted for media in (NDJSON, "application/*", "*/*"))


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""
