"""An archive from npm's registry, or from the cache of those fetched before.

The cache is by content: `<sha512 of the archive>.tgz`. What is in it is checked like what arrives, so
that it may be damaged, deleted or not writable.
"""

from __future__ import annotations

import base64
import os
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlsplit

from atoll.base import atomic
from atoll.base.errors import Invalid, Unavailable
from atoll.host_setup.web_files.archive import ARCHIVE_BYTES, matches
from atoll.host_setup.web_files.declared import Package

NPM = "https://registry.npmjs.org/"
_VARIABLES = ("npm_config_registry", "NPM_CONFIG_REGISTRY")  # npm takes either spelling
_SILENCE_S = 30.0
_TOTAL_S = 300.0  # 1.4 MB on a line of 5 kB/s
_CHUNK = 64 * 1024
_HINT = "A mirror will do as well: npm_config_registry=https://… make up"


def address() -> str:
    """The registry in force: npm's own variable, as npm reads it, else the public one."""
    found = next((os.environ[name] for name in _VARIABLES if os.environ.get(name)), NPM)
    parts = urlsplit(found)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username is not None:
        raise Invalid(
            "npm_config_registry is not a plain http(s) address",
            hint=f"Try: npm_config_registry={NPM}",
        )
    return found.rstrip("/") + "/"


class Registry:
    """Archives by name and version; `cache` is made if it can be."""

    def __init__(self, *, url: str, cache: Path) -> None:
        self._url = url
        self._cache = cache

    def archive(self, package: Package) -> bytes:
        """The very archive that was declared. Raises Unavailable; takes its time, so use a thread."""
        place = self._cache / f"{_hex(package.integrity)}.tgz"
        with suppress(OSError):
            kept = place.read_bytes()
            if matches(kept, package.integrity):
                return kept
        data = self._fetch(package)
        if not matches(data, package.integrity):
            raise Unavailable(
                f"{self._url} sent {len(data)} bytes for {package.shown} that are not that package:"
                " their sha512 is another",
                hint=f"Nothing was installed. {_HINT}",
            )
        with suppress(OSError):
            self._cache.mkdir(parents=True, exist_ok=True)
            atomic.write(place, data, mode=0o644)
        return data

    def _fetch(self, package: Package) -> bytes:
        url = self._url + quote(package.path, safe="/@")
        try:
            with urllib.request.urlopen(url, timeout=_SILENCE_S) as answer:  # noqa: S310  see address
                return _read(answer, url)
        except urllib.error.HTTPError as error:
            error.close()
            raise Unavailable(f"{url} answers {error.code} {error.reason}", hint=_HINT) from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise Unavailable(f"{url} cannot be fetched: {reason}", hint=_HINT) from error


def _read(answer: object, url: str) -> bytes:
    """All of a body, within bounds of size and time."""
    read = answer.read1  # type: ignore[attr-defined]  # urllib's answer has no public type
    until, data = time.monotonic() + _TOTAL_S, bytearray()
    while chunk := read(_CHUNK):
        data += chunk
        if len(data) > ARCHIVE_BYTES:
            raise Unavailable(f"{url} sends over {ARCHIVE_BYTES} bytes", hint=_HINT)
        if time.monotonic() > until:
            raise Unavailable(f"{url} took over {_TOTAL_S:g} s", hint=_HINT)
    return bytes(data)


def _hex(integrity: str) -> str:
    return base64.b64decode(integrity.partition("-")[2]).hex()
