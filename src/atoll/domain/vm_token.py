"""A token that opens one VM's web address. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MAX_CTX_BYTES = 1024  # HAProxy keeps as much free in a request for the headers it adds


@dataclass(frozen=True, slots=True, kw_only=True)
class VmToken:
    """Who comes with it, and until when. Of the token only its hash is known."""

    vm_name: str
    hash: str  # SHA-256, hex
    account: str
    email: str
    until: float | None = None  # None: it does not end
    ctx: str | None = None  # compact ASCII JSON for the program in the VM
