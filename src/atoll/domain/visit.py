"""One request that a VM's web address got, or several alike. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MANY = "*"  # in place of what differed among requests that are counted together


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """Who asked for what, and how it was answered. `account` is empty for whoever did not sign in."""

    at: float  # when the last of them began
    account: str
    by: str  # what let them in: `cookie`, `token` or nothing
    method: str
    port: int  # inside
    path: str  # without the query, which may hold secrets
    status: int
    bytes: int  # sent to the client, all of them together
    ms: int  # until the end of the slowest
    source: str
    is_let_in: bool  # the VM was asked; else the edge refused
    count: int = 1
