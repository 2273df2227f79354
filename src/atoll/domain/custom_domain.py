"""A name of one's own for a VM: which names may be one, and what their DNS must say. Pure.

Invariant: what `check` returns is a host name in lower case A-labels, outside the cloud's own domain,
so a table of such names can never redefine the cloud's or a VM's own host.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import idna

from atoll.base.errors import Invalid

MAX_LENGTH = 253
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_HINT = "Try: domain add web www.example.com"
# Names no registry hands out, so that no public CA signs and no DNS outside a network answers.
_NOWHERE = frozenset(
    ["localhost", "local", "internal", "invalid", "test", "onion", "arpa", "example", "alt"]
)
# Second levels under which registries of countries hand out names: one of these is nobody's own.
_SECOND_LEVELS = frozenset(["ac", "co", "com", "edu", "gob", "gov", "go", "ne", "net", "or", "org"])


def check(text: str, *, own: str) -> str:
    """The domain as DNS spells it. Raises Invalid for what cannot be somebody's own name.

    `own` is the cloud's domain: names at or below it are given by the cloud, not added.
    """
    name = _spelled(text)
    labels = name.split(".")
    if len(labels) < 2:
        raise Invalid(f"{name[:80]!r} is a single word, not a domain", hint=_HINT)
    if name == own or name.endswith(f".{own}"):
        raise Invalid(
            f"{name} is a name of this cloud; its VMs have theirs already", hint="Try: share show"
        )
    if labels[-1] in _NOWHERE and not own.endswith(f".{labels[-1]}"):
        raise Invalid(f"no name under .{labels[-1]} can be found by others", hint=_HINT)
    if own.endswith(f".{name}") or _is_registry(labels):
        raise Invalid(f"{name} is a suffix that others' names share", hint=_HINT)
    return name


def _is_registry(labels: Sequence[str]) -> bool:
    """`co.uk` and its like: of two letters, below which a registry sells names."""
    return len(labels) == 2 and len(labels[1]) == 2 and labels[0] in _SECOND_LEVELS


def _spelled(text: str) -> str:
    """Lower-case A-labels, without the root's dot."""
    text = text.strip().removesuffix(".")
    if text.startswith("*."):
        raise Invalid(
            f"{text[:80]!r}: a wildcard needs proof by DNS, which is not offered for custom domains",
            hint="Add each name by itself: domain add web www.example.com",
        )
    if _is_address(text):
        raise Invalid(f"{text[:80]!r} is an address, not a domain", hint=_HINT)
    try:
        name = text.lower() if text.isascii() else idna.encode(text, uts46=True).decode()
        if "xn--" in name:
            idna.decode(name)  # an A-label that stands for nothing, or for what IDNA forbids
    except (idna.IDNAError, UnicodeError) as error:
        raise Invalid(f"{text[:80]!r} is not a domain: {error}"[:300], hint=_HINT) from error
    if len(name) > MAX_LENGTH or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise Invalid(f"{text[:80]!r} is not a domain", hint=_HINT)
    return name


def _is_address(text: str) -> bool:
    """Also what readers of `127.1` or `0x7f.1` take for one: no top level begins with a digit."""
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return text.rpartition(".")[2][:1].isdigit()
    return True


@dataclass(frozen=True, slots=True)
class Found:
    """What DNS says of a domain: the names its CNAMEs lead through, and its addresses at last."""

    aliases: tuple[str, ...] = ()
    addresses: frozenset[str] = frozenset()


def verdict(domain: str, found: Found, *, target: str, ours: Iterable[str]) -> tuple[str, str]:
    """What is wrong and what is expected; two empty texts when the domain leads to us.

    `target` is the VM's host, `ours` the addresses that the cloud's own domain has.
    """
    ours = frozenset(ours)
    others = [name for name in found.aliases if name.endswith(f".{target.partition('.')[2]}")]
    if others and target not in others:  # whoever set that meant somebody else's VM
        found = Found(aliases=found.aliases)
    if target in found.aliases or (found.addresses and found.addresses <= ours):
        return "", ""
    expected = f"{domain} CNAME {target}"
    if ours:
        expected += f" (or, where no CNAME may be, A/AAAA {' '.join(sorted(ours))})"
    if found.addresses & ours:
        strange = ", ".join(sorted(found.addresses - ours))
        return f"{domain} also leads to {strange}, which is not this cloud", expected
    if found.aliases:
        return f"{domain} is a CNAME to {found.aliases[-1]}", expected
    if found.addresses:
        return f"{domain} leads to {', '.join(sorted(found.addresses))}", expected
    return f"DNS has no {domain}", expected
