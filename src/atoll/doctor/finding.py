"""One line of the doctor's answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is; `missing` means something does not work until it is mended."""

    OK = "ok"
    DEGRADED = "degraded"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`what` was looked at, what was `found`, and for anything but ok what to `type`."""

    level: Level
    what: str
    found: str
    type: str = ""

    def line(self) -> str:
        """For people."""
        hint = f"\n{'':11}try: {self.type}" if self.type else ""
        return f"{self.level:<9}  {self.what}: {self.found}{hint}"


def ok(what: str, found: str) -> Finding:
    """As it should be."""
    return Finding(level=Level.OK, what=what, found=found)


def degraded(what: str, found: str, type: str) -> Finding:
    """Works, with less."""
    return Finding(level=Level.DEGRADED, what=what, found=found, type=type)


def missing(what: str, found: str, type: str) -> Finding:
    """Does not work."""
    return Finding(level=Level.MISSING, what=what, found=found, type=type)
