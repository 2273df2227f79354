"""Certificates over HAProxy's runtime socket. Each method can be repeated after a crash in between."""

from __future__ import annotations

import re
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from atoll.base.errors import Unavailable
from atoll.doors.edge.runtime import Runtime

_ABOUT_ANOTHER = re.compile(r"ongoing transaction is about '([^']+)'")
_FINGERPRINT = re.compile(r"^SHA1 FingerPrint: ([0-9A-F]{40})$", re.MULTILINE)


def fingerprint(pem: bytes) -> str:
    """As HAProxy shows it: of the certificate alone, which has a serial number of its own."""
    certificate = x509.load_pem_x509_certificates(pem)[0]
    return certificate.fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303  to compare, not to trust


class TlsRuntime:
    """Commands about one crt-list."""

    def __init__(self, runtime: Runtime, crt_list: Path) -> None:
        self._runtime = runtime
        self._list = crt_list

    async def listed(self) -> tuple[Path, ...]:
        """The files in HAProxy's list, in its order; one may stand there twice."""
        said = await self._runtime.ask(f"show ssl crt-list {self._list}")
        lines = said.splitlines()
        if not lines or lines[0] != f"# {self._list}":
            raise Unavailable(f"HAProxy shows no list {self._list}: {said[:200]}")
        return tuple(Path(line.split()[0]) for line in lines[1:] if line)

    async def fingerprint(self, path: Path) -> str | None:
        """Of the certificate HAProxy has for a file."""
        found = _FINGERPRINT.search(await self._runtime.ask(f"show ssl cert {path}"))
        return found[1] if found else None

    async def put(self, path: Path, pem: bytes) -> None:
        """Have HAProxy use `pem` for a file from now on, whether it is listed yet or not."""
        said = await self._runtime.ask(f"new ssl cert {path}")
        if "New empty" not in said and "already exists" not in said:
            raise Unavailable(f"HAProxy takes no certificate {path}: {said[:200]}")
        payload = "\n".join(line for line in pem.decode().splitlines() if line.strip())
        said = await self._set(path, payload)
        if "Transaction" not in said:
            raise Unavailable(f"HAProxy refuses the certificate {path}: {said[:200]}")
        said = await self._runtime.ask(f"commit ssl cert {path}")
        if "Success" not in said:
            await self._runtime.ask(f"abort ssl cert {path}")
            raise Unavailable(f"HAProxy keeps the old certificate {path}: {said[-200:]}")

    async def add(self, path: Path) -> None:
        """Put a file HAProxy has a certificate for into the list."""
        said = await self._runtime.ask(f"add ssl crt-list {self._list} {path}")
        if "Success" not in said:
            raise Unavailable(f"HAProxy does not list {path}: {said[-200:]}")

    async def remove(self, path: Path) -> None:
        """Take a file out of the list, however often it is there, and forget it."""
        said = await self._runtime.ask(f"show ssl crt-list -n {self._list}")
        lines = re.findall(rf"^{re.escape(str(path))}:(\d+)", said, re.MULTILINE)
        for line in sorted(map(int, lines), reverse=True):
            said = await self._runtime.ask(f"del ssl crt-list {self._list} {path}:{line}")
            if "deleted" not in said:
                raise Unavailable(f"HAProxy keeps {path} in its list: {said[:200]}")
        await self._runtime.ask(f"del ssl cert {path}")  # it may be gone already

    async def _set(self, path: Path, payload: str) -> str:
        command = f"set ssl cert {path} <<\n{payload}\n"
        said = await self._runtime.ask(command)
        if other := _ABOUT_ANOTHER.search(said):  # left open by a control that died
            await self._runtime.ask(f"abort ssl cert {other[1]}")
            said = await self._runtime.ask(command)
        return said
