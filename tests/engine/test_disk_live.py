"""Layers of a running QEMU: real process, real files, no guest."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atoll.base.errors import Conflict
from atoll.domain import layer_plans as plans
from atoll.domain.layers import Abandon, AddPin, CreateLayer, LayerId, Merge, Pin, Switch
from atoll.engine.disk.live import Monitor
from atoll.engine.disk.merge import merge_layers
from atoll.engine.disk.pool import Pool
from atoll.engine.disks import Disks
from atoll.engine.qemu.qmp import QmpFailed
from framework.disk import MIB, OPTIONS, Host, check, holds, hosting, make_base

VM, CHILD = "vm-parent", "vm-child"
SIZE = 64 * MIB


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    pool = Pool.open(tmp_path / "pool")
    base = pool.add_base(await make_base(tmp_path, size_bytes=SIZE), "0123456789abcdef")
    pool.apply_all(
        plans.plan_create(pool.graph, vm=VM, owner="acct", parent=base, size_bytes=SIZE, now=1.0)
    )
    yield pool
    pool.close()


def layer(seq: int, vm: str = VM) -> LayerId:
    return LayerId(f"{vm}-{seq:04d}")


async def freeze(host: Host) -> None:
    """One more layer on top of a running disk, as a snapshot does it."""
    pool, vm = host.disk.pool, host.disk.vm
    create, switch, *_ = plans.plan_clone(
        pool.graph, source=vm, vm="vm-unused", owner="acct", now=1.0
    )
    assert isinstance(create, CreateLayer)
    assert isinstance(switch, Switch)
    pool.apply(create)
    await host.disk.attach(switch.top)
    await host.disk.switch(switch.frozen, switch.top)
    await host.disk.seal(switch.frozen, switch.top)


async def clone(host: Host) -> None:
    """The child's first layer on the layer just frozen."""
    pool = host.disk.pool
    plan = plans.plan_clone(pool.graph, source=VM, vm=CHILD, owner="acct", now=1.0)
    create, switch, child = plan
    assert isinstance(switch, Switch)
    pool.apply(create)
    await host.disk.attach(switch.top)
    await host.disk.switch(switch.frozen, switch.top)
    await host.disk.seal(switch.frozen, switch.top)
    pool.apply(child)


async def test_a_clone_and_its_running_source_diverge(pool: Pool) -> None:
    async with hosting(pool, VM) as source:
        await source.write(11, 0, MIB)
        await clone(source)
        await source.write(12, MIB, MIB)
        async with hosting(pool, CHILD) as child:
            await child.write(13, 2 * MIB, MIB)
            await source.write(14, 3 * MIB, MIB)
            await child.io("flush")
            await source.io("flush")
    await holds(
        pool.path(layer(2)), (11, 0, MIB), (12, MIB, MIB), (0, 2 * MIB, MIB), (14, 3 * MIB, MIB)
    )
    await holds(
        pool.path(layer(1, CHILD)),
        (11, 0, MIB), (0, MIB, MIB), (13, 2 * MIB, MIB), (0, 3 * MIB, MIB),
    )  # fmt: skip


async def test_a_disk_grows_while_it_is_written(pool: Pool) -> None:
    async with hosting(pool, VM, drive=True) as host:
        await host.write(11, 2 * MIB, MIB)
        disks = Disks(pool, OPTIONS)
        assert await disks.grow(VM, host.qmp, size_bytes=SIZE + 8 * MIB)
        assert (disks.size_bytes(VM), host.head) == (SIZE + 8 * MIB, layer(2))
        await host.write(12, SIZE + 7 * MIB, MIB)
        assert not await disks.grow(VM, host.qmp, size_bytes=SIZE + 8 * MIB)
        (seen,) = await host.qmp.execute("query-block")
        assert seen["inserted"]["image"]["virtual-size"] == SIZE + 8 * MIB
        await freeze(host)
        await host.write(13, SIZE, MIB)
        await host.io("flush")
    await holds(
        pool.path(layer(3)),
        (11, 2 * MIB, MIB), (13, SIZE, MIB), (0, SIZE + MIB, 6 * MIB), (12, SIZE + 7 * MIB, MIB),
    )  # fmt: skip
    await _sound(pool)


