"""`POST /exec`: statuses, limits, and commands inside VMs."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message

from atoll.base.aio import poll
from atoll.base.errors import (
    AtollError,
    Conflict,
    Denied,
    Exhausted,
    Internal,
    Invalid,
    NotFound,
    Unavailable,
)
from atoll.base.limits import Limits
from atoll.commands.registry import UnknownCommand
from atoll.commands.reply import Reply
from atoll.domain.account import Account, Caller, Door, Route
from atoll.doors.api import exec as door
from atoll.doors.api import run
from atoll.doors.api.body import BODY_BYTES
from atoll.doors.api.exec import Exec
from atoll.doors.api.run import Item
from atoll.services.answers import Answer, Claim

ANN = Account(id="acct-1", email="ann@example.com")
ROUTE = Route(
    vm_id="vm-1",
    vm_name="web",
    address="10.213.1.2",
    login_user="atoll",
    host_ca="",
    caller=Caller(account=ANN, door=Door.EXEC),
)
TOKEN = "atoll1.good"


class Callers:
    """Good tokens by one key."""

    async def caller_for_token(self, token: str, source: str) -> Caller | None:
        """See Tokens."""
        if token == "atoll0.old":
            raise Denied("the token ended yesterday", hint="Sign a new one")
        if token == "atoll1.store":
            raise Unavailable("the store failed")
        if not token.startswith(TOKEN):
            return None
        return Caller(account=ANN, door=Door.EXEC, source=source, key_fingerprint="SHA256:k")


class Script:
    """A language that answers as told."""

    def __init__(self, *replies: Reply | AtollError) -> None:
        self.replies = list(replies)
        self.lines: list[str] = []

    async def execute(
        self,
        caller: Caller,
        line: str,
        *,
        stdin: bytes = b"",
        progress: Callable[[str], None] | None = None,
    ) -> Reply:
        """See Language."""
        self.lines.append(line)
        if line == "hang":
            await asyncio.Event().wait()
        reply = self.replies.pop(0)
        if isinstance(reply, AtollError):
            raise reply
        return reply

    def changes(self, line: str) -> bool:
        """See Language."""
        return False


class NoAnswers:
    """Nobody gives an idempotency key for a changing call here."""

    async def claim(self, caller: Caller, key: str, line: str) -> Claim | Answer:
        """Never called."""
        raise AssertionError

    async def keep(self, claim: Claim, answer: Answer) -> None:
        """Never called."""
        raise AssertionError

    async def release(self, claim: Claim) -> None:
        """Never called."""
        raise AssertionError

    def break_off(self, claim: Claim) -> None:
        """Never called."""
        raise AssertionError


class Runner:
    """Yields what it is given; `closed` tells that the command was ended."""

    def __init__(self, *items: Item, hangs: bool = False, fails: AtollError | None = None) -> None:
        self.items = items
        self.fails = fails
        self.hangs = hangs
        self.started = False
        self.closed = False

    async def run_in_vm(self, route: Route, command: str) -> AsyncGenerator[Item, None]:
        """See VmRunner."""
        assert (route, command) == (ROUTE, "make")
        try:
            for item in self.items:
                yield item
            if self.fails:
                raise self.fails
            self.started = True
            if self.hangs:
                await asyncio.Event().wait()
        finally:
            self.closed = True


class Heard:
    """What an answer sent."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.first_line = asyncio.Event()

    async def send(self, message: Message) -> None:
        """Collect."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode(): v.decode() for k, v in message["headers"]}
        else:
            self.body += message.get("body", b"")
            if self.body:
                self.first_line.set()

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


async def post(
    endpoint: Exec,
    body: bytes,
    *,
    token: str | None = TOKEN,
    accept: str = "*/*",
    leaves: asyncio.Event | None = None,
    heard: Heard | None = None,
    read: list[Message] | None = None,
    length: str = "",
    once: str = "",
) -> Heard:
    """One request, in parts of 10 kB. The client stays until `leaves` is set."""
    headers = [(b"accept", accept.encode()), (b"x-forwarded-for", b"192.0.2.7")]
    if once:
        headers.append((b"idempotency-key", once.encode()))
    if length:
        headers.append((b"content-length", length.encode()))
    if token is not None:
        headers.append((b"authorization", f"Bearer {token}".encode()))
    parts = [body[at : at + 10_000] for at in range(0, len(body), 10_000)] or [b""]
    gone = leaves or asyncio.Event()

    async def receive() -> Message:
        if parts:
            body = parts.pop(0)
            message: Message = {"type": "http.request", "body": body, "more_body": bool(parts)}
            (read if read is not None else []).append(message)
            return message
        await gone.wait()
        return {"type": "http.disconnect"}

    heard = heard or Heard()
    scope = {"type": "http", "method": "POST", "path": "/exec", "headers": headers,
             "query_string": b""}  # fmt: skip
    response = await endpoint(Request(scope, receive))
    await response(scope, receive, heard.send)
    return heard


def endpoint(*replies: Reply | AtollError, runner: Runner | None = None) -> Exec:
    return Exec(language=Script(*replies), callers=Callers(), answers=NoAnswers(), runner=runner)


async def test_data_comes_back_as_json() -> None:
    heard = await post(endpoint(Reply(data={"vms": []}, text="no VMs")), b" ls \n")
    assert (heard.status, heard.json()) == (200, {"vms": []})


async def test_text_without_data() -> None:
    heard = await post(endpoint(Reply(text="hello")), b"doc")
    assert heard.json() == {"output": "hello"}


@pytest.mark.parametrize("token", [None, "", "atoll1.bad", "x" * 9000])
async def test_401(token: str | None) -> None:
    heard = await post(endpoint(), b"ls", token=token)
    assert heard.status == 401
    assert heard.headers["www-authenticate"] == "Bearer"


async def test_401_says_why() -> None:
    heard = await post(endpoint(), b"ls", token="atoll0.old")
    assert (heard.status, heard.json()["error"]) == (401, "the token ended yesterday")
    assert heard.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b" \n", 400),
        (b"comment web 'open", 400),
        (b"ls \\", 400),
        (b"\xff\xfe", 400),
        (b"a\0b", 400),
        (b"x" * (BODY_BYTES + 1), 413),
    ],
)
async def test_bad_bodies(body: bytes, status: int) -> None:
    assert (await post(endpoint(), body)).status == status


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UnknownCommand("no such command"), 404),
        (Denied("not in cmds"), 403),
        (NotFound('VM "x" not found'), 422),
        (Conflict("not running"), 422),
        (Invalid("bad size"), 422),
        (Exhausted("too many VMs"), 422),  # 429 would invite to try again
        (Unavailable("engine away"), 500),
        (Internal("defect"), 500),
    ],
)
async def test_failures(error: AtollError, status: int) -> None:
    heard = await post(endpoint(error), b"new")
    assert (heard.status, heard.json()) == (status, error.to_wire())


async def test_429_before_the_line_is_read() -> None:
    script = Script(Reply(data=1), Reply(data=2))
    limited = Exec(
        language=script,
        callers=Callers(),
        answers=NoAnswers(),
        runner=None,
        limits=Limits(per_second=0.5, burst=1, monotonic=lambda: 7.0),
    )
    assert (await post(limited, b"ls")).status == 200
    read: list[Message] = []
    heard = await post(limited, b"ls", token=f"{TOKEN}.another by the same key", read=read)
    assert (heard.status, heard.headers["retry-after"]) == (429, "2")
    assert heard.json()["code"] == "exhausted"
    assert (script.lines, read) == (["ls"], [])


async def test_401_comes_before_the_body_is_read() -> None:
    read: list[Message] = []
    assert (await post(endpoint(), b"x" * 100_000, token="atoll1.bad", read=read)).status == 401
    assert read == []


async def test_413_by_its_length_comes_before_the_body_is_read() -> None:
    for length in (str(BODY_BYTES + 1), "9" * 40):
        read: list[Message] = []
        heard = await post(endpoint(), b"ls", read=read, length=length)
        assert (heard.status, read) == (413, [])
        assert heard.json()["error"] == "the body is over 64 KiB"
        assert "fields" not in heard.json()


async def test_a_store_that_fails_is_our_fault() -> None:
    assert (await post(endpoint(), b"ls", token="atoll1.store")).status == 500


def test_limits_refill_per_key() -> None:
    now = [0.0]
    limits = Limits(per_second=2, burst=2, monotonic=lambda: now[0])
    assert [limits.wait_s("a") for _ in range(3)] == [0, 0, 1]
    assert limits.wait_s("b") == 0
    now[0] = 0.5
    assert [limits.wait_s("a"), limits.wait_s("a")] == [0, 1]


async def test_504(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "COMMAND_S", 0.01)
    heard = await post(endpoint(), b"hang")
    assert heard.status == 504
    assert "unknown" in heard.json()["error"]


IN_VM = Reply(run_in_vm=ROUTE, command="make")


async def test_in_vm_plain() -> None:
    runner = Runner(("stdout", b"out "), ("stderr", b"err"), 3)
    heard = await post(endpoint(IN_VM, runner=runner), b"ssh web make")
    assert (heard.status, heard.body, heard.headers["x-atoll-exit"]) == (200, b"out err", "3")


async def test_in_vm_plain_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "COMMAND_S", 0.01)
    runner = Runner(hangs=True)
    heard = await post(endpoint(IN_VM, runner=runner), b"ssh web make")
    assert (heard.status, runner.closed) == (504, True)
    assert "was ended" in heard.json()["error"]


async def test_in_vm_plain_ends_when_the_client_leaves() -> None:
    runner, leaves = Runner(hangs=True), asyncio.Event()
    leaves.set()
    await asyncio.wait_for(post(endpoint(IN_VM, runner=runner), b"ssh web make", leaves=leaves), 5)
    assert runner.closed


async def test_in_vm_without_a_command() -> None:
    heard = await post(endpoint(Reply(run_in_vm=ROUTE), runner=Runner()), b"ssh web")
    assert (heard.status, heard.json()["hint"]) == (422, "Try: ssh <vm> <command>")


async def test_in_vm_an_idempotency_key_is_refused() -> None:
    runner = Runner()
    heard = await post(endpoint(IN_VM, runner=runner), b"ssh web make", once="k")
    assert (heard.status, runner.closed) == (422, False)
    assert "does not cover" in heard.json()["error"]


async def test_in_vm_plain_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "OUTPUT_BYTES", 10)
    runner = Runner(("stdout", b"x" * 11), hangs=True)
    heard = await post(endpoint(IN_VM, runner=runner), b"ssh web make")
    assert (heard.status, runner.closed) == (422, True)


async def test_in_vm_lines_end_with_an_error_alone() -> None:
    runner = Runner(("stdout", b"a"), fails=Unavailable("web: the VM went away", hint="Try: ls"))
    heard = await post(
        endpoint(IN_VM, runner=runner),
        b"ssh web make",
        accept="application/json, application/x-ndjson",
    )
    lines = [json.loads(line) for line in heard.body.splitlines() if line]
    assert lines[1:] == [{"error": "web: the VM went away. Try: ls"}]


async def test_in_vm_lines() -> None:
    runner = Runner(("stdout", b"\x00out"), ("stderr", b"err"), 3)
    heard = await post(
        endpoint(IN_VM, runner=runner), b"ssh web make", accept="application/x-ndjson"
    )
    lines = [json.loads(line) for line in heard.body.splitlines() if line]
    assert base64.b64decode(lines[0]["stdout"]) == b"\x00out"
    assert base64.b64decode(lines[1]["stderr"]) == b"err"
    assert lines[2:] == [{"exit_code": 3}]
    assert heard.headers["content-type"] == "application/x-ndjson"


async def test_in_vm_lines_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "HEARTBEAT_S", 0.01)
    runner, heard, leaves = Runner(hangs=True), Heard(), asyncio.Event()
    task = asyncio.ensure_future(
        post(
            endpoint(IN_VM, runner=runner), b"ssh web make",
            accept="application/x-ndjson", heard=heard, leaves=leaves,
        )
    )  # fmt: skip
    await asyncio.wait_for(heard.first_line.wait(), 5)
    leaves.set()
    await asyncio.wait_for(task, 5)
    assert heard.body.strip(b"\n") == b""


async def test_client_that_leaves_ends_the_command() -> None:
    runner, heard, leaves = Runner(("stdout", b"a"), hangs=True), Heard(), asyncio.Event()
    task = asyncio.ensure_future(
        post(
            endpoint(IN_VM, runner=runner), b"ssh web make",
            accept="application/x-ndjson", heard=heard, leaves=leaves,
        )
    )  # fmt: skip
    await asyncio.wait_for(heard.first_line.wait(), 5)
    assert not runner.closed
    leaves.set()
    await asyncio.wait_for(task, 5)
    assert runner.closed


@pytest.mark.parametrize("accept", ["*/*", "application/x-ndjson"])
async def test_a_key_that_is_removed_ends_its_commands(accept: str) -> None:
    runner, heard = Runner(("stdout", b"a"), hangs=True), Heard()
    api = endpoint(IN_VM, runner=runner)
    task = asyncio.ensure_future(post(api, b"ssh web make", accept=accept, heard=heard))

    async def runs() -> bool | None:
        api.end("SHA256:of another key")
        return runner.started or None

    await poll(runs, seconds=5, what="the command to start", every=0.001)
    assert not task.done()
    api.end("SHA256:k")
    await asyncio.wait_for(task, 5)
    assert runner.closed
    last = json.loads(heard.body.splitlines()[-1])
    assert last["error"] == "the key or token of this call was removed"
    assert heard.status == (403 if accept == "*/*" else 200)


async def test_without_a_runner() -> None:
    assert (await post(endpoint(IN_VM), b"ssh web make")).status == 500
