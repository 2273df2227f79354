"""Two maps of HAProxy beside those that grant: custom domains, and proofs an ACME server looks for.

Invariant: neither opens anything. A domain only stands for a VM's own host, and grants are of that host;
a proof is a text that says nothing to anybody but the server that asked for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Protocol

from atoll.doors.edge.decide import Change, Table
from atoll.doors.edge.files import Files, publish
from atoll.doors.edge.runtime import Runtime

DOMAINS, PROOFS = "domains", "proofs"
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_PROOF = re.compile(r"[a-z0-9.-]+/\.well-known/acme-challenge/[A-Za-z0-9_-]+")
_ANSWER = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class Naming(Protocol):
    """What is needed of atoll.services.domains.Domains."""

    async def served(self) -> dict[str, str]:
        """Domain -> VM name."""
        ...


def tables(served: Table, proofs: Table, *, domain: str) -> dict[str, Table]:
    """What HAProxy should have; whatever could not stand in a map, or is a name of ours, is left out."""
    return {
        DOMAINS: {
            name: f"{vm}.{domain}"
            for name, vm in served.items()
            if _HOST.fullmatch(name)
            and _HOST.fullmatch(vm)
            and not f".{name}".endswith(f".{domain}")
        },
        PROOFS: {
            where: value
            for where, value in proofs.items()
            if _PROOF.fullmatch(where) and _ANSWER.fullmatch(value)
        },
    }


class NameMaps:
    """Owns their files and what HAProxy has of them."""

    def __init__(
        self,
        *,
        files: Files,
        runtime: Runtime,
        domain: str,
        naming: Naming | None,
        proofs: Callable[[], Mapping[str, str]],
    ) -> None:
        """`naming` None: there are no custom domains."""
        self._files = files
        self._runtime = runtime
        self._domain = domain
        self._naming = naming
        self._proofs = proofs
        self._wanted: dict[str, Table] = {DOMAINS: {}, PROOFS: {}}
        self._shown: dict[str, Table] | None = None

    def forget(self) -> None:
        """HAProxy may have anything."""
        self._shown = None

    async def write(self) -> None:
        """Bring the files to what the store says."""
        served = await self._naming.served() if self._naming is not None else {}
        self._wanted = tables(served, self._proofs(), domain=self._domain)
        for name, table in self._wanted.items():
            path = self._files.map(name)
            text = "".join(f"{key} {value}\n" for key, value in sorted(table.items())).encode()
            if not path.exists() or path.read_bytes() != text:
                publish(path, text)

    async def tell(self) -> None:
        """Bring HAProxy to the files. Raises Unavailable; what it has is then unknown."""
        if self._shown == self._wanted:
            return
        shown, self._shown = self._shown, None
        for name, table in self._wanted.items():
            path = self._files.map(name)
            if shown is None:
                held, is_broken = await self._runtime.table(path)
                if is_broken:
                    await self._runtime.replace(path, table)
                    continue
            else:
                held = dict(shown[name])
            await self._runtime.apply({name: path}, changes(name, held, table))
        self._shown = self._wanted


def changes(name: str, old: Table, new: Table) -> list[Change]:
    """Steps from one to the other."""
    gone = [Change(table=name, key=key) for key in sorted(old.keys() - new.keys())]
    return gone + [
        Change(table=name, key=key, value=value, replaces=key in old)
        for key, value in sorted(new.items())
        if old.get(key) != value
    ]
