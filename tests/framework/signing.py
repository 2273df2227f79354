"""Keys and tokens as users make them: by the real `ssh-keygen`."""

from __future__ import annotations

import base64
import subprocess
from dataclasses import dataclass
from pathlib import Path

NAMESPACE = "v0@atoll.localhost"


@dataclass(frozen=True, slots=True)
class SshKeyFile:
    """A key pair on disk."""

    path: Path

    @classmethod
    def new(cls, folder: Path, name: str, *kind: str) -> SshKeyFile:
        """Make one; `kind` is what follows `-t`, ed25519 if nothing does."""
        path = folder / name
        _run("-q", "-t", *(kind or ("ed25519",)), "-N", "", "-C", name, "-f", str(path))
        return cls(path)

    @property
    def line(self) -> str:
        """Type and base64."""
        return " ".join(self.path.with_suffix(".pub").read_text().split()[:2])

    def sign(self, message: bytes, *, namespace: str = NAMESPACE, hash_name: str = "") -> bytes:
        """The blob of `ssh-keygen -Y sign`, without its armour."""
        more = ("-O", f"hashalg={hash_name}") if hash_name else ()
        armoured = _run(
            "-Y", "sign", "-q", "-n", namespace, "-f", str(self.path), *more, stdin=message
        )
        return base64.b64decode(b"".join(armoured.splitlines()[1:-1]))

    def token(
        self, permission: str = "{}", *, namespace: str = NAMESPACE, prefix: str = "atoll0"
    ) -> str:
        """A token with this permission."""
        message = permission.encode()
        return f"{prefix}.{b64url(message)}.{b64url(self.sign(message, namespace=namespace))}"


def b64url(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _run(*arguments: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(
        ["ssh-keygen", *arguments], input=stdin, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
