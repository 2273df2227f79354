"""Random data to send through something, and its checksum."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def blob(path: Path, size_mb: int) -> str:
    """Writes random data; its SHA-256."""
    summed = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(size_mb):
            part = os.urandom(1 << 20)
            summed.update(part)
            file.write(part)
    return summed.hexdigest()


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
