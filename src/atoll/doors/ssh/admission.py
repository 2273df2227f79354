"""How many connections one source and all of them may hold: the refusal is a sentence, not a drop.

Invariant: `leave` undoes exactly what `enter` and `proven` counted, so idle sources cost nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from atoll.base.source import network_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Connections at the same time; `pending` ones have not logged in yet."""

    pending_per_source: int = 100
    pending: int = 400  # a login costs about 10 ms of CPU: 4 s of work at most
    source: int = 512
    total: int = 4096
    stranger_s: float = 20.0  # for somebody unknown to read why


class Admission:
    """Counts connections by source: an IPv4 address or an IPv6 /64."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pending: Counter[str] = Counter()
        self._all: Counter[str] = Counter()

    def enter(self, address: str) -> tuple[Place, str]:
        """Count one more; the text says why it is refused, or is empty.

        A refused connection is counted too until it leaves, so that refusals are bounded as well.
        """
        source = network_of(address)
        limits = self._limits
        refusal = ""
        if self._pending[source] >= limits.pending_per_source:
            refusal = f"too many logins at once from {address}"
        elif self._all[source] >= limits.source:
            refusal = f"{limits.source} connections from {address} are open"
        elif self._pending.total() >= limits.pending or self._all.total() >= limits.total:
            refusal = "too many connections"
        self._pending[source] += 1
        self._all[source] += 1
        return Place(self, source), refusal and f"{refusal}; try again in a moment"

    def _drop(self, counter: Counter[str], source: str) -> None:
        counter[source] -= 1
        if not counter[source]:
            del counter[source]


class Place:
    """One counted connection."""

    def __init__(self, admission: Admission, source: str) -> None:
        self._admission = admission
        self._source = source
        self._is_pending = True
        self._is_open = True

    def proven(self) -> None:
        """It has logged in."""
        if self._is_pending:
            self._is_pending = False
            self._admission._drop(self._admission._pending, self._source)

    def leave(self) -> None:
        """It is gone; calling again changes nothing."""
        if self._is_open:
            self._is_open = False
            self.proven()
            self._admission._drop(self._admission._all, self._source)
