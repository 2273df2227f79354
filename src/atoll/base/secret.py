"""Secrets as text: 256 random bits in base64url, of which only the hash is kept.

For so many bits a plain SHA-256 is the right hash, and looking one up by it leaks nothing.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets

_FORM = re.compile(r"[A-Za-z0-9_-]{43}")


def new_secret() -> str:
    """A new one: 43 characters."""
    return secrets.token_urlsafe(32)


def is_secret(text: str) -> bool:
    """Whether it may be one: what is not need not be looked up."""
    return bool(_FORM.fullmatch(text))


def hashed(text: str) -> str:
    """What is kept of a secret, in hex; any text has one."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def base64url(data: bytes) -> str:
    """Without padding, as tokens and URLs have it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
