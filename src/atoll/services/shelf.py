"""Secrets that are good for a short time and are lost with the process: kept by hash, within bounds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from atoll.base.errors import Exhausted
from atoll.base.secret import hashed, new_secret

T = TypeVar("T")
_MOST = 10_000


@dataclass(slots=True)
class _Kept(Generic[T]):
    value: T
    owner: str
    until: float


class Shelf(Generic[T]):
    """Values by secret. One owner has `each` at most: its oldest make room."""

    def __init__(self, *, each: int, now: Callable[[], float]) -> None:
        self._each = each
        self._now = now
        self._kept: OrderedDict[str, _Kept[T]] = OrderedDict()

    def put(self, value: T, *, owner: str, seconds: float) -> str:
        """A new secret for this value. Raises Exhausted when all owners together have too many."""
        own = [key for key, kept in self._kept.items() if kept.owner == owner]
        for key in own[: max(0, len(own) - self._each + 1)]:
            del self._kept[key]
        if len(self._kept) >= _MOST:
            self._tidy()
        if len(self._kept) >= _MOST:
            raise Exhausted("too many sign-ins are under way", hint="Try again in a minute")
        secret = new_secret()
        self._kept[hashed(secret)] = _Kept(value, owner, self._now() + seconds)
        return secret

    def get(self, secret: str) -> T | None:
        """The value, while its time lasts."""
        kept = self._kept.get(hashed(secret))
        return kept.value if kept is not None and self._now() < kept.until else None

    def take(self, secret: str) -> T | None:
        """The value, while its time lasts, and once."""
        value = self.get(secret)
        self.drop(secret)
        return value

    def drop(self, secret: str) -> None:
        """End one before its time."""
        self._kept.pop(hashed(secret), None)

    def _tidy(self) -> None:
        now = self._now()
        for key in [key for key, kept in self._kept.items() if kept.until <= now]:
            del self._kept[key]
