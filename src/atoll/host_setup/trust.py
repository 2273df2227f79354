"""Has this machine trust the cloud's own CA, or not any more; says how it is done elsewhere.

The CA can vouch for the cloud's domain and nothing else (a critical name constraint), so trusting it
risks no other site. Debian's `update-ca-certificates` makes the list that OpenSSL, curl, git and Python's
system builds read; browsers keep lists of their own.
"""

from __future__ import annotations

from pathlib import Path

from atoll.base import atomic, proc
from atoll.base.errors import NotFound
from atoll.config import Config

LOCAL = Path("/usr/local/share/ca-certificates")
SECONDS = 60.0  # it reads every certificate there is


def certificate(config: Config) -> str:
    """The CA in PEM. Raises NotFound before control has made it."""
    path = config.control_state / "keys" / "ca.pem"
    if not path.exists():
        raise NotFound(f"{path} is not there yet", hint="Try: atoll up")
    return path.read_text()


async def install(
    config: Config, *, folder: Path = LOCAL, options: tuple[str, ...] = ()
) -> tuple[Path, bool]:
    """Add the CA to this machine's list; where it was put, and whether that is new.

    `options` are for `update-ca-certificates`. Raises NotFound, or Unavailable without that tool.
    """
    path, pem = _path(config, folder), certificate(config)
    is_new = not path.exists() or path.read_text() != pem
    if is_new:
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write(path, pem.encode(), mode=0o644)
    await _update(options)
    return path, is_new


async def remove(
    config: Config, *, folder: Path = LOCAL, options: tuple[str, ...] = ()
) -> tuple[Path, bool]:
    """Take it off the list; where it was, and whether it was there."""
    path = _path(config, folder)
    was_there = path.exists()
    path.unlink(missing_ok=True)
    await _update((*options, "--fresh"))
    return path, was_there


def elsewhere(config: Config) -> str:
    """What to type on other machines."""
    file = f"{config.https.domain}.pem"
    return "\n".join(
        (
            f"On other machines save it first:  atoll trust --print > {file}",
            f"  Debian    cp {file} {LOCAL}/{file.removesuffix('.pem')}.crt && update-ca-certificates",
            f"  Fedora    trust anchor {file}",
            "  macOS     security add-trusted-cert -k ~/Library/Keychains/login.keychain-db "
            + file,
            f"  Windows   certutil -user -addstore Root {file}",
            "  Firefox   Settings, Certificates, Import, for web sites; Chromium on Linux:",
            f"            certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n atoll -i {file}",
            f"  once      curl --cacert {file} …",
        )
    )


def _path(config: Config, folder: Path) -> Path:
    return folder / f"{config.network.instance}-{config.https.domain}.crt"


async def _update(options: tuple[str, ...]) -> None:
    """Make the list. Always: nothing says whether the last try, which put the file there, got so far."""
    await proc.run(["update-ca-certificates", *options], seconds=SECONDS)
