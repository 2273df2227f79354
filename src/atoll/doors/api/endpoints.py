"""What the API serves, declared: POST /exec, and the few files beside it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from atoll.commands.going_on import FLAGS
from atoll.commands.verbs import REGISTRY
from atoll.doors.api.body import BODY_BYTES
from atoll.doors.api.exec import NDJSON
from atoll.doors.api.once import HEADER, KEY_PATTERN, REPLAYED
from atoll.doors.api.openapi import ERROR, TEXT, Answer, Body, Endpoint, error, served

Serve: TypeAlias = Callable[[Request], Awaitable[Response]]
_RETRY = "whole seconds until it may go on"


def endpoints(execute: Serve, *, ca: Path, url: str) -> Sequence[Endpoint]:
    """All of them; `execute` serves /exec, `ca` is the file users trust, `url` this cloud's."""
    own = (_exec(execute), _healthz(), _authority(ca))
    return (*own, served(own, url=url))


def _line() -> Body:
    """A command line; the examples are those of the language that read no stdin and come to an end."""
    examples = {
        f"{'-'.join(command.words)}-{number}": line
        for command in REGISTRY
        for number, line in enumerate(command.examples, 1)
        if " < " not in line and FLAGS.isdisjoint(line.split())
    }
    return Body(
        text="A command line, as typed after `ssh <host>`.",
        media="text/plain",
        schema={**TEXT, "minLength": 1, "maxLength": BODY_BYTES},
        examples=examples,
    )


def _exec(execute: Serve) -> Endpoint:
    ran = Answer(
        text="The command ran. Its JSON, or lines of it while it goes on; for `ssh <vm> <command>`"
        " the output, or lines of JSON.",
        bodies={
            "application/json": {},
            NDJSON: {
                **TEXT,
                "description": "An object per line: `stdout` or `stderr` in base64, at last `exit_code`;"
                " for what goes on (--follow, --watch) what its JSON says now. `error`: it broke off.",
            },
            "application/octet-stream": {**TEXT, "format": "binary"},
        },
        maybe={
            "x-atoll-exit": "exit code: of the command in the VM, or not 0 when a part of it failed",
            "x-exe-exit": "that of a command in a VM",
            REPLAYED: "`true`: the answer of the first call with this key",
        },
    )
    failed = Answer(
        text="The command ran and failed, or the line asks for what cannot be.",
        bodies={"application/json": {"anyOf": [ERROR, {"type": "object"}]}},
        maybe={REPLAYED: "`true`: the answer of the first call with this key"},
    )
    return Endpoint(
        path="/exec",
        name="exec",
        method="POST",
        text="Run a command.",
        serve=execute,
        is_open=False,
        body=_line(),
        headers={
            HEADER: {
                **TEXT,
                "pattern": KEY_PATTERN,
                "description": "A changing call with the same key and line is run once.",
            }
        },
        answers={
            200: ran,
            400: error("The body is empty, badly quoted or not UTF-8; or no idempotency key."),
            401: error("No token, or one that is not good.", www_authenticate="`Bearer`"),
            403: error("The token does not allow this command."),
            404: error("No such command."),
            409: error("The first call with this key runs, or broke off.", retry_after=_RETRY),
            413: error(f"The body is over {BODY_BYTES} bytes."),
            422: failed,
            429: error("This key calls too often; nothing was read.", retry_after=_RETRY),
            500: error("A fault of the cloud."),
            504: error("No answer in time; the outcome is unknown."),
        },
    )


def _healthz() -> Endpoint:
    async def serve(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    status = {"type": "object", "required": ["status"], "properties": {"status": {"const": "ok"}}}
    return Endpoint(
        path="/healthz",
        name="healthz",
        text="Whether this process answers.",
        serve=serve,
        answers={200: Answer(text="It does.", bodies={"application/json": status})},
    )


def _authority(ca: Path) -> Endpoint:
    media = "application/x-pem-file"

    async def serve(_request: Request) -> Response:
        return FileResponse(ca, media_type=media, filename="atoll-ca.pem")

    return Endpoint(
        path="/ca.pem",
        name="ca",
        text="The root certificate of the cloud's own authority.",
        serve=serve,
        answers={
            200: Answer(text="PEM.", bodies={media: TEXT}),
            206: Answer(text="A part of it.", bodies={media: TEXT}),
        },
    )
