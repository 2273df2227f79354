"""What the edge lets through: published VMs in, HAProxy's maps out. Pure.

Invariant: deny by default. A host that is not in `hosts` is unknown, `host|account` that is not in
`grants` has no access, and only an explicit `public` opens the default port of a running VM.

`hosts` has one value per VM, `address:port:visibility`, because HAProxy replaces one value
atomically: a request never sees the address of one VM with the visibility of another. The address
is `-` while the VM does not run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from atoll.domain.account import Published

HOSTS, GRANTS, REVOKED = "hosts", "grants", "revoked"
KEYS, TOKENS = "keys", "tokens"
NOT_RUNNING = "-"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_KEY = re.compile(r"[0-9A-Za-z._-]{1,80}")  # what may stand in a map without being two words

Table = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Maps:
    """The tables HAProxy looks things up in."""

    hosts: Table = field(default_factory=dict)  # vm host -> address:port:public|private
    grants: Table = field(default_factory=dict)  # vm host|account id -> web
    revoked: Table = field(default_factory=dict)  # session key -> account id
    keys: Table = field(default_factory=dict)  # key id -> key text, see services.keyring
    tokens: Table = field(default_factory=dict)  # see doors.edge.tickets

    def tables(self) -> dict[str, Table]:
        """By map name."""
        return {
            HOSTS: self.hosts,
            GRANTS: self.grants,
            REVOKED: self.revoked,
            KEYS: self.keys,
            TOKENS: self.tokens,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One entry of one map to add, to change (`replaces`) or to remove (no value)."""

    table: str
    key: str
    value: str | None = None
    replaces: bool = False


def maps(
    published: Iterable[Published],
    revoked: Table,
    *,
    domain: str,
    block: IPv4Network,
    keys: Table | None = None,
    tokens: Table | None = None,
) -> Maps:
    """The maps for these VMs, revoked sessions (session key -> account id) keys of tokens, and tokens.

    A VM whose values could not stand in a map (a blank, a newline) or whose address is not one of
    the VMs' `block` is left out: it is then unknown, which denies.
    """
    hosts: dict[str, str] = {}
    grants: dict[str, str] = {}
    for vm in published:
        host = f"{vm.vm_name}.{domain}"
        if not _is_sound(vm, block) or host in hosts:
            continue
        visibility = "public" if vm.is_public else "private"
        hosts[host] = f"{vm.address or NOT_RUNNING}:{vm.port}:{visibility}"
        grants |= {f"{host}|{account}": "web" for account in vm.accounts if _KEY.fullmatch(account)}
    return Maps(
        hosts=hosts,
        grants=grants,
        revoked={
            key: account
            for key, account in revoked.items()
            if _KEY.fullmatch(key) and _KEY.fullmatch(account)
        },
        keys=keys or {},
        tokens=tokens or {},
    )


def _is_sound(vm: Published, block: IPv4Network) -> bool:
    if not (_NAME.fullmatch(vm.vm_name) and 1 <= vm.port <= 65535):
        return False
    if vm.address is None:
        return True
    try:
        return IPv4Address(vm.address) in block
    except ValueError:
        return False


def changes(old: Maps, new: Maps) -> tuple[Change, ...]:
    """Steps from `old` to `new`, in an order that never opens more than one of the two does.

    First everything that takes access away (revocations, withdrawn grants, hosts gone or changed),
    then what gives it. A key opens nothing by itself.
    """
    signing = (*_set(KEYS, old.keys, new.keys), *_removed(KEYS, old.keys, new.keys))
    revoke = _set(REVOKED, old.revoked, new.revoked)
    ended = _removed(TOKENS, old.tokens, new.tokens)
    withdraw = _removed(GRANTS, old.grants, new.grants)
    gone = _removed(HOSTS, old.hosts, new.hosts)
    moved = _set(HOSTS, old.hosts, new.hosts)
    grant = _set(GRANTS, old.grants, new.grants)
    admit = _set(TOKENS, old.tokens, new.tokens)
    forget = _removed(REVOKED, old.revoked, new.revoked)
    return (*signing, *revoke, *ended, *withdraw, *gone, *moved, *grant, *admit, *forget)


def cut(old: Maps, new: Maps) -> frozenset[str]:
    """Addresses of VMs whose open streams must end: somebody lost access, or the VM moved away.

    HAProxy checks a request when it begins, so a WebSocket that is already open has to be ended.
    """
    hosts = {host for host, value in old.hosts.items() if _loses(value, new.hosts.get(host))}
    hosts |= {key.partition("|")[0] for key in old.grants.keys() - new.grants.keys()}
    hosts |= {key.partition("|")[0] for key in old.tokens.keys() - new.tokens.keys()}
    signed_out = {new.revoked[key] for key in new.revoked.keys() - old.revoked.keys()}
    if signed_out:
        # Which streams belong to a session HAProxy does not tell: end those its account may hold.
        grants = (key.partition("|") for key in old.grants)
        hosts |= {host for host, _, account in grants if account in signed_out}
    addresses = {address_of(old.hosts[host]) for host in hosts if host in old.hosts}
    return frozenset(addresses - {NOT_RUNNING})


def address_of(value: str) -> str:
    """The address in a value of `hosts`."""
    return value.split(":", 1)[0]


def _loses(before: str, after: str | None) -> bool:
    if after is None or address_of(before) != address_of(after):
        return True
    return before.endswith(":public") and after.endswith(":private")


def _removed(table: str, old: Table, new: Table) -> list[Change]:
    return [Change(table=table, key=key) for key in sorted(old.keys() - new.keys())]


def _set(table: str, old: Table, new: Table) -> list[Change]:
    changed = sorted(key for key, value in new.items() if old.get(key) != value)
    return [Change(table=table, key=key, value=new[key], replaces=key in old) for key in changed]
