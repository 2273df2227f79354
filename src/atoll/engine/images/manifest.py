"""The record beside a finished image: what it holds, where it came from, how its files must be.

Invariant: a folder with a readable manifest whose sizes match was built to its end.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from atoll.base.errors import Unavailable

NAME = "manifest.json"
FORMAT = 1
DISK, KERNEL, INITRD = "disk.qcow2", "vmlinuz", "initrd"
_CHUNK = 1 << 20

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Damaged(Unavailable):
    """An image on disk is not what its manifest says."""

    code = "image-damaged"


class File(BaseModel):
    """What one file of the image must be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(ge=1)
    sha256: Sha256


class Manifest(BaseModel):
    """The facts of one built image.

    `tree_sha256` covers every path, mode, owner and content of the root file system: equal for two
    builds of one recipe from the same archive state, and so are `files` if the tools are of one
    version. `packages` maps names to versions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    name: str
    digest: str
    suite: str
    architecture: str
    kernel: str
    cmdline: str
    cmdline_tcg: str
    default_port: int
    login_user: str
    virtual_bytes: int
    built_at: str
    build_seconds: float
    archive_date: str
    tree_sha256: Sha256
    tools: dict[str, str]
    files: dict[str, File]
    packages: dict[str, str]


def read(folder: Path) -> Manifest:
    """The manifest in `folder`. Raises Damaged when it is missing or not one of ours."""
    try:
        manifest = Manifest.model_validate_json((folder / NAME).read_bytes())
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise Damaged(f"{folder / NAME}: {reason}", hint="It is built anew when needed") from error
    if manifest.format != FORMAT or set(manifest.files) != {DISK, KERNEL, INITRD}:
        raise Damaged(f"{folder / NAME}: format {manifest.format} or files are not ours")
    return manifest


def check_quick(folder: Path) -> Manifest:
    """`read`, and every file has its size. Raises Damaged."""
    manifest = read(folder)
    if folder.name != f"{manifest.name}-{manifest.digest}":
        raise Damaged(f"{folder} holds the image {manifest.name}-{manifest.digest}")
    for name, expected in manifest.files.items():
        try:
            size = (folder / name).stat().st_size
        except OSError as error:
            raise Damaged(f"{folder / name}: {error.strerror}") from error
        if size != expected.size:
            raise Damaged(f"{folder / name} has {size} bytes instead of {expected.size}")
    return manifest


def check_full(folder: Path) -> Manifest:
    """`check_quick`, and every file has its hash (about a second per GiB). Raises Damaged."""
    manifest = check_quick(folder)
    for name, expected in manifest.files.items():
        if describe(folder / name) != expected:
            raise Damaged(f"{folder / name} is not the file that was built")
    return manifest


def describe(path: Path) -> File:
    """Size and hash of `path` as it is now."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha.update(chunk)
    return File(size=path.stat().st_size, sha256=sha.hexdigest())
