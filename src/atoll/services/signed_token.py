"""Tokens that users make themselves: `atoll0.<permission>.<signature>`, both base64url. Pure.

The permission is JSON, signed by a key that logs its account in, for the namespace `v0@<domain>`.
Nothing is stored: such a token is as good as its key, and ends when the key is removed.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from atoll.base.errors import Denied, Invalid
from atoll.base.secret import base64url
from atoll.domain import permission
from atoll.domain.permission import Permission
from atoll.services import signature
from atoll.services.signature import Signature

PREFIXES = ("atoll0.", "exe0.")  # the second is what clients of the reference product make
MAX_BYTES = 8192
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedToken:
    """A token taken apart; who calls must still look its key up and ask `is_signed_by`."""

    permission: Permission
    message: bytes
    signature: Signature

    def is_signed_by(self, key_line: str, *, namespace: str) -> bool:
        """True when this key signed it for this namespace."""
        return signature.verifies(
            self.signature, self.message, namespace=namespace, key_line=key_line
        )


def is_signed(token: str) -> bool:
    """True for a token of this kind, good or not."""
    return token.startswith(PREFIXES)


def namespace_of(domain: str) -> str:
    """What `ssh-keygen -Y sign -n` is given for this cloud."""
    return f"v0@{domain}"


def read(token: str, *, now: float) -> SignedToken:
    """Take a token apart. Raises Denied when it is malformed or not good at `now`."""
    if len(token) > MAX_BYTES:
        raise Denied(f"the token is over {MAX_BYTES} bytes", hint="Try fewer cmds or a shorter ctx")
    _, *parts = token.split(".")
    if len(parts) != 2:
        raise _malformed(f"{len(parts) + 1} parts in place of 3")
    message, blob = _decoded(parts[0]), _decoded(parts[1])
    if message is None or blob is None:
        raise _malformed("a part is not base64url without padding")
    signed = signature.parse(blob)
    if signed is None:
        raise _malformed("its signature is not one that `ssh-keygen -Y sign` makes")
    try:
        allowed = permission.parse(message)
    except Invalid as error:
        raise Denied(error.message, hint=error.hint) from error
    if refusal := allowed.refusal(now):
        raise Denied(f"the token is not good now: {refusal}", hint="Sign a new one")
    return SignedToken(permission=allowed, message=message, signature=signed)


def _decoded(part: str) -> bytes | None:
    """Bytes that this text alone stands for: bits that encode nothing must be zero."""
    if not _BASE64URL.fullmatch(part) or len(part) % 4 == 1:
        return None
    found = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    return found if base64url(found) == part else None


def _malformed(why: str) -> Denied:
    return Denied(f"the token is malformed: {why}", hint="Form: atoll0.<permission>.<signature>")
