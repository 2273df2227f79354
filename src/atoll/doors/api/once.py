"""The header `Idempotency-Key`: a changing call is run once, however often it is sent."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from atoll.base.aio import shielded
from atoll.base.errors import Conflict, Invalid
from atoll.domain.account import Caller
from atoll.services.answers import Answer, Claim

HEADER = "idempotency-key"
REPLAYED = "idempotency-replayed"
KEY_PATTERN = "^[!-~]{1,200}$"
UNTOUCHED = frozenset({400, 403, 404})  # refused before anything was run
_NOTE_S = 15.0  # to write down how it ended, beyond the store's own patience


class Keeping(Protocol):
    """What is needed of atoll.services.answers.Answers."""

    async def claim(self, caller: Caller, key: str, line: str) -> Claim | Answer:
        """The earlier answer, or the claim to run; raises Invalid, Conflict or Exhausted."""
        ...

    async def keep(self, claim: Claim, answer: Answer) -> None:
        """It ended so."""
        ...

    async def release(self, claim: Claim) -> None:
        """Nothing was run."""
        ...

    def break_off(self, claim: Claim) -> None:
        """It ended without an answer."""
        ...


def key_of(request: Request) -> str | None:
    """The key that a request carries. Raises Invalid for one that cannot be."""
    key = request.headers.get(HEADER)
    if key is not None and not re.fullmatch(KEY_PATTERN, key):
        raise Invalid(
            "an idempotency key is 1 to 200 printable ASCII characters", hint="Try: a UUID"
        )
    return key


async def once(
    answers: Keeping, caller: Caller, key: str, line: str, run: Callable[[], Awaitable[Response]]
) -> Response:
    """`run` it, unless it was run before under this key: then answer as then."""
    try:
        found = await answers.claim(caller, key, line)
    except Conflict as error:
        return JSONResponse(error.to_wire(), status_code=409, headers={"retry-after": "1"})
    except Invalid as error:
        return JSONResponse(error.to_wire(), status_code=422)
    if isinstance(found, Answer):
        headers = {REPLAYED: "true"}
        return Response(found.body, found.status, media_type="application/json", headers=headers)
    try:
        response = await run()
    except BaseException:
        answers.break_off(found)
        raise
    if response.status_code in UNTOUCHED:
        await answers.release(found)
    else:
        await shielded(
            answers.keep(found, Answer(response.status_code, bytes(response.body))), seconds=_NOTE_S
        )
    return response
