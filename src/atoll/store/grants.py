"""Who may open which VM: grants, links, and requests for access."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, func, insert, or_, select, update

from atoll.domain.account import Account
from atoll.domain.sharing import Grant, Level, Link, Who
from atoll.store.engine import Tx
from atoll.store.schema import access_requests, accounts, grants, links, team_members

_ORDER = (grants.c.created_at, grants.c.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Somebody who would like to open a VM."""

    email: str
    created_at: float
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An account's wish to open a VM of this name."""

    vm_name: str
    account: str
    created_at: float
    message: str = ""


async def of_vm(tx: Tx, vm: str) -> tuple[Grant, ...]:
    """A VM's grants, oldest first."""
    return await _where(tx, grants.c.vm == vm)


async def of_vms(tx: Tx, vms: Collection[str]) -> dict[str, tuple[Grant, ...]]:
    """The same of several, by VM."""
    query = select(grants).where(grants.c.vm.in_(vms)).order_by(*_ORDER)
    return _by_vm(await tx.execute(query)) if vms else {}


async def everywhere(tx: Tx) -> dict[str, tuple[Grant, ...]]:
    """Grants of every VM."""
    return _by_vm(await tx.execute(select(grants).order_by(*_ORDER)))


async def to(tx: Tx, email: str) -> tuple[Grant, ...]:
    """What a person has been given by address."""
    return await _where(tx, _to_person(email))


async def to_team(tx: Tx, team: str) -> tuple[Grant, ...]:
    """What a team has been given."""
    return await _where(tx, (grants.c.kind == Who.TEAM) & (grants.c.who == team))


async def received(tx: Tx, account: Account) -> tuple[Grant, ...]:
    """What an account has been given, by address or by a team that it is in."""
    mine = select(team_members.c.team).where(team_members.c.account == account.id)
    joined = (grants.c.kind == Who.TEAM) & grants.c.who.in_(mine)
    return await _where(tx, or_(_to_person(account.email), joined))


async def is_awaited(tx: Tx, email: str, *, now: float) -> bool:
    """Whether something that has not ended is shared with this address."""
    return any(not grant.is_over(now) for grant in await to(tx, email))


async def put(tx: Tx, grant: Grant) -> None:
    """Store a grant; it takes the place of one to the same receiver for the same port and path."""
    same = (
        (grants.c.vm == grant.vm)
        & (grants.c.kind == grant.kind)
        & (grants.c.who == grant.who)
        & (grants.c.port == grant.port)
        & (grants.c.path == grant.path)
    )
    await tx.execute(delete(grants).where(same))
    await tx.execute(insert(grants).values(_values(grant, grants)))


async def remove(tx: Tx, ids: Collection[str]) -> None:
    """Forget grants."""
    await tx.execute(delete(grants).where(grants.c.id.in_(ids)))


async def clear(tx: Tx, vm: str) -> None:
    """Forget every grant and link of a VM."""
    for table in (grants, links):
        await tx.execute(delete(table).where(table.c.vm == vm))


async def over(tx: Tx, *, now: float) -> tuple[Grant, ...]:
    """Grants whose time has ended."""
    rows = await tx.execute(select(grants).where(grants.c.expires_at <= now))
    return tuple(_grant(row) for row in rows)


async def end_links(tx: Tx, *, now: float) -> None:
    """Forget links whose time has ended."""
    await tx.execute(delete(links).where(links.c.expires_at <= now))


async def next_end(tx: Tx) -> float | None:
    """When the next grant or link ends; None: none does."""
    query = select(func.min(grants.c.expires_at)).union_all(select(func.min(links.c.expires_at)))
    ends = [end for (end,) in await tx.execute(query) if end is not None]
    return min(ends, default=None)


