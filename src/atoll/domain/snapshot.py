"""Snapshots: a VM as it was at one moment, its disk or also its memory, kept under a name."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from atoll.base.errors import Invalid

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")


class Reason(StrEnum):
    """Why it was taken."""

    TAKEN = "taken"  # somebody asked
    HISTORY = "history"  # by the VM's policy: thinned as it ages, the others never
    ROLLBACK = "rollback"  # what a rollback replaced: going back to it undoes that
    UNDO = (
        "undo"  # such a one that `undo` went back to, or what it replaced: not to be undone again
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One. `id` is what the engine calls it.

    Without `is_clean` its file systems were not held still: booted from, they are as after a power
    cut. They recover, and what programs had not written is missing.
    """

    id: str
    vm: str
    name: str  # its VM has no other of this name
    reason: Reason
    is_clean: bool
    has_memory: bool  # a VM goes on from it, it does not boot
    created_at: float


def check_name(text: str) -> str:
    """Raises Invalid for what cannot name a snapshot: no `@`, no `/`, nothing that an option could be."""
    if not _NAME.fullmatch(text):
        raise Invalid(
            f"{text[:70]!r} cannot name a snapshot",
            hint="Use 1 to 63 of a-z, 0-9, and within . _ -",
        )
    return text


def free_name(first: str, taken: Collection[str]) -> str:
    """`first`, or with the first free number after it."""
    names = (first, *(f"{first}-{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)


def named_at(seconds: float) -> str:
    """`20261126-170512`, of seconds since the epoch, in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y%m%d-%H%M%S}"
