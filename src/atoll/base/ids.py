"""Random identifiers: a prefix that names the kind, then 60 random bits in lower-case base 32."""

from __future__ import annotations

import secrets

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: no i, l, o, u


def new(prefix: str) -> str:
    """`vm-3k9x…`: unique without asking anybody (60 bits)."""
    return f"{prefix}-" + "".join(secrets.choice(_ALPHABET) for _ in range(12))
