"""`asyncio.timeout` that also works while its task is being cancelled, which is where clean-up runs.

The one in Python 3.11.2, Debian 12's, lets CancelledError out instead of raising TimeoutError when the
task had been cancelled before the timeout was entered (3.11.7 is right). Invariant: a timeout of ours
that expires raises TimeoutError, on every version.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class _Timeout(asyncio.Timeout):  # type: ignore[misc]  # final for type checkers only
    _owed = 0

    async def __aenter__(self) -> Self:
        self._owed = _cancelling()
        await super().__aenter__()
        return self

    async def __aexit__(
        self,
        et: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await super().__aexit__(et, exc, tb)
        if self.expired() and et is asyncio.CancelledError and _cancelling() <= self._owed:
            raise TimeoutError from exc


def timeout(seconds: float | None) -> _Timeout:
    """Raise TimeoutError in the body after `seconds` (None: never)."""
    when = None if seconds is None else asyncio.get_running_loop().time() + seconds
    return _Timeout(when)


def _cancelling() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0
