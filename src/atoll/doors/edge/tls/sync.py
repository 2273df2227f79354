"""Keeps HAProxy's certificates equal to what is kept: files first, then the running HAProxy.

Invariants: the list on disk names only files that are there and whole, so HAProxy can start at any
moment; a certificate is listed after it is there and goes after it is unlisted, here as in HAProxy.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from atoll.base import atomic, log
from atoll.doors.edge.certs import Authority
from atoll.doors.edge.files import Files, publish
from atoll.doors.edge.runtime import Runtime
from atoll.doors.edge.tls.runtime import TlsRuntime, fingerprint
from atoll.doors.edge.tls.serving import DEFAULT, Serving, choose, crt_list
from atoll.services.certificates.shelf import Kept

LOOK_S = 3600.0  # certificates end by time alone, too

_log = log.get("edge")


class Keeping(Protocol):
    """The certificates of the ACME server."""

    version: int

    def certificates(self) -> Mapping[str, Kept]:
        """By their stem."""
        ...


class TlsSync:
    """Owns the folder of certificates, the list, and what HAProxy has of both."""

    def __init__(
        self,
        *,
        files: Files,
        runtime: Runtime,
        authority: Authority,
        keeping: Keeping,
        now: Callable[[], float],
    ) -> None:
        self._files = files
        self._runtime = TlsRuntime(runtime, files.crt_list)
        self._authority = authority
        self._keeping = keeping
        self._now = now
        self._wanted: dict[str, bytes] = {}  # file name -> PEM, as on disk
        self._shown: dict[str, str] | None = None  # file name -> fingerprint; None: unknown
        self._version = -1
        self._looked_at = 0.0

    def forget(self) -> None:
        """HAProxy may have anything: it started anew, or did not answer."""
        self._shown = None

    def write(self, *, is_forced: bool = False) -> None:
        """Bring the files to what is kept, when that may have changed."""
        is_late = abs(self._now() - self._looked_at) > LOOK_S
        if not (is_forced or is_late or self._version != self._keeping.version):
            return
        version = self._keeping.version
        serving = choose(self._keeping.certificates(), self._authority.domain, now=self._now())
        self._wanted = {DEFAULT: serving.default or self._own(), **serving.others}
        self._publish(serving)
        self._version, self._looked_at = version, self._now()

    async def tell(self) -> None:
        """Bring HAProxy to the files. Raises Unavailable; what it has is then unknown."""
        shown = await self._seen() if self._shown is None else self._shown
        wanted = {name: fingerprint(pem) for name, pem in self._wanted.items()}
        if shown == wanted:
            self._shown = wanted
            return
        self._shown = None
        for name in sorted(wanted.keys()):
            if shown.get(name) != wanted[name]:
                await self._runtime.put(self._path(name), self._wanted[name])
                if name not in shown:
                    await self._runtime.add(self._path(name))
        for name in sorted(shown.keys() - wanted.keys()):
            await self._runtime.remove(self._path(name))
        _log.info("certificates told", count=len(wanted))
        self._shown = wanted

    async def _seen(self) -> dict[str, str]:
        """What HAProxy has; a file that is listed twice is one that must be listed anew."""
        shown: dict[str, str] = {}
        for path in await self._runtime.listed():
            if path.name in shown:
                await self._runtime.remove(path)
                del shown[path.name]
            else:
                shown[path.name] = await self._runtime.fingerprint(path) or ""
        return shown

    def _publish(self, serving: Serving) -> None:
        """Certificates, then the list, then away with what it does not name: HAProxy has it in memory."""
        for name, pem in self._wanted.items():
            _replace(self._path(name), pem)
        text = crt_list(self._files.certificates, self._authority.domain, serving.others)
        _replace(self._files.crt_list, text.encode())
        for path in self._files.certificates.glob("*.pem"):
            if path.name not in self._wanted:
                atomic.remove(path)

    def _own(self) -> bytes:
        """The leaf of the own CA: the one on disk while it is good."""
        now = dt.datetime.fromtimestamp(self._now(), dt.UTC)
        path = self._path(DEFAULT)
        pem = self._authority.leaf(path, now=now)
        if pem is None:
            return path.read_bytes()
        _log.info("certificate made", path=str(path))
        return pem

    def _path(self, name: str) -> Path:
        return self._files.certificates / name


def _replace(path: Path, data: bytes) -> None:
    if not path.exists() or path.read_bytes() != data:
        publish(path, data)
