"""The cloud's own keys: files in control's folder, made once, mode 0600.

The host key of a VM is derived from a seed and the VM's id instead of being stored: asking the
engine again after a crash gives the VM the same key, and the journal never holds a private one.
Whoever reads this folder could sign host certificates anyway, so the seed gives nothing more away.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import asyncssh
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from atoll.base import atomic
from atoll.base.secret import base64url
from atoll.services.keyring import KeyRing

_SKEW_S = 3600  # clocks of VMs and clients may be behind ours
_HOST_DAYS = 3650  # refreshed at every start and rename; the key dies with the VM


class Keys:
    """The gateway's host key, the two SSH authorities, keys of tokens and links, and the VM seed."""

    def __init__(self, folder: Path, *, now: Callable[[], float] = time.time) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._now = now
        self.host_key_path = _key_file(folder / "host_key")
        self.host_key_public = _public(asyncssh.read_private_key(self.host_key_path))
        self._user_ca = asyncssh.read_private_key(_key_file(folder / "user_ca"))
        self._host_ca = asyncssh.read_private_key(_key_file(folder / "host_ca"))
        # Seals answers, and signed tokens too until there was a ring.
        old = folder / "session_key"
        signed_before = old.exists()
        self.session_key = _secret(old)
        self.tokens = KeyRing(
            folder / "token_keys.json",
            nameless=self.session_key if signed_before else None,
            now=now,
        )
        self._vm_seed = _secret(folder / "vm_seed")
        self._link_key = _secret(folder / "link_key")
        self.address_key = _secret(folder / "address_key")  # see domain.vm_address
        self.user_ca_public = _public(self._user_ca)
        self.host_ca_public = _public(self._host_ca)

    def host_certificate(self, public_key: str, principals: Sequence[str]) -> str:
        """A certificate line by the host CA that lets a key speak for `principals`.

        Valid since ever: a clock that is set back must not make a VM a stranger.
        """
        return _line(
            self._host_ca.generate_host_certificate(
                asyncssh.import_public_key(public_key),
                principals[0],
                principals=list(principals),
                valid_after=0,
                valid_before=int(self._now()) + _HOST_DAYS * 86400,
            )
        )

    def user_certificate(self, public_key: str, principals: Sequence[str], seconds: float) -> str:
        """A certificate line by the user CA that logs a key in as `principals` for `seconds`."""
        now = int(self._now())
        return _line(
            self._user_ca.generate_user_certificate(
                asyncssh.import_public_key(public_key),
                principals[0],
                principals=list(principals),
                valid_after=now - _SKEW_S,
                valid_before=now + int(seconds),
            )
        )

    def link_code(self, link: str) -> str:
        """22 letters, the same at every call, that only we can make of a link's id."""
        code = hmac.digest(self._link_key, f"link {link}".encode(), hashlib.sha256)
        return base64url(code[:16])

    def new_host_key(self) -> tuple[str, str]:
        """A new random ed25519 key: OpenSSH PEM and public key line."""
        return _new_key()

    def vm_host_key(self, vm: str) -> tuple[str, str]:
        """The host key of a VM: OpenSSH PEM and public key line, the same at every call."""
        seed = hmac.digest(self._vm_seed, f"host key of {vm}".encode(), hashlib.sha256)
        raw = Ed25519PrivateKey.from_private_bytes(seed)
        pem = raw.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        return pem.decode(), _public(asyncssh.import_private_key(pem))


def _new_key() -> tuple[str, str]:
    key = asyncssh.generate_private_key("ssh-ed25519")
    return key.export_private_key("openssh").decode(), _public(key)


def _key_file(path: Path) -> Path:
    if not path.exists():
        private, public = _new_key()
        atomic.write(path.with_name(f"{path.name}.pub"), public.encode() + b"\n", mode=0o644)
        atomic.write(path, private.encode())
    return path


def _secret(path: Path) -> bytes:
    if not path.exists():
        atomic.write(path, secrets.token_hex(32).encode() + b"\n")
    return bytes.fromhex(path.read_text().strip())


def _public(key: asyncssh.SSHKey) -> str:
    return " ".join(key.export_public_key("openssh").decode().split()[:2])


def _line(certificate: asyncssh.SSHCertificate) -> str:
    return " ".join(certificate.export_certificate("openssh").decode().split()[:2])