async def receivers(tx: Tx, emails: Collection[str] | None = None) -> dict[str, str]:
    """Account ids by address, of these addresses or of all."""
    query = select(accounts.c.email, accounts.c.id)
    if emails is not None:
        query = query.where(accounts.c.email.in_(emails))
    return {row.email: row.id for row in await tx.execute(query)}


async def links_of(tx: Tx, vm: str) -> tuple[Link, ...]:
    """A VM's links, oldest first."""
    query = select(links).where(links.c.vm == vm).order_by(links.c.created_at, links.c.id)
    return tuple(Link(**row._mapping) for row in await tx.execute(query))


async def links_of_vms(tx: Tx, vms: Collection[str]) -> tuple[Link, ...]:
    """The same of several."""
    rows = await tx.execute(select(links).where(links.c.vm.in_(vms)))
    return tuple(Link(**row._mapping) for row in rows)


async def link(tx: Tx, id_: str) -> Link | None:
    """The link with this id."""
    row = (await tx.execute(select(links).where(links.c.id == id_))).one_or_none()
    return Link(**row._mapping) if row else None


async def add_link(tx: Tx, made: Link) -> None:
    """Store a new link."""
    await tx.execute(insert(links).values(_values(made, links)))


async def link_used(tx: Tx, id_: str, *, now: float) -> None:
    """Count a use."""
    used = {"use_count": links.c.use_count + 1, "last_used_at": now}
    await tx.execute(update(links).where(links.c.id == id_).values(used))


async def remove_link(tx: Tx, id_: str) -> None:
    """Forget a link; who came by it stays."""
    await tx.execute(delete(links).where(links.c.id == id_))


async def ask(tx: Tx, wanted: Request) -> None:
    """Note that an account would like to open a VM; asked again, it is the last that counts."""
    await withdraw(tx, vm_name=wanted.vm_name, account=wanted.account)
    await tx.execute(insert(access_requests).values(asdict(wanted)))


async def withdraw(tx: Tx, *, vm_name: str, account: str) -> None:
    """Forget that an account asked."""
    names = (access_requests.c.vm_name == vm_name) & (access_requests.c.account == account)
    await tx.execute(delete(access_requests).where(names))


async def forget_asked(tx: Tx, *, before: float) -> None:
    """Forget requests that nobody answered."""
    await tx.execute(delete(access_requests).where(access_requests.c.created_at < before))


async def asking(tx: Tx, vm_name: str) -> tuple[Asking, ...]:
    """Who asks for a VM, oldest first."""
    query = select(
        accounts.c.email, access_requests.c.created_at, access_requests.c.message
    ).join_from(access_requests, accounts)
    rows = await tx.execute(
        query.where(access_requests.c.vm_name == vm_name).order_by(access_requests.c.created_at)
    )
    return tuple(Asking(**row._mapping) for row in rows)


async def asked_by(tx: Tx, account: str) -> tuple[Request, ...]:
    """An account's own requests."""
    rows = await tx.execute(select(access_requests).where(access_requests.c.account == account))
    return tuple(Request(**row._mapping) for row in rows)


async def _where(tx: Tx, condition: ColumnElement[bool]) -> tuple[Grant, ...]:
    query = select(grants).where(condition).order_by(*_ORDER)
    return tuple(_grant(row) for row in await tx.execute(query))


def _to_person(email: str) -> ColumnElement[bool]:
    return (grants.c.kind == Who.PERSON) & (grants.c.who == email)


def _by_vm(rows: Any) -> dict[str, tuple[Grant, ...]]:
    found: dict[str, list[Grant]] = defaultdict(list)
    for row in rows:
        grant = _grant(row)
        found[grant.vm].append(grant)
    return {vm: tuple(those) for vm, those in found.items()}


def _grant(row: Row[Any]) -> Grant:
    values = dict(row._mapping)
    return Grant(**values | {"kind": Who(row.kind), "level": Level(row.level)})


def _values(one: Grant | Link, table: Any) -> dict[str, Any]:
    return {column.name: getattr(one, column.name) for column in table.c}
