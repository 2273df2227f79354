"""Files the pages load: ours from the package, those from npm from beside it; all in memory.

A file's URL holds its content's hash, so that browsers keep it for ever and never use an old one. Any
other name below /static/ does not exist: no request reaches the file system.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from atoll.base.errors import Internal, Unavailable

OWN = Path(__file__).with_name("static")
_PREFIX = "/static/"
_HASH = 16  # hex digits
_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
_FOR_EVER = "public, max-age=31536000, immutable"


def vendored() -> Path:
    """Where `atoll up` puts the files from npm: beside the Python packages."""
    return Path(sys.prefix) / "share" / "atoll" / "web"


def for_tests() -> Path:
    """Where a developer's environment has what only tests load."""
    return vendored().with_name("web-tests")


@dataclass(frozen=True, slots=True)
class Asset:
    """One file; `packed` is empty where gzip saves nothing."""

    name: str
    url: str
    kind: str
    data: bytes
    packed: bytes


class Assets:
    """Every file of `folders`, read once."""

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        """Without `folders`: our own and those from npm. Raises Unavailable when one is missing."""
        self._by_name: dict[str, Asset] = {}
        for folder in folders or (OWN, vendored()):
            for asset in _read(folder):
                if asset.name in self._by_name:
                    raise Internal(f"two files of the page are called {asset.name}")
                self._by_name[asset.name] = asset

    def url(self, name: str) -> str:
        """Where a page finds `name`; raises Internal for one that does not exist."""
        return self.asset(name).url

    def asset(self, name: str) -> Asset:
        """The file called `name`; raises Internal when there is none: pages name what exists."""
        try:
            return self._by_name[name]
        except KeyError:
            raise Internal(f"the page has no file {name}") from None

    def routes(self) -> list[Route]:
        """One for each file, and none for any other name."""
        return [
            Route(asset.url, partial(_answer, asset), methods=["GET"])
            for asset in self._by_name.values()
        ]


async def _answer(asset: Asset, request: Request) -> Response:
    """The file, packed for who accepts it."""
    headers = {"cache-control": _FOR_EVER, "vary": "accept-encoding"}
    if asset.packed and accepts_gzip(request.headers.get("accept-encoding", "")):
        headers["content-encoding"] = "gzip"
        return Response(asset.packed, media_type=asset.kind, headers=headers)
    return Response(asset.data, media_type=asset.kind, headers=headers)


def accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding header names gzip and does not rule it out with a weight of 0."""
    for one in header.lower().split(","):
        coding, _, weight = one.partition(";")
        if coding.strip() in ("gzip", "x-gzip"):
            return not re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight)
    return False


def _read(folder: Path) -> list[Asset]:
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix in _TYPES)
        return [_asset(path.name, path.read_bytes()) for path in paths]
    except OSError as error:
        raise Unavailable(
            f"files of the web page are missing: {error.strerror}: {error.filename}",
            hint="Try: make up (in a checkout: make check)",
        ) from error


def _asset(name: str, data: bytes) -> Asset:
    stem, _, suffix = name.rpartition(".")
    digest = hashlib.sha256(data).hexdigest()[:_HASH]
    packed = gzip.compress(data, 9, mtime=0)
    return Asset(
        name=name,
        url=f"{_PREFIX}{stem}.{digest}.{suffix}",
        kind=_TYPES[f".{suffix}"],
        data=data,
        packed=packed if len(packed) < len(data) else b"",
    )
