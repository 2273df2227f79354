"""Which certificate answers which name. Pure.

Invariants: the default certificate is always there, so HAProxy can start; an exact name has at most one
certificate, so the choice never depends on an order; one of the ACME server is served to its last day,
and the own CA's comes back only after that, which `atoll doctor` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from atoll.services.certificates.shelf import Kept

DEFAULT = "edge.pem"


@dataclass(frozen=True, slots=True)
class Serving:
    """File name -> PEM of key and chain. `default` None: the own CA's leaf."""

    default: bytes | None
    others: Mapping[str, bytes]


def choose(kept: Mapping[str, Kept], domain: str, *, now: float) -> Serving:
    """What to serve of the certificates there are, by their stem.

    The cloud's own names have another certificate to fall back to, so an expired one goes; a custom
    domain has none, and its visitors are told better by an expired one than by one for another name.
    """
    wildcard = f"*.{domain}"
    default: bytes | None = None
    others: dict[str, bytes] = {}
    for name, one in kept.items():
        is_own = any(host == domain or host.endswith(f".{domain}") for host in one.hosts)
        if is_own and one.end <= now:
            continue
        if wildcard in one.hosts:
            default = one.pem
        else:
            others[f"{name}.pem"] = one.pem
    return Serving(default, others)


def crt_list(folder: Path, domain: str, others: Mapping[str, bytes]) -> str:
    """The list HAProxy reads: the first entry answers whatever no other does.

    Its filter leaves the exact names to the others: among equals HAProxy would take the first.
    """
    rest = "".join(f"{folder / name}\n" for name in sorted(others))
    return f"{folder / DEFAULT} *.{domain}\n{rest}"
