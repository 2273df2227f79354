"""`ssh <vm's address>`: the real client, an AnyIP network on loopback, real sshds as VMs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

import pytest

from atoll.config import Config
from atoll.doors.names import launch
from framework.gateway import Ground, ground

NETWORK = IPv6Network("fd5a:1:2:4::/64")
pytestmark = pytest.mark.skipif(
    not Path("/proc/net/if_inet6").exists(), reason="this kernel has no IPv6"
)


class Places:
    """`web` is at 7, somebody else's VM at 8."""

    def is_for_vms(self, address: str) -> bool:
        return ":" in address and IPv6Address(address) in NETWORK

    async def vm_at(self, address: str) -> str | None:
        return {str(NETWORK[7]): "web", str(NETWORK[8]): "theirs"}.get(address)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Ground]:
    settings = {"enabled": True, "ipv6_prefix": str(NETWORK)}
    config = Config.model_validate({"paths": {"run": tmp_path / "run"}, "dns": settings})
    config.dns_run.mkdir(parents=True)
    await launch.route(config)
    try:
        async with ground(tmp_path / "gw", places=Places(), listen="::0") as made:
            yield made
    finally:
        await launch.withdraw(config)


async def at(here: Ground, host: int, user: str, *, key: str = "ann") -> tuple[int, bytes]:
    done = await here.ssh(
        "-F", str(here.config_for(key)), "-p", str(here.door.port), "-l", user,
        "-o", f"HostKeyAlias=[127.0.0.1]:{here.door.port}", str(NETWORK[host]), "echo in the VM",
    )  # fmt: skip
    return done.code, done.out + done.err


@pytest.mark.parametrize("user", ["ann", "root", "no-such", "vm+other"])
async def test_the_address_means_the_vm_whatever_the_user(here: Ground, user: str) -> None:
    code, said = await at(here, 7, user)
    assert (code, said) == (0, b"in the VM\n")


async def test_an_address_of_nobody_and_of_others_answer_alike(here: Ground) -> None:
    nobody, theirs = await at(here, 9, "web"), await at(here, 8, "web")
    locked = await at(here, 7, "web", key="bob")
    assert nobody[0] != 0
    assert b"No VM at" in nobody[1]
    assert b"in the VM" not in nobody[1] + theirs[1] + locked[1]
    assert theirs == (nobody[0], nobody[1].replace(b"::9", b"::8"))
    assert locked == (nobody[0], nobody[1].replace(b"::9", b"::7"))
    assert not here.town.lines
