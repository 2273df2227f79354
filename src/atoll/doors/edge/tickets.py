"""HAProxy's map of tokens that open a VM: `<vm host>|<hash>` -> who comes, until when, with what. Pure.

The value is four fields with colons between them: account, end in epoch seconds (0: it does not end),
context and e-mail address in base64url; `0` stands for no context.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from atoll.base.secret import base64url
from atoll.domain.vm_token import VmToken
from atoll.domain.web import header_safe


def table(tokens: Iterable[VmToken], *, domain: str) -> dict[str, str]:
    """The whole map."""
    return {f"{token.vm_name}.{domain}|{token.hash}": value(token) for token in tokens}


def value(token: VmToken) -> str:
    """What stands for one token; also what a question about it is answered."""
    until = 0 if token.until is None else math.ceil(token.until)
    ctx = "0" if token.ctx is None else base64url(token.ctx.encode())
    return f"{token.account}:{until}:{ctx}:{base64url(header_safe(token.email).encode())}"
