"""What a visitor over SSH tells the audit: who came into which VM, and that keys were refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import asyncssh
import pytest

from atoll.base.errors import AtollError, NotFound, Unavailable
from atoll.domain.account import Route
from atoll.doors.ssh.admission import Limits, Place
from atoll.doors.ssh.relay import VmSide
from atoll.doors.ssh.visitor import Directory, Places, Visitor
from framework.gateway import ANN, ANNS, DOMAIN, Town

ROUTE = Route(
    vm_id="vm-1", vm_name="web", address="10.0.0.2", login_user="atoll", host_ca="ca", caller=ANNS
)


class House:
    """A door that reaches VMs, or does not."""

    places: Places | None = None

    def __init__(self, town: Town, result: VmSide | AtollError) -> None:
        self.directory: Directory = town
        self.domain = DOMAIN
        self.vm_ssh_port = 22
        self.limits = Limits()
        self._result = result

    async def open_vm(self, route: Route) -> VmSide:
        """See visitor.House."""
        if isinstance(self._result, AtollError):
            raise self._result
        return self._result

    def start(self, job: Awaitable[VmSide | AtollError]) -> asyncio.Task[VmSide | AtollError]:
        """See visitor.House."""
        return asyncio.ensure_future(job)

    def session(self) -> asyncssh.SSHServerProcess[str]:
        """See visitor.House."""
        raise AssertionError

    def left(self, visitor: Visitor) -> None:
        """See visitor.House."""


def refused(_source: str) -> tuple[Place, str]:
    raise AssertionError


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_way_into_a_vm_is_told_before_it_is_open(is_there: bool) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    line = key.export_public_key().decode().strip()
    town = Town(keys={line: ANN}, routes={(ANN.id, "web"): ROUTE})
    vm = VmSide.__new__(VmSide)  # what is on the other side is of no interest here
    visitor = Visitor(House(town, vm if is_there else Unavailable("no sshd")), refused)
    assert await visitor.validate_public_key("web", key)
    assert town.openings == []  # nothing is proven yet
    visitor.auth_completed()
    assert await visitor.vm_side() is (vm if is_there else None)
    result = "ok" if is_there else "unavailable"
    assert town.openings == [(ANN.email, "web", "ssh", result, "")]


async def test_what_was_lost_between_offer_and_proof_is_not_used() -> None:
    """Offer a key, have access taken away, then sign: the look at the offer counts for nothing."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    line = key.export_public_key().decode().strip()
    town = Town(keys={line: ANN}, routes={(ANN.id, "web"): ROUTE})
    visitor = Visitor(House(town, VmSide.__new__(VmSide)), refused)
    assert await visitor.validate_public_key("web", key)
    del town.routes[ANN.id, "web"]
    assert await visitor.validate_public_key("web", key)  # it is ann's all the same
    visitor.auth_completed()
    assert visitor.route is None
    del town.keys[line]
    assert not await visitor.validate_public_key("web", key)


async def test_what_is_lost_while_the_login_is_under_way_is_not_used() -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    line = key.export_public_key().decode().strip()
    town = Town(keys={line: ANN}, routes={(ANN.id, "web"): ROUTE})
    visitor = Visitor(House(town, NotFound("No VM 'web'")), refused)
    assert await visitor.validate_public_key("web", key)
    visitor.auth_completed()
    assert await visitor.vm_side() is None
    assert visitor.trouble is not None
    assert visitor.trouble.code == "not-found"


async def test_keys_that_nobody_has_are_counted() -> None:
    town = Town()
    visitor = Visitor(House(town, Unavailable("no sshd")), refused)
    for _ in range(3):
        key = asyncssh.generate_private_key("ssh-ed25519")
        assert not await visitor.validate_public_key("web", key)
    assert (town.refused, town.openings) == (3, [])


async def test_sixty_user_names_and_keys_are_tried_and_no_more() -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    line = key.export_public_key().decode().strip()
    visitor = Visitor(House(Town(keys={line: ANN}), Unavailable("no sshd")), refused)
    for number in range(60):
        assert await visitor.validate_public_key(f"user{number}", key)
    assert await visitor.validate_public_key("user59", key), "the last of them may still sign"
    assert not await visitor.validate_public_key("user60", key)
