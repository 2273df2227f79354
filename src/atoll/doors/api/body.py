"""The body of a request as a command line, and never more of it than a line may have."""

from __future__ import annotations

from typing import ClassVar

from starlette.requests import ClientDisconnect, Request

from atoll.base.errors import Invalid

BODY_BYTES = 64 * 1024


class TooLarge(Invalid):
    """The body is longer than any line."""

    http: ClassVar[int] = 413


async def read_line(request: Request) -> str:
    """The line in a body. Raises Invalid, or TooLarge before reading on."""
    said = request.headers.get("content-length", "0")
    if len(said) > 9 or (said.isdigit() and int(said) > BODY_BYTES):
        raise _too_large()
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > BODY_BYTES:
                raise _too_large()
        line = body.decode().strip()
    except ClientDisconnect as error:
        raise Invalid("the body broke off") from error
    except UnicodeDecodeError as error:
        raise Invalid(f"the body is not UTF-8 at byte {error.start}") from error
    if not line:
        raise Invalid("the body is empty", hint="Try: curl -d ls …")
    return line


def _too_large() -> TooLarge:
    return TooLarge(f"the body is over {BODY_BYTES >> 10} KiB", hint="Send one line at a time")
