"""The sampler against the fake engine, with clocks that move when told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import func, select

from atoll.base.aio import poll
from atoll.base.errors import Unavailable
from atoll.domain.usage import Point, Range
from atoll.rpc.messages import GIB, MIB, Sample, SampleVms, StatVm
from atoll.services import sampling
from atoll.services.sampling import EVERY_S
from atoll.store import vms
from atoll.store.schema import samples
from fakes.engine import FakeEngine
from framework.cloud import START, Clock, Control, control


@dataclass
class World:
    """A control, and the two clocks of its machine."""

    control: Control
    boot: Clock

    async def passes(self, seconds: float = EVERY_S, *, clock_set: float = 0.0) -> None:
        """Time goes by, with the wall clock set by so much; then comes a round."""
        self.boot.time += seconds
        self.control.clock.time += seconds + clock_set
        await self.control.cloud.sampler.attempt()

    async def used(self, name: str, **more: float) -> None:
        """The VM's counters grow by so much."""
        engine, vm = self.control.engine, await self.id_of(name)
        now = engine.samples.get(vm, Sample(vm=vm, process="", since_boot_s=0.0))
        grown = {key: getattr(now, key) + value for key, value in more.items()}
        engine.samples[vm] = now.model_copy(update=grown)

    async def id_of(self, name: str) -> str:
        """Of a VM that is not in the trash."""
        async with self.control.store.read() as tx:
            vm = await vms.named(tx, name)
        assert vm is not None
        return vm.id

    async def points(self, range_: Range = Range.DAY, name: str = "web") -> list[Point]:
        """Those that are no gaps."""
        ann = self.control.ann
        found = await self.control.cloud.usage.points(ann, name, range_)
        return [point for point in found if not point.is_gap]

    async def rows(self) -> int:
        """Rows in the store."""
        async with self.control.store.read() as tx:
            return int((await tx.execute(select(func.count()).select_from(samples))).scalar_one())


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    boot = Clock(1000.0)
    engine = FakeEngine(tmp_path / "engine.sock")
    engine.monotonic = boot
    async with engine.serving(), control(tmp_path / "control", engine) as made:
        await made.run("new --name web --memory 2G --cpu 2")
        yield World(made, boot)


async def test_rates_and_sizes(world: World) -> None:
    await world.passes()
    await world.used("web", cpu_seconds=90, network_rx_bytes=6000, network_tx_bytes=600,
                     io_read_bytes=60, io_write_bytes=MIB * 60, memory_bytes=300 * MIB)  # fmt: skip
    await world.passes()
    await world.used("web", memory_bytes=-100 * MIB)
    await world.passes()
    for range_ in Range:
        (point,) = await world.points(range_)
        assert point == Point(
            at=range_.start(START), cpu_cores=0.75, network_rx_bytes_per_s=50.0,
            network_tx_bytes_per_s=5.0, io_read_bytes_per_s=0.5, io_write_bytes_per_s=MIB / 2,
            memory_used_bytes=300 * MIB, memory_total_bytes=2 * GIB, disk_used_bytes=0,
            disk_size_bytes=25 * GIB, cpus=2,
        )  # fmt: skip
    assert world.control.cloud.sampler.problem == ""


async def test_a_round_is_one_question_and_no_guest_is_asked(world: World) -> None:
    await world.control.run("new --name db")
    world.control.engine.asked.clear()
    await world.passes()
    await world.passes()
    assert world.control.engine.asked == [SampleVms(), SampleVms()]
    assert not [request for request in world.control.engine.asked if isinstance(request, StatVm)]
    assert await world.rows() == 2 * len(Range)


async def test_counters_of_another_process_are_no_growth(world: World) -> None:
    await world.used("web", cpu_seconds=1000, network_rx_bytes=10**9)
    await world.passes()
    await world.control.run("restart web")
    await world.used("web", cpu_seconds=-990, network_rx_bytes=10**12)
    await world.passes()
    (point,) = await world.points()
    assert (point.cpu_cores, point.network_rx_bytes_per_s, point.cpus) == (None, None, 2)
    await world.used("web", cpu_seconds=30)
    await world.passes()
    (point,) = await world.points()
    assert (point.cpu_cores, point.network_rx_bytes_per_s) == (0.5, 0.0)


async def test_a_pause_is_a_gap(world: World) -> None:
    await world.passes()
    await world.control.run("pause web")
    for _ in range(10):
        await world.passes()
    await world.control.run("resume web")
    await world.used("web", cpu_seconds=5000)
    await world.passes()
    first, last = await world.points()
    assert last.at - first.at == 2 * Range.DAY.span_s
    assert (first.cpu_cores, last.cpu_cores) == (None, None)


@pytest.mark.parametrize("away_s", [200.0, 7200.0])
async def test_what_was_used_while_control_was_away_is_not_spread(
    world: World, away_s: float
) -> None:
    await world.passes()
    await world.used("web", cpu_seconds=away_s)
    await world.passes(away_s)
    assert [point.cpu_cores for point in await world.points()] in ([None], [None, None])


