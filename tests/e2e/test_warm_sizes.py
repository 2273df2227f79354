"""A size nobody prepared: the first VM boots and says so, the next one starts warm."""

from __future__ import annotations

import pytest

from atoll.base.aio import poll
from atoll.rpc.messages import Node, NodeInfo
from framework.atoll import MIB, Atoll

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

SIZE = (1, 768 * MIB)
BUILD_S = 400.0  # two boots and a reboot, at 15-36 s each where the CPU is emulated and free


async def test_the_second_vm_of_a_size_is_warm(atoll: Atoll) -> None:
    said = (await atoll.ssh("new --name first --memory 768M")).out.decode()
    assert "cold boot: no warm template of this size yet, one is being made" in said

    async def is_ready() -> bool | None:
        node = await atoll.engine.call(NodeInfo(), Node, seconds=10)
        (image,) = [image for image in node.images if image.name == atoll.config.vms.image]
        return True if SIZE in image.warm_sizes else None

    await poll(is_ready, seconds=BUILD_S, what="a template of 768M", every=0.5)
    made = await atoll.command("new --name second --memory 768M")
    assert made["cold_booted"] is False
    assert (await atoll.ssh("hostname", user="second")).out == b"second\n"
    assert (await atoll.command("new --name third"))["cold_booted"] is False, "the default stays"
    await atoll.command("rm first second third")
