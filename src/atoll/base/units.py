"""Sizes as people write them, checked, to bytes and back (powers of 1024)."""

from __future__ import annotations

import re

from atoll.base.errors import Invalid

_SIZE = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,3}))?\s*(?:([KMGT])i?B?)?", re.IGNORECASE)
_FACTOR = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
MIB = 1 << 20
GIB = 1 << 30


def parse_size(text: str, *, what: str = "size", bare: str = "G") -> int:
    """Bytes for `512M`, `2G`, `1.5GiB`; a bare number is in `bare` units.

    Raises Invalid on signs, exponents, unknown units and zero.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise Invalid(f"{what} {text[:40]!r} is not a size", hint="Try: 512M, 2G or 1.5G")
    whole, fraction, unit = match.groups()
    factor = _FACTOR[(unit or bare).upper()]
    size = int(whole) * factor + (int(fraction) * factor // 10 ** len(fraction) if fraction else 0)
    if size <= 0:
        raise Invalid(f"{what} must be more than 0", hint="Try: 512M or 2G")
    return size


def show_size(size_bytes: int) -> str:
    """Short and exact where it can be: `512M`, `2G`, `1.5G`, `0B`."""
    for unit, factor in (("T", 1 << 40), ("G", GIB), ("M", MIB), ("K", 1 << 10)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f}".rstrip("0").rstrip(".") + unit
    return f"{size_bytes}B"
