"""The person who typed the command, and the SSH key that makes them known to the cloud."""

from __future__ import annotations

import os
import pwd
import socket
from dataclasses import dataclass
from pathlib import Path

from atoll.base.proc import run

KEY_NAMES = ("id_ed25519", "id_ecdsa", "id_rsa")  # the order ssh itself prefers them here
KEYGEN_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A Unix user with a home."""

    name: str
    uid: int
    gid: int
    home: Path

    @property
    def email(self) -> str:
        """An address to name their account by; nothing is ever sent to it."""
        return os.environ.get("ATOLL_EMAIL") or f"{self.name}@{socket.gethostname()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An SSH key pair on disk. `is_usable`: the private half is there and has no passphrase."""

    private: Path
    line: str
    is_new: bool
    is_usable: bool


def caller() -> Person:
    """Who is behind sudo, or the user of this process."""
    name = os.environ.get("SUDO_USER", "")
    entry = pwd.getpwnam(name) if name else pwd.getpwuid(os.getuid())
    return Person(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid, home=Path(entry.pw_dir))


def become(person: Person) -> None:
    """Give up root for good; nothing to do for anybody else."""
    if os.geteuid() == 0 and person.uid != 0:
        os.initgroups(person.name, person.gid)
        os.setgid(person.gid)
        os.setuid(person.uid)


async def ensure_key(person: Person) -> Key:
    """The person's own key, made without a passphrase when there is none."""
    folder = person.home / ".ssh"
    found = next((folder / name for name in KEY_NAMES if _public(folder / name).exists()), None)
    private = found or folder / KEY_NAMES[0]
    if found is None:
        await _make(private, person)
    # `type base64`: the comment is a label, not part of the key
    line = " ".join(_public(private).read_text().split()[:2])
    return Key(private=private, line=line, is_new=found is None, is_usable=await _opens(private))


async def temporary_key(folder: Path) -> Key:
    """A key pair for one run of `atoll up`, where the person's own needs a passphrase."""
    private = folder / "setup_key"
    for path in (private, _public(private)):
        path.unlink(missing_ok=True)
    await _keygen(private, comment="atoll-setup")
    line = " ".join(_public(private).read_text().split()[:2])
    return Key(private=private, line=line, is_new=True, is_usable=True)


async def _make(private: Path, person: Person) -> None:
    """As the person, not as root: what root writes in a home may follow a link out of it."""
    await run([*_as(person), "install", "-d", "-m", "700", str(private.parent)], seconds=KEYGEN_S)
    await _keygen(private, comment=f"{person.name}@{socket.gethostname()}", prefix=_as(person))


async def _keygen(private: Path, *, comment: str, prefix: tuple[str, ...] = ()) -> None:
    await run(
        [*prefix, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(private)],
        seconds=KEYGEN_S,
    )


def _as(person: Person) -> tuple[str, ...]:
    if person.uid == os.geteuid():
        return ()
    return ("setpriv", "--reuid", str(person.uid), "--regid", str(person.gid), "--init-groups")


async def _opens(private: Path) -> bool:
    finished = await run(
        ["ssh-keygen", "-y", "-P", "", "-f", str(private)], seconds=KEYGEN_S, check=False
    )
    return finished.code == 0


def _public(private: Path) -> Path:
    return private.with_name(private.name + ".pub")
