"""Which certificates an ACME server is asked for, and when. Pure.

Invariants: a certificate is renewed when two thirds of its life are over, or when the server says;
what failed is tried again after 1 minute, then 4, 16, 64, at most 6 hours, never before the server
allows; the state is small enough to be a file, so a restart asks no sooner than the process before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

FIRST_WAIT_S = 60.0
# Four attempts in the first hour: Let's Encrypt allows five failures per name and hour.
WAIT_FACTOR = 4
LONGEST_WAIT_S = 6 * 3600.0
LONGEST_HELD_S = 7 * 86400.0  # whatever a server asks for; Let's Encrypt's longest is a week
JITTER = 0.2  # of a wait, so that many machines behind one outage do not return together
_PROBLEM_CHARACTERS = 500
_STEM_CHARACTERS = 200  # a file name has 255 at most


class Proof(StrEnum):
    """How the server is shown that a name is ours."""

    HTTP = "http-01"
    DNS = "dns-01"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One certificate: the names it is for and how they are proven."""

    hosts: tuple[str, ...]
    proof: Proof

    @property
    def stem(self) -> str:
        """What its files are called."""
        return stem(self.hosts[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is known of one certificate besides itself; all zero: nothing was tried."""

    failures: int = 0
    problem: str = ""
    next_attempt: float = 0.0  # no attempt before
    failed_at: float = 0.0
    renew_at: float = 0.0  # as the server suggests; 0: it does not
    ask_at: float = 0.0  # when to ask it again


def stem(host: str) -> str:
    """A file name for a host's certificate."""
    if len(host) <= _STEM_CHARACTERS:
        return host
    return f"{host[:100]}.{hashlib.sha256(host.encode()).hexdigest()[:32]}"


def wanted(
    domain: str, *, vms: Iterable[str], custom: Iterable[str], has_dns: bool
) -> tuple[Wanted, ...]:
    """The certificates a cloud needs, the most important first.

    With proof by DNS one wildcard serves every VM, else each VM's host has its own.
    """
    if has_dns:
        own = [Wanted(hosts=(domain, f"*.{domain}"), proof=Proof.DNS)]
    else:
        hosts = (domain, *(f"{vm}.{domain}" for vm in sorted(vms)))
        own = [Wanted(hosts=(host,), proof=Proof.HTTP) for host in hosts]
    return (*own, *(Wanted(hosts=(name,), proof=Proof.HTTP) for name in sorted(custom)))


def renewal(begin: float, end: float, standing: Standing) -> float:
    """When to renew a certificate that is valid from `begin` to `end`."""
    usual = begin + (end - begin) * 2 / 3
    return min(standing.renew_at, end) if standing.renew_at else usual


def failed(
    standing: Standing, problem: str, *, now: float, jitter: float, at_least: float = 0.0
) -> Standing:
    """After a failure. `jitter` is a random number from 0 to 1, `at_least` what the server asked for."""
    wait = min(FIRST_WAIT_S * WAIT_FACTOR ** min(standing.failures, 10), LONGEST_WAIT_S)
    wait *= 1 + JITTER * jitter
    return replace(
        standing,
        failures=standing.failures + 1,
        problem=problem[:_PROBLEM_CHARACTERS],
        next_attempt=now + min(max(wait, at_least), LONGEST_HELD_S),
        failed_at=now,
    )


def next_look(due: float, standing: Standing, *, now: float) -> float:
    """When the next attempt may be made for something that is `due` then.

    A clock that has been set back since the last failure must not make anybody wait for longer.
    """
    if not standing.failures or now < standing.failed_at:
        return due
    return max(due, standing.next_attempt)