@pytest.mark.parametrize(
    "change", ["write 1M 4k", "write -z 1M 4k", "write -z -u 1M 4k", "discard 1M 128k"]
)
async def test_what_a_running_disk_is_told_is_seen_at_once(pool: Pool, change: str) -> None:
    async with hosting(pool, VM) as host:
        await host.write(11, 0, 2 * MIB)
        await freeze(host)
        disks = Disks(pool, OPTIONS)
        assert not await disks.is_kept(VM)
        pool.apply(AddPin(Pin(name="snap", layer=layer(1), holder=VM)))
        await host.io("read 0 4M")
        assert await disks.is_kept(VM)
        await host.io(change)
        assert not await disks.is_kept(VM)


async def test_a_sealed_layer_is_open_for_reading_only(pool: Pool) -> None:
    async with hosting(pool, VM) as source:
        await freeze(source)
        assert _modes(source, layer(1)) == {os.O_RDONLY}


class Counting:
    """A monitor that says how often each command was given."""

    def __init__(self, inner: Monitor) -> None:
        self._inner = inner
        self.given: Counter[str] = Counter()

    async def execute(
        self, command: str, arguments: dict[str, Any] | None = None, *, seconds: float = 10
    ) -> Any:
        self.given[command] += 1
        return await self._inner.execute(command, arguments, seconds=seconds)

    async def add_fd(self, fdset: int, fd: int) -> None:
        await self._inner.add_fd(fdset, fd)


async def test_a_freeze_asks_once_for_what_is_as_long_as_the_chain(pool: Pool) -> None:
    async with hosting(pool, VM) as host:
        for _ in range(3):
            await freeze(host)
        monitor = Counting(host.qmp)
        host.disk = replace(host.disk, monitor=monitor)
        await freeze(host)
        assert monitor.given["query-named-block-nodes"] == 1


async def stacked(host: Host) -> tuple[tuple[int, int, int], ...]:
    """Five layers, each with a MiB of its own and one that all of them overwrite."""
    for number in range(4):
        await host.write(20 + number, (number + 1) * MIB, MIB)
        await host.write(30 + number, 0, 64 * 1024 * (4 - number))
        await freeze(host)
    await host.write(24, 5 * MIB, MIB)
    own = tuple((20 + number, (number + 1) * MIB, MIB) for number in range(5))
    shared = ((33, 0, 65536), (32, 65536, 65536), (31, 131072, 65536), (30, 196608, 65536))
    return (*own, *shared, (7, 262144, MIB - 262144))


BASE = LayerId("base-0123456789abcdef")
STEPS = {
    "two in the middle": Merge(into=layer(3), base=layer(1)),
    "two below the head": Merge(into=layer(4), base=layer(2)),
    "onto the base": Merge(into=layer(2), base=BASE),
    "all": Merge(into=layer(4), base=BASE),
}


@pytest.mark.parametrize("name", STEPS)
async def test_a_merge_under_a_running_vm(pool: Pool, name: str) -> None:
    step = STEPS[name]
    async with hosting(pool, VM) as host:
        expected = await stacked(host)
        depth = pool.graph.depth(VM)
        await merge_layers(pool, step, options=OPTIONS, seconds=30)
        assert pool.graph.depth(VM) < depth
        assert list(_old(pool)), "QEMU would have to free the file it is about to close"
        assert await host.disk.renew()
        assert list(_old(pool)) == []
        assert not await host.disk.renew(), "a second time there is nothing to do"
        assert _open_files(host) == {pool.path(x.id).name for x in pool.graph.chain(layer(5))}
        pool.apply_all(plans.plan_collect(pool.graph))
        for pattern, offset, length in expected:
            said = await host.io(f"read -P {pattern} {offset} {length}")
            assert "failed" not in said, said
        await host.write(99, 60 * MIB, MIB)
        await host.io("flush")
        await host.kill()
    await holds(pool.path(layer(5)), *expected, (99, 60 * MIB, MIB))
    await _sound(pool)


async def test_a_running_vm_that_was_not_renewed_reads_the_old_files(pool: Pool) -> None:
    async with hosting(pool, VM) as host:
        expected = await stacked(host)
        for step in (STEPS["two below the head"], STEPS["all"]):
            await merge_layers(pool, step, options=OPTIONS, seconds=30)
            pool.apply_all(plans.plan_collect(pool.graph))
        for pattern, offset, length in expected:
            said = await host.io(f"read -P {pattern} {offset} {length}")
            assert "failed" not in said, said
        assert len(_old(pool)) == 4, "the files this QEMU was started with"
        await freeze(host)
        assert await host.disk.renew()
        await freeze(host)
        await host.io("flush")
        assert _old(pool) == []
    await holds(pool.path(pool.graph.head(VM).id), *expected)
    await _sound(pool)


