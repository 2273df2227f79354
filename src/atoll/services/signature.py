"""Signatures that `ssh-keygen -Y sign` makes: the format of OpenSSH's PROTOCOL.sshsig.

A blob is `SSHSIG`, version 1, public key, namespace, a reserved string, the name of a hash, and the
signature over all of these but the key, with the hash of the message. The namespace keeps a signature
made for one purpose (a file, a git commit) from passing as another.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

import asyncssh

_MAGIC = b"SSHSIG"
_VERSION = (1).to_bytes(4, "big")
_HASHES = (b"sha256", b"sha512")
# Signature algorithms by the type of the key: RSA by SHA-2 only, and no WebAuthn forms.
_ALGORITHMS: dict[str, tuple[bytes, ...]] = {
    "ssh-ed25519": (b"ssh-ed25519",),
    "ssh-rsa": (b"rsa-sha2-256", b"rsa-sha2-512"),
    "ecdsa-sha2-nistp256": (b"ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": (b"ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": (b"ecdsa-sha2-nistp521",),
    "sk-ssh-ed25519@openssh.com": (b"sk-ssh-ed25519@openssh.com",),
    "sk-ecdsa-sha2-nistp256@openssh.com": (b"sk-ecdsa-sha2-nistp256@openssh.com",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A blob taken apart; nothing is verified yet."""

    key: bytes  # the public key as on the wire
    namespace: bytes
    hash_name: bytes
    signed: bytes  # algorithm and value, as on the wire

    @property
    def fingerprint(self) -> str:
        """Of the key, as `ssh-keygen -l` prints it."""
        digest = base64.b64encode(hashlib.sha256(self.key).digest()).decode()
        return f"SHA256:{digest.rstrip('=')}"


def parse(blob: bytes) -> Signature | None:
    """The parts of a blob, or None when it is not exactly one."""
    head = _MAGIC + _VERSION
    strings = _strings(blob[len(head) :]) if blob.startswith(head) else None
    if strings is None or len(strings) != 5:
        return None
    key, namespace, reserved, hash_name, signed = strings
    if reserved or hash_name not in _HASHES:
        return None
    return Signature(key=key, namespace=namespace, hash_name=hash_name, signed=signed)


def verifies(signature: Signature, message: bytes, *, namespace: str, key_line: str) -> bool:
    """True when the key of `key_line` (type and base64) made it over `message` for `namespace`."""
    kind, _, encoded = key_line.partition(" ")
    if signature.namespace != namespace.encode() or base64.b64decode(encoded) != signature.key:
        return False
    algorithm, _ = _string(signature.signed, 0) or (b"", 0)
    if algorithm not in _ALGORITHMS.get(kind, ()):
        return False
    digest = hashlib.new(signature.hash_name.decode(), message).digest()
    data = _MAGIC + b"".join(
        len(part).to_bytes(4, "big") + part
        for part in (signature.namespace, b"", signature.hash_name, digest)
    )
    key = asyncssh.import_public_key(key_line)
    key.set_touch_required(True)  # a security key says so in the signature; others take no notice
    try:
        return key.verify(data, signature.signed)
    except (asyncssh.Error, ValueError, OverflowError):  # numbers of a signature out of range
        return False


def _strings(data: bytes) -> list[bytes] | None:
    """All length-prefixed strings in `data`; None when it does not end with the last of them."""
    found, at = [], 0
    while at < len(data):
        read = _string(data, at)
        if read is None:
            return None
        value, at = read
        found.append(value)
    return found


def _string(data: bytes, at: int) -> tuple[bytes, int] | None:
    start = at + 4
    end = start + int.from_bytes(data[at:start], "big")
    return (data[start:end], end) if end <= len(data) else None
