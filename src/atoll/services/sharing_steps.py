"""What a transaction would change in who may open an account's VMs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from atoll.domain.operation import Json
from atoll.domain.sharing import DEFAULT_PORT, WHOLE, Grant, Level, Link
from atoll.services.step import Step
from atoll.store import grants, teams, vms
from atoll.store.engine import Tx
from atoll.store.grants import Request


@dataclass(frozen=True, slots=True)
class Given:
    """What an account gives (grants and links of its VMs), has been given and asks for, by id."""

    grants: Mapping[str, Grant]
    links: Mapping[str, Link]
    received: Mapping[str, Grant]
    asked: Mapping[str, Request]
    labels: Mapping[str, str]  # of the VMs these are about, and of teams


async def given_by(tx: Tx, account: str, email: str) -> Given:
    """As one transaction sees it."""
    owned = await vms.marks(tx, account)
    found = await grants.of_vms(tx, owned)
    received = await grants.to(tx, email)
    others = await vms.some(tx, {grant.vm for grant in received})
    return Given(
        grants={grant.id: grant for given in found.values() for grant in given},
        links={link.id: link for link in await grants.links_of_vms(tx, owned)},
        received={grant.id: grant for grant in received},
        asked={one.vm_name: one for one in await grants.asked_by(tx, account)},
        labels={vm: label for vm, (label, _) in owned.items()}
        | {vm.id: vm.label for vm in others}
        | await teams.names(tx, {one.who for given in found.values() for one in given}),
    )


def sharing_steps(before: Given, after: Given) -> list[Step]:
    """The steps from one to the other."""
    labels = {**before.labels, **after.labels}
    taken = [grant for id_, grant in before.grants.items() if id_ not in after.grants]
    given = [grant for id_, grant in after.grants.items() if before.grants.get(id_) != grant]
    added = [link for id_, link in after.links.items() if id_ not in before.links]
    removed = [link for id_, link in before.links.items() if id_ not in after.links]
    received = [grant for id_, grant in after.received.items() if id_ not in before.received]
    asked = [name for name, one in after.asked.items() if before.asked.get(name) != one]
    return [
        *(Step("withdraw", _about_grant(grant, labels)) for grant in taken),
        *(Step("grant", _about_grant(grant, labels)) for grant in given),
        *(Step("remove-link", _about(link, labels)) for link in removed),
        *(Step("add-link", _about(link, labels)) for link in added),
        *(Step("receive", _about(grant, labels)) for grant in received),
        *(Step("ask", {"vm_name": name}) for name in asked),
    ]


def _about_grant(grant: Grant, labels: Mapping[str, str]) -> dict[str, Json]:
    who = labels.get(grant.who, grant.who) or "everybody"
    about: dict[str, Json] = {**_about(grant, labels), "to": who}
    return about | ({"level": grant.level.value} if grant.level is Level.ROOT else {})


def _about(one: Grant | Link, labels: Mapping[str, str]) -> dict[str, Json]:
    about: dict[str, Json] = {"vm_name": labels.get(one.vm)}
    if one.port != DEFAULT_PORT:
        about["port"] = one.port
    if one.path != WHOLE:
        about["path"] = one.path
    return about