async def test_a_merge_is_refused_while_the_layer_may_be_written(pool: Pool) -> None:
    """Between a new head's creation and QEMU's switch to it only the file locks tell."""
    async with hosting(pool, VM) as host:
        await stacked(host)
        create, *_ = plans.plan_clone(pool.graph, source=VM, vm=CHILD, owner="a", now=1.0)
        pool.apply(create)
        with pytest.raises(Conflict, match="still being written"):
            await merge_layers(
                pool, Merge(into=layer(5), base=layer(2)), options=OPTIONS, seconds=30
            )


async def test_merges_shorten_the_chain_while_layers_come_and_clones_read(pool: Pool) -> None:
    async with hosting(pool, VM) as host:
        expected = await stacked(host)
        await clone(host)
        async with hosting(pool, CHILD) as child:
            rounds = 0
            while plan := plans.plan_merge(
                pool.graph, vm=VM, max_depth=3, allocated=pool.allocated()
            ):
                (step, *_) = plan
                assert isinstance(step, Merge)
                await merge_layers(pool, step, options=OPTIONS, seconds=30)
                pool.apply_all(plans.plan_collect(pool.graph))
                await host.disk.renew()
                rounds += 1
                await host.write(50 + rounds, (9 + rounds) * MIB, MIB)
                if rounds == 1:
                    await freeze(host)
            assert pool.graph.depth(VM) == 3
            await child.disk.renew()
            for pattern, offset, length in (*expected, (0, 10 * MIB, MIB)):
                said = await child.io(f"read -P {pattern} {offset} {length}")
                assert "failed" not in said, said
            await host.io("flush")
        later = tuple((50 + number, (9 + number) * MIB, MIB) for number in range(1, rounds + 1))
    await holds(pool.path(pool.graph.head(VM).id), *expected, *later)
    await _sound(pool)


async def test_a_new_top_that_was_not_switched_to_can_be_undone(pool: Pool) -> None:
    async with hosting(pool, VM) as host:
        create, *_ = plans.plan_clone(pool.graph, source=VM, vm=CHILD, owner="a", now=1.0)
        assert isinstance(create, CreateLayer)
        pool.apply(create)
        await host.disk.attach(create.layer.id)
        with pytest.raises(QmpFailed):  # and leaves the first one as it is
            await host.disk.attach(create.layer.id)
        await host.disk.detach(create.layer.id)
        pool.apply(Abandon(create.layer.id))
        assert pool.graph.head(VM).id == layer(1)
        await host.write(9, 0, MIB)
        await freeze(host)
    await holds(pool.path(layer(2)), (9, 0, MIB))


@pytest.mark.parametrize("reached", ["created", "attached", "switched"])
async def test_catch_up_after_a_crash_of_ours(pool: Pool, reached: str) -> None:
    async with hosting(pool, VM, drive=True) as host:
        await host.write(5, 0, MIB)
        create, switch, _ = plans.plan_clone(pool.graph, source=VM, vm=CHILD, owner="a", now=1.0)
        assert isinstance(switch, Switch)
        pool.apply(create)
        if reached != "created":
            await host.disk.attach(switch.top)
        if reached == "switched":
            await host.disk.switch(switch.frozen, switch.top)
        await host.disk.catch_up()
        assert await host.disk.active() == layer(2)
        await host.disk.catch_up()  # nothing left to do
        assert _modes(host, layer(1)) == {os.O_RDONLY}
        await host.write(6, MIB, MIB)
        await host.io("flush")
    await holds(pool.path(layer(2)), (5, 0, MIB), (6, MIB, MIB))
    await holds(pool.path(layer(1)), (5, 0, MIB), (0, MIB, MIB))


def _modes(host: Host, layer: LayerId) -> set[int]:
    """How this QEMU can use a layer's file: a frozen one for reading only."""
    name = host.disk.pool.path(layer).name
    return {
        int(info.read_text().split("flags:")[1].split()[0], 8) & os.O_ACCMODE
        for info in Path(f"/proc/{host.process.pid}/fdinfo").iterdir()
        if (info.parent.parent / "fd" / info.name).readlink().name == name
    }


def _open_files(host: Host) -> set[str]:
    """Names of the layer files this QEMU has open."""
    found = [link.readlink() for link in Path(f"/proc/{host.process.pid}/fd").iterdir()]
    return {path.name for path in found if ".qcow2" in path.name}


def _old(pool: Pool) -> list[str]:
    """Files kept for QEMUs that have them open."""
    return sorted(path.name for path in (pool.root / "old").iterdir())


async def _sound(pool: Pool) -> None:
    for each in pool.graph.layers:
        await check(pool.path(each))
    assert not pool.damaged
