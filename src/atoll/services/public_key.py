"""A public SSH key as a user hands it over: checked, and reduced to its type and base64."""

from __future__ import annotations

from dataclasses import dataclass

import asyncssh

from atoll.base.errors import Invalid

_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A checked public key: `line` is type and base64."""

    line: str
    fingerprint: str
    comment: str


def parse_key(text: str) -> PublicKey:
    """Check a line of an authorized_keys file without options.

    Raises Invalid for anything but one plain public key of a kind that is still safe.
    """
    hint = "Try: ssh-key add 'ssh-ed25519 AAAA… name', the content of your .pub file"
    words = text.split(None, 2)
    if len(words) < 2 or words[0] not in _TYPES or len(text) > 16_384:
        raise Invalid("not a public SSH key of a known kind", hint=hint)
    line = f"{words[0]} {words[1]}"
    try:
        key = asyncssh.import_public_key(line)
    except (
        asyncssh.KeyImportError,
        ValueError,
        OverflowError,
    ) as error:  # the last: n or e below 0
        raise Invalid(f"not a public SSH key: {str(error)[:100]}", hint=hint) from error
    # Base64 is read past bytes that do not belong there; they would go on into every VM's files.
    if " ".join(key.export_public_key().decode().split()[:2]) != line:
        raise Invalid("not a public SSH key: its text is damaged", hint=hint)
    bits = getattr(getattr(key, "pyca_key", None), "key_size", None)
    if words[0] == "ssh-rsa" and (bits or 0) < 2048:
        raise Invalid(f"an RSA key of {bits} bits is too weak", hint="Try: ssh-keygen -t ed25519")
    return PublicKey(
        line=line,
        fingerprint=key.get_fingerprint(),
        comment=words[2].strip() if len(words) > 2 else "",
    )
