"""One entry of the journal: an intent that is written down before the engine is asked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


class OpKind(StrEnum):
    """What an operation does to its VM."""

    CREATE = "create"
    CLONE = "clone"
    PAUSE = "pause"
    RESUME = "resume"
    RESTART = "restart"
    RESIZE = "resize"
    SNAPSHOT = "snapshot"
    ROLLBACK = "rollback"
    DROP_SNAPSHOT = "drop-snapshot"
    IDENTIFY = "identify"  # push name and keys
    TRASH = "trash"
    PURGE = "purge"


class OpState(StrEnum):
    """INTENT may have happened or not; UNDOING will never become DONE; the others are final."""

    INTENT = "intent"
    UNDOING = "undoing"
    DONE = "done"
    FAILED = "failed"


Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A journal row. `act` names the command it is part of: `rm a b` is two operations, one act."""

    id: str
    act: str
    kind: OpKind
    vm: str
    account: str
    state: OpState = OpState.INTENT
    attempts: int = 0
    payload: Mapping[str, Json] = field(default_factory=dict)
    result: Mapping[str, Json] | None = None
    created_at: float
    finished_at: float | None = None

    def step(self, name: str) -> str:
        """The id of one engine request among several: the same at every attempt."""
        digest = int.from_bytes(hashlib.sha256(f"{self.id}/{name}".encode()).digest()[:8])
        return "op-" + "".join(_ALPHABET[(digest >> 5 * i) & 31] for i in range(12))
