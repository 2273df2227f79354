"""What was got from the ACME server, as files: `<host>.pem` (key and chain) and `<host>.json`.

Invariants: a certificate file is whole, its key fits and it names the host it is called by, or it
is not there for readers; dates are read from the certificate, so a lost state costs one attempt at most.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from atoll.base import atomic, log
from atoll.base.errors import Invalid
from atoll.domain.certificate import Standing, stem

ACCOUNT = "_account"  # the standing of the server itself; no host has an underscore
_STANDING = tuple(one.name for one in fields(Standing))
_log = log.get("certificates")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A certificate with its key and chain in PEM, and when it is valid (seconds since the epoch)."""

    pem: bytes
    hosts: tuple[str, ...]
    begin: float
    end: float


def read(pem: bytes) -> Kept:
    """Raises Invalid for a PEM that is damaged or whose key does not fit its certificate."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
        certificate = x509.load_pem_x509_certificates(pem)[0]
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, IndexError, x509.ExtensionNotFound) as error:
        raise Invalid(f"no certificate with its key: {error}") from error
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise Invalid("the key is not the certificate's")
    return Kept(
        pem=pem,
        hosts=tuple(names.get_values_for_type(x509.DNSName)),
        begin=certificate.not_valid_before_utc.timestamp(),
        end=certificate.not_valid_after_utc.timestamp(),
    )


class Shelf:
    """The folder. Control alone writes; `version` counts the changes of certificates."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.version = 0

    def certificate(self, host: str) -> Kept | None:
        """The one whose first name is `host`."""
        path = self._path(host, "pem")
        try:
            kept = read(path.read_bytes())
        except FileNotFoundError:
            return None
        except (Invalid, OSError) as error:
            _log.warning("certificate not read", path=str(path), reason=str(error))
            return None
        return kept if host in kept.hosts else None

    def certificates(self) -> dict[str, Kept]:
        """All of them by their stem."""
        found = ((path.stem, _hosted(path)) for path in sorted(self._folder.glob("*.pem")))
        return {name: kept for name, kept in found if kept is not None}

    def standing(self, host: str) -> Standing:
        """What is known besides; what cannot be read is nothing."""
        try:
            raw = json.loads(self._path(host, "json").read_bytes())
            known = {name: raw[name] for name in _STANDING if type(raw[name]) in (int, float, str)}
            return replace(Standing(), **known) if isinstance(raw["problem"], str) else Standing()
        except (OSError, ValueError, TypeError, KeyError):
            return Standing()

    def keep(self, host: str, pem: bytes) -> Kept:
        """Store a new certificate. Raises Invalid for one that is not whole or not for `host`."""
        kept = read(pem)
        if host not in kept.hosts:
            raise Invalid(f"a certificate for {', '.join(kept.hosts)[:200]} is none for {host}")
        self._make()
        atomic.write(self._path(host, "pem"), pem)
        self.version += 1
        return kept

    def note(self, host: str, standing: Standing) -> None:
        """Store what is known besides."""
        self._make()
        atomic.write_json(self._path(host, "json"), asdict(standing))

    def forget(self, *, but: Collection[str]) -> list[str]:
        """Delete what belongs to none of these hosts; returns the stems."""
        kept = {*map(stem, but), ACCOUNT}
        old = [path for path in self._folder.glob("*.*") if path.stem not in kept]
        for path in old:
            atomic.remove(path)
        self.version += bool(old)
        return sorted({path.stem for path in old})

    def _make(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _path(self, host: str, kind: str) -> Path:
        return self._folder / f"{stem(host)}.{kind}"


def _hosted(path: Path) -> Kept | None:
    try:
        kept = read(path.read_bytes())
    except (Invalid, OSError):
        return None  # `certificate` says so where the host is known
    return kept if any(stem(host) == path.stem for host in kept.hosts) else None
