"""Keeps a good certificate for every name that needs one, as long as an ACME server is set.

Invariants: one order at a time; what failed waits as `domain.certificate` says, also after a restart;
a good certificate is only ever replaced by a newer good one; a limit of the server holds everything.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

from atoll.base import log
from atoll.base.errors import AtollError
from atoll.base.timeout import timeout
from atoll.domain import certificate
from atoll.domain.certificate import LONGEST_WAIT_S, Standing, Wanted
from atoll.services.certificates.refusal import Refused
from atoll.services.certificates.shelf import ACCOUNT, Kept, Shelf

LOOK_S = 60.0  # the clock may be set, so no sleep is longer
DISK_S = 3600.0  # a certificate that cannot be stored is not asked for again and again
ASK_S = 6 * 3600.0  # how often the server is asked when it wants a certificate renewed
_log = log.get("certificates")


class Asking(Protocol):
    """What is needed of the Issuer."""

    async def connect(self) -> None:
        """Reach the server."""
        ...

    async def issue(self, wanted: Wanted) -> bytes:
        """Key and chain in PEM."""
        ...

    async def renewal(self, pem: bytes) -> float | None:
        """When the server suggests to renew."""
        ...


class Changes(Protocol):
    """A counter that goes up when names may have come or gone."""

    version: int

    def bump(self) -> None:
        """Tell the edge, too."""
        ...

    async def wait_beyond(self, version: int) -> int:
        """Return the version once it is greater."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Whose certificates are `wanted` now, and which hosts' are `kept` although they are not."""

    wanted: tuple[Wanted, ...]
    kept: frozenset[str]


class Renewing:
    """The loop. Only one runs per shelf."""

    def __init__(
        self,
        *,
        shelf: Shelf,
        issuer: Asking,
        names: Callable[[], Awaitable[Names]],
        changes: Changes,
        now: Callable[[], float],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._shelf = shelf
        self._issuer = issuer
        self._names = names
        self._changes = changes
        self._now = now
        self._chance = chance
        self._not_before = 0.0  # while nothing can be written down

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            version = self._changes.version
            next_look = self._now() + LOOK_S
            try:
                next_look = await self.once()
            except AtollError as error:
                _log.warning("certificates not looked at", reason=str(error))
            except OSError as error:
                _log.warning("certificates not stored", reason=str(error))
                self._not_before = self._now() + DISK_S
            with contextlib.suppress(TimeoutError):
                async with timeout(min(max(1.0, next_look - self._now()), LOOK_S)):
                    await self._changes.wait_beyond(version)

    async def once(self) -> float:
        """Get or renew everything that is due; returns when the next thing will be."""
        if self._not_before - DISK_S <= self._now() < self._not_before:
            return self._not_before
        names = await self._names()
        if gone := self._shelf.forget(but={*names.kept, *(one.hosts[0] for one in names.wanted)}):
            _log.info("certificates forgotten", hosts=gone)
            self._changes.bump()
        for one in names.wanted:
            if self._due(one) <= self._now() and not await self._attempt(one):
                break
        return min(map(self._due, names.wanted), default=self._now() + LOOK_S)

    def _due(self, wanted: Wanted) -> float:
        """When to ask for it, or to ask the server about it."""
        kept, standing = self._kept(wanted), self._shelf.standing(wanted.hosts[0])
        due = 0.0 if kept is None else certificate.renewal(kept.begin, kept.end, standing)
        if kept is not None and not standing.failures:
            due = min(due, standing.ask_at or due)
        due = certificate.next_look(due, standing, now=self._now())
        return certificate.next_look(due, self._shelf.standing(ACCOUNT), now=self._now())

    def _kept(self, wanted: Wanted) -> Kept | None:
        kept = self._shelf.certificate(wanted.hosts[0])
        return kept if kept is not None and set(wanted.hosts) == set(kept.hosts) else None

    async def _attempt(self, wanted: Wanted) -> bool:
        """One order; False when the server wants to be left alone altogether."""
        host = wanted.hosts[0]
        try:
            await self._issuer.connect()
        except AtollError as error:
            self._hold(error)
            return False
        try:
            if await self._is_to_renew(wanted):
                await self._get(wanted)
        except AtollError as error:
            self._fail(host, error)
            if isinstance(error, Refused) and error.is_limit:
                self._hold(error)
                return False
        self._shelf.note(ACCOUNT, Standing())
        return True

    async def _is_to_renew(self, wanted: Wanted) -> bool:
        """False when only the server was to be asked: it now knows better than two thirds."""
        kept, standing = self._kept(wanted), self._shelf.standing(wanted.hosts[0])
        now = self._now()
        if kept is None or certificate.renewal(kept.begin, kept.end, standing) <= now:
            return True
        await self._ask(wanted.hosts[0], kept, standing)
        return False

    async def _get(self, wanted: Wanted) -> None:
        host = wanted.hosts[0]
        pem = await self._issuer.issue(wanted)
        kept = self._shelf.keep(host, pem)
        self._shelf.note(host, Standing())
        self._changes.bump()
        _log.info("certificate got", hosts=list(wanted.hosts))
        await self._ask(host, kept, Standing())

    async def _ask(self, host: str, kept: Kept, standing: Standing) -> None:
        try:
            when = await self._issuer.renewal(kept.pem)
        except AtollError as error:  # its own dates say enough
            _log.warning("renewal not asked", host=host, reason=str(error))
            when = None
        asked = replace(standing, renew_at=when or 0.0, ask_at=self._now() + ASK_S)
        self._shelf.note(host, asked)

    def _fail(self, host: str, error: AtollError) -> None:
        wait_s = error.wait_s if isinstance(error, Refused) else 0.0
        standing = certificate.failed(
            self._shelf.standing(host),
            str(error),
            now=self._now(),
            jitter=self._chance(),
            at_least=wait_s,
        )
        self._shelf.note(host, standing)
        _log.warning("no certificate", host=host, reason=str(error), failures=standing.failures)

    def _hold(self, error: AtollError) -> None:
        wait_s = error.wait_s if isinstance(error, Refused) else 0.0
        standing = certificate.failed(
            self._shelf.standing(ACCOUNT),
            str(error),
            now=self._now(),
            jitter=self._chance(),
            at_least=min(wait_s, LONGEST_WAIT_S),
        )
        self._shelf.note(ACCOUNT, standing)
        _log.warning("ACME server left alone", reason=str(error), failures=standing.failures)
