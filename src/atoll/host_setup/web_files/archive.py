"""The wanted files of a package's archive. The archive is hostile until its integrity matched; even
then only files are read that were asked for by name, each up to a bound, and no path is ever followed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import tarfile
import zlib
from collections.abc import Mapping

from atoll.base.errors import Unavailable
from atoll.host_setup.web_files.declared import Package

ARCHIVE_BYTES = 8 << 20  # the largest we take, xterm.js with its source maps, is 1.4 MB
FILE_BYTES = 4 << 20
_MEMBERS = 20_000  # an archive of empty members would keep us reading
_TOP = "package/"  # npm puts everything below it


def matches(data: bytes, integrity: str) -> bool:
    """Whether `data` is the archive that `integrity` (`sha512-<base64>`) stands for."""
    kind, _, digest = integrity.partition("-")
    if kind != "sha512":
        return False
    found = base64.b64encode(hashlib.sha512(data).digest()).decode()
    return hmac.compare_digest(found, digest)


def unpack(data: bytes, package: Package) -> Mapping[str, bytes]:
    """Name here -> content. Raises Unavailable when a file is missing, no plain file, or too large."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r|gz") as archive:
            for count, member in enumerate(archive):
                if count >= _MEMBERS:
                    raise _broken(package, f"it has over {_MEMBERS} members")
                name = package.files.get(member.name.removeprefix(_TOP))
                if name is not None and member.name.startswith(_TOP):
                    found[name] = _content(archive, member, package)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise _broken(package, str(error)) from error
    missing = sorted(path for path, name in package.files.items() if name not in found)
    if missing:
        raise _broken(package, f"it has no {', '.join(missing)}")
    return found


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, package: Package) -> bytes:
    if not member.isreg():
        raise _broken(package, f"{member.name} is not a plain file")
    if member.size > FILE_BYTES:
        raise _broken(package, f"{member.name} has {member.size} bytes, {FILE_BYTES} are allowed")
    file = archive.extractfile(member)
    assert file is not None, "a plain file can be read"
    return file.read(FILE_BYTES)


def _broken(package: Package, why: str) -> Unavailable:
    return Unavailable(f"the archive of {package.shown} cannot be used: {why}")
