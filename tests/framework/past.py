"""Pools and stores of earlier releases, as tests/past keeps them."""

from __future__ import annotations

import contextlib
import sqlite3
import tarfile
from pathlib import Path

KEPT = Path(__file__).parent.parent / "past"
POOLS = tuple(sorted(path.name.split(".")[0] for path in (KEPT / "pools").iterdir()))
STORES = tuple(sorted(path.name.split(".")[0] for path in (KEPT / "stores").iterdir()))
CONFIGS = {path.stem: path for path in sorted((KEPT / "configs").iterdir())}
TEMPLATE = "tmpl-000000000001"  # the rest are the names in tests/past/write_pool.py
PARENT, CHILD, PAUSED, STOPPED, HALF, COPY = (f"vm-{n:012}" for n in range(1, 7))


def unpack(release: str, pool: Path) -> None:
    """The pool that `release` left, as the new folder `pool`."""
    pool.mkdir(parents=True)
    with tarfile.open(KEPT / "pools" / f"{release}.tar.xz") as tar:
        # Python 3.12 warns without one, Debian's 3.11 has none.
        tar.extraction_filter = getattr(tarfile, "fully_trusted_filter", None)
        tar.extractall(pool)


def restore(release: str, database: Path) -> None:
    """The store that `release` left, as the new file `database`."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript((KEPT / "stores" / f"{release}.sql").read_text())
