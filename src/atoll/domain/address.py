"""E-mail addresses: one spelling each. Pure."""

from __future__ import annotations

import re

from atoll.base.errors import Invalid

_EMAIL = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f]{1,190}")


def check_email(text: str) -> str:
    """The address as it is kept, in lower case. Raises Invalid."""
    email = text.strip().lower()
    if not _EMAIL.fullmatch(email):
        raise Invalid(f"{email[:60]!r} is not an e-mail address", hint="Try: ann@example.com")
    return email
