"""Which machine a user means: the SSH user name, and the host name of a forward. Pure.

A user name is a VM's name, `vm+<name>`, or anything else, which means the lobby: OpenSSH sends the
local user name when none is typed, so `ssh host ls` arrives as `ann`. The price is that a misspelt
VM name reaches the lobby too; `mistaken` catches what looks like one before a command runs there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

LOBBY_USERS = frozenset(["atoll", "lobby", "root"])  # never a VM: domain.name reserves them
_EXPLICIT = "vm+"


@dataclass(frozen=True, slots=True)
class Target:
    """`vm` is the name to look up, or None for the lobby; `must_exist` forbids falling back."""

    vm: str | None
    must_exist: bool = False
    address: str = ""  # the VM's own, if that was dialled and not a name


def of_address(address: str, vm: str | None) -> Target:
    """Whoever dials an address for VMs means that VM, whatever the user name; `vm` is None for nobody's.

    The user name is then the client's affair: it logs in as the VM's login user.
    """
    return Target(vm or "", must_exist=True, address=address)


def of_user(user: str) -> Target:
    """What to look up for an SSH user name."""
    if user.startswith(_EXPLICIT):
        return Target(user.removeprefix(_EXPLICIT), must_exist=True)
    if user in LOBBY_USERS or not user:
        return Target(None)
    return Target(user)


def mistaken(user: str, vms: Iterable[str]) -> str | None:
    """The VM that `user` is probably a misspelling of: one letter or one swap away, or None."""
    if user in LOBBY_USERS or len(user) < 3:
        return None
    return next((vm for vm in vms if vm != user and _is_one_slip(user, vm)), None)


def _is_one_slip(one: str, other: str) -> bool:
    """Whether a single letter added, left out, wrong or swapped with the next tells them apart."""
    short, long = sorted((one, other), key=len)
    start = next((i for i, letter in enumerate(short) if letter != long[i]), len(short))
    if len(long) - len(short) == 1:
        return short[start:] == long[start + 1 :]
    if len(long) != len(short):
        return False
    a, b = short[start:], long[start:]
    return a[1:] == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])


def of_host(host: str, domain: str) -> str:
    """The VM name in `web`, `web.atoll`, `web.<domain>` or `web.<first label of domain>`.

    Any other name comes back unchanged: it then names no VM, and the forward is refused.
    """
    host = host.lower().rstrip(".")
    for suffix in (domain, domain.partition(".")[0], "atoll"):
        name = host.removesuffix("." + suffix)
        if name != host and "." not in name:
            return name
    return host