async def test_a_restart_of_control_goes_on_in_the_same_span(world: World, tmp_path: Path) -> None:
    await world.passes(EVERY_S)
    await world.used("web", cpu_seconds=30, memory_bytes=MIB * 300)
    await world.passes(EVERY_S)
    made = world.control
    async with control(tmp_path / "control", made.engine, clock=made.clock) as again:
        await again.cloud.facts.refresh()
        later = World(again, world.boot)
        await later.passes(EVERY_S)  # a new base
        await later.passes(EVERY_S)
        (point,) = await later.points()
    assert (point.cpu_cores, point.memory_used_bytes) == (0.25, MIB * 300)


@pytest.mark.parametrize("by", [-1e9, -86_400.0, -1800.0, 1800.0, 40 * 86_400.0, 2e9])
async def test_a_clock_that_is_set_makes_no_rates_and_takes_nothing(
    world: World, by: float
) -> None:
    for _ in range(30):
        await world.passes()
        await world.used("web", cpu_seconds=30)
    before = {point.at for point in await world.points()}
    for clock_set in (by, 0.0, -by):
        await world.passes(clock_set=clock_set)
        await world.used("web", cpu_seconds=30)
        rates = {point.cpu_cores for point in await world.points()}
        assert rates <= {0.5, None}
    assert world.control.cloud.sampler.problem == ""
    kept = {point.at for point in await world.points()}
    assert len(before - kept) <= 2, "more than it wrote by another clock"


async def test_rows_have_an_upper_bound(world: World) -> None:
    await world.passes()
    for _ in range(40):
        await world.passes(86_400.0 * 0.999)
    assert await world.rows() <= sum(range_.points for range_ in Range)
    vms_rows, spans = await world.rows(), len(Range)
    await world.passes(30 * 86_400.0)
    assert await world.rows() <= vms_rows + spans


async def test_an_engine_of_an_earlier_release(world: World) -> None:
    world.control.engine.knows_samples = False
    await world.passes()
    assert "SampleVms is not a request" in world.control.cloud.sampler.problem
    assert await world.rows() == 0
    world.control.engine.knows_samples = True
    await world.passes()
    assert (world.control.cloud.sampler.problem, await world.rows()) == ("", len(Range))


@pytest.mark.parametrize(
    ("counter", "value"),
    [
        ("network_rx_bytes", 1 << 70),  # more than a column holds
        ("network_rx_bytes", -1),
        ("cpu_seconds", float("inf")),
        ("cpu_seconds", float("nan")),
        ("process", "x" * 1000),
    ],
)
async def test_counters_that_cannot_be(world: World, counter: str, value: object) -> None:
    vm = await world.id_of("web")
    sample = Sample(vm=vm, process="", since_boot_s=0.0)
    world.control.engine.samples[vm] = sample.model_copy(update={counter: value})
    if counter == "process":  # that the fake makes up
        world.control.engine.vms[vm] = world.control.engine.vms[vm].model_copy(
            update={"pid": value}
        )
    await world.passes()
    assert "sample-vms answered something else" in world.control.cloud.sampler.problem
    assert await world.rows() == 0
    del world.control.engine.samples[vm]
    world.control.engine.vms[vm] = world.control.engine.vms[vm].model_copy(update={"pid": 7})
    await world.passes()
    assert (world.control.cloud.sampler.problem, await world.rows()) == ("", len(Range))


async def test_a_round_that_fails_loses_nothing(world: World) -> None:
    await world.passes()
    world.control.engine.refuse[SampleVms].append(Unavailable("the engine is busy"))
    await world.used("web", cpu_seconds=60)
    await world.passes()
    assert world.control.cloud.sampler.problem == "the engine is busy"
    await world.passes()
    (point,) = await world.points()
    assert point.cpu_cores == 0.5


async def test_a_trashed_vm_keeps_its_samples_until_it_is_gone(world: World) -> None:
    await world.passes()
    await world.control.run("rm web")
    await world.passes()
    assert await world.rows() == len(Range)
    await world.control.run("undo")
    assert len(await world.points()) == 1
    await world.control.run("rm web")
    world.control.clock.time += 25 * 3600
    await world.control.cloud.trash.sweep()
    assert await world.rows() == 0


async def test_a_vm_that_only_the_engine_has_is_left_out(world: World) -> None:
    vm = world.control.engine.vms[await world.id_of("web")]
    alien = vm.model_copy(update={"vm": "vm-00000000000z"})
    world.control.engine.vms[alien.vm] = alien
    await world.passes()  # not even in the list of VMs so far
    await world.control.cloud.facts.refresh()
    await world.passes()
    assert await world.rows() == len(Range)


async def test_control_goes_on_sampling_whatever_a_round_came_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "EVERY_S", 0.01)
    engine = FakeEngine(tmp_path / "engine.sock")
    engine.refuse[SampleVms] = [Unavailable("the engine is busy"), Unavailable("still")]
    async with engine.serving(), control(tmp_path / "control", engine, loops=True) as made:
        await made.run("new --name web")

        async def seen() -> bool | None:
            found = await made.cloud.usage.points(made.ann, "web", Range.DAY)
            return not found[-1].is_gap or None

        await poll(seen, seconds=10, what="a sample", every=0.02)
        assert engine.refuse[SampleVms] == []
