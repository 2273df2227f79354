"""How the ACME server is shown that a name is ours: a file on port 80, or a TXT record."""

from __future__ import annotations

from types import MappingProxyType
from typing import Protocol

from atoll.base.aio import deadline
from atoll.domain.certificate import Proof
from atoll.services.dns.txt_records import TxtRecords

SHOWN_S = 20.0


class Prover(Protocol):
    """Shows one proof at a time for a name, and takes it away again."""

    async def show(self, host: str, where: str, value: str) -> None:
        """Return when the server can see `value`. `where`: a path, or a name of DNS."""
        ...

    async def hide(self, host: str, where: str, value: str) -> None:
        """Take it away; one that is not there is fine."""
        ...


class Changes(Protocol):
    """Tells the edge that there is something new, and when it has that."""

    version: int

    def bump(self) -> None:
        """There is."""
        ...

    async def shown(self, version: int) -> None:
        """Return when HAProxy has what this version stands for."""
        ...


class HttpProofs:
    """Answers on port 80: HAProxy gives them by itself, for exactly the paths in `answers`."""

    def __init__(self, *, changes: Changes) -> None:
        self._changes = changes
        self._answers: dict[str, str] = {}

    @property
    def answers(self) -> MappingProxyType[str, str]:
        """Host and path, joined -> the answer."""
        return MappingProxyType(self._answers)

    async def show(self, host: str, where: str, value: str) -> None:
        """Let HAProxy answer. Raises Unavailable when it does not hear of it."""
        self._answers[f"{host}{where}"] = value
        self._changes.bump()
        async with deadline(SHOWN_S, "the edge being told"):
            await self._changes.shown(self._changes.version)

    async def hide(self, host: str, where: str, value: str) -> None:
        """Let it forget."""
        if self._answers.pop(f"{host}{where}", None) is not None:
            self._changes.bump()


class DnsProofs:
    """TXT records."""

    def __init__(self, records: TxtRecords) -> None:
        self._records = records

    async def show(self, host: str, where: str, value: str) -> None:
        """Set the record."""
        await self._records.set(where, value)

    async def hide(self, host: str, where: str, value: str) -> None:
        """Remove it."""
        await self._records.remove(where, value)


Provers = dict[Proof, Prover]
