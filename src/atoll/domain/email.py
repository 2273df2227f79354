"""E-mail addresses: which texts are one, and the single spelling that stands for a mailbox. Pure.

Strict on purpose. An address goes into mail headers, into HAProxy's headers and onto pages, and it is
who somebody is: two spellings that a person or a mail server could take for the same must not be two
accounts, and one that turns into another's when its case is folded (K, the Kelvin sign) is refused.
"""

from __future__ import annotations

import re
import unicodedata

from atoll.base.errors import Invalid

MAX_LOCAL = 64  # RFC 5321, 4.5.3.1.1, in bytes
MAX_DOMAIN = 190
_LOCAL = re.compile(r"[^\s@\"(),:;<>\[\\\].]+(?:\.[^\s@\"(),:;<>\[\\\].]+)*")
_DOMAIN = re.compile(
    r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*"
)


def check_email(text: str) -> str:
    """The address as it is kept: in lower case, without blanks around it. Raises Invalid."""
    email = text.strip(" ").lower()
    local, _, domain = email.rpartition("@")
    is_good = (
        len(local.encode(errors="replace")) <= MAX_LOCAL
        and len(domain) <= MAX_DOMAIN
        and _LOCAL.fullmatch(local)
        and _DOMAIN.fullmatch(domain)
        and _is_plain(text)
    )
    if not is_good:
        raise Invalid(f"{text[:60]!r} is not an e-mail address", hint="Try: ann@example.com")
    return email


def domain_of(email: str) -> str:
    """What follows the @ of a checked address."""
    return email.rpartition("@")[2]


def _is_plain(text: str) -> bool:
    """No control, format, separator, private or unassigned character, and no second spelling."""
    return unicodedata.normalize("NFKC", text) == text and not any(
        unicodedata.category(char)[0] in "CZ" for char in text.strip(" ")
    )
