"""A form as a browser sends it, read within limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias
from urllib.parse import parse_qsl

from starlette.requests import Request

from atoll.base.errors import Invalid

FORM_BYTES = 256 * 1024  # a line has 64 KiB, and each byte of it may come as three
FIELDS = 200

Sent: TypeAlias = Mapping[str, list[str]]


async def read_form(request: Request) -> Sent:
    """Values by name, in order. Raises Invalid for what no form of ours sends."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Invalid(f"a form is sent URL-encoded, not as {kind[:60]!r}")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES:
            raise Invalid(f"a form has at most {FORM_BYTES >> 10} KiB")
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, max_num_fields=FIELDS, errors="strict"
        )
    except ValueError as error:
        raise Invalid(f"this form cannot be read, or has more than {FIELDS} fields") from error
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return values


def last(form: Sent, name: str) -> str:
    """The value of a field that is asked once; empty when it was not sent."""
    return form.get(name, [""])[-1]
