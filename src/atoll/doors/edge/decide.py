"""What the edge lets through: published VMs in, HAProxy's maps out. Pure.

Invariant: deny by default. A host that is not in `hosts` is unknown, and what no entry of `grants`
covers is closed. A key of `grants` is a prefix of what HAProxy looks up, which is

    host|account|port|path/        (`*` as the account: everybody; the path as in `is_plain`, or none)

and HAProxy takes the longest. So an entry that lies within another one is kept only if it lasts
longer; its value is the second at which it ends, 0 for never.

`hosts` has `address:port`, with `-` for the address while the VM does not run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from atoll.domain.account import Published
from atoll.domain.sharing import EVERY_PORT, EVERYBODY, WHOLE, Opening, is_plain

HOSTS, GRANTS, REVOKED = "hosts", "grants", "revoked"
KEYS, TOKENS = "keys", "tokens"
ADMITTED = "admitted"  # HAProxy's own: whom it let in since control last changed a map,
EPOCH = "epoch"  # and beside them the name of the time since then
NOT_RUNNING = "-"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_KEY = re.compile(r"[0-9A-Za-z._-]{1,80}")  # what may stand in a map without being two words

Table = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Maps:
    """The tables HAProxy looks things up in."""

    hosts: Table = field(default_factory=dict)  # vm host -> address:port
    grants: Table = field(default_factory=dict)  # prefix of vm host|account id|port|path/ -> end
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
        hosts[host] = f"{vm.address or NOT_RUNNING}:{vm.port}"
        grants |= _grants(host, vm.openings)
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


def _grants(host: str, openings: Iterable[Opening]) -> dict[str, str]:
    """Entries for one VM, without those that another one makes needless."""
    by_account: dict[str, list[Opening]] = {}
    for one in openings:
        if one.account == EVERYBODY or _KEY.fullmatch(one.account):
            by_account.setdefault(one.account, []).append(one)
    return {
        key: "0" if one.until is None else str(int(one.until))
        for those in by_account.values()
        for one in those
        if (key := _key(host, one)) and not any(_yields(one, other) for other in those)
    }


def _yields(one: Opening, other: Opening) -> bool:
    """Whether an entry goes for the sake of another; of two for the same the one that lasts stays."""
    return one != other and one.is_within(other)


def _key(host: str, one: Opening) -> str:
    if one.port == EVERY_PORT:
        return f"{host}|{one.account}|"
    if one.path == WHOLE:
        return f"{host}|{one.account}|{one.port}|/"
    return f"{host}|{one.account}|{one.port}|{one.path}/" if is_plain(one.path) else ""


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

    HAProxy checks a request when it begins, so a WebSocket that is already open has to be ended. The
    end of a token counts if something was granted to its account: others had no stream by it.
    """
    hosts = {host for host, value in old.hosts.items() if _moves(value, new.hosts.get(host))}
    hosts |= {key.partition("|")[0] for key in old.grants if not _is_kept(key, new.grants)}
    named = {tuple(key.split("|", 2)[:2]) for key in old.grants}
    ended = {
        (key.partition("|")[0], old.tokens[key].partition(":")[0])
        for key in old.tokens.keys() - new.tokens.keys()
    }
    hosts |= {host for host, account in ended & named}
    signed_out = {new.revoked[key] for key in new.revoked.keys() - old.revoked.keys()}
    if signed_out:
        # Which streams belong to a session HAProxy does not tell: end those its account may hold.
        hosts |= {host for host, account in named if account in signed_out}
    addresses = {address_of(old.hosts[host]) for host in hosts if host in old.hosts}
    return frozenset(addresses - {NOT_RUNNING})


def address_of(value: str) -> str:
    """The address in a value of `hosts`."""
    return value.split(":", 1)[0]


def _moves(before: str, after: str | None) -> bool:
    return after is None or address_of(before) != address_of(after)


def _is_kept(key: str, grants: Table) -> bool:
    return any(prefix in grants for prefix in _prefixes(key))


def _prefixes(key: str) -> Iterator[str]:
    """What may cover it: the key itself, and all that end where a part of it does."""
    return (key[: match.end()] for match in re.finditer(r"[|/]", key))


def _removed(table: str, old: Table, new: Table) -> list[Change]:
    return [Change(table=table, key=key) for key in sorted(old.keys() - new.keys())]


def _set(table: str, old: Table, new: Table) -> list[Change]:
    changed = sorted(key for key, value in new.items() if old.get(key) != value)
    return [Change(table=table, key=key, value=new[key], replaces=key in old) for key in changed]
