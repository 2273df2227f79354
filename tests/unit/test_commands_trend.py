"""`stat --range`: what VMs used over time, as JSON of the reference product's shape and as bars."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import Invalid, NotFound
from atoll.commands.trend import BARS, POINTS_PER_BAR, bars
from atoll.domain.usage import Growth, Range, Sizes, Use
from atoll.rpc.messages import GIB, MIB
from atoll.store import samples, vms
from fakes.engine import FakeEngine
from framework.cloud import START, Control, control


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Control]:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving(), control(tmp_path / "control", engine) as made:
        for name in ("web", "db"):
            await made.run(f"new --name {name} --memory 2G --cpu 2")
        yield made


async def seen(cloud: Control, name: str, range_: Range, ago: int, **growth: float) -> None:
    """The span `ago` spans before now is known."""
    sizes = Sizes(memory_used_bytes=512 * MIB, memory_total_bytes=2 * GIB, disk_used_bytes=3 * GIB,
                  disk_size_bytes=25 * GIB, cpus=2)  # fmt: skip
    async with cloud.store.begin() as tx:
        vm = await vms.named(tx, name)
        assert vm is not None
        start = range_.starts(START)[-1 - ago]
        use = Use(Growth(**growth), sizes)  # type: ignore[arg-type]
        await samples.put(tx, range_, start, {vm.id: use})


async def test_a_day_as_json(cloud: Control) -> None:
    await seen(cloud, "web", Range.DAY, 2, seconds=60.0, cpu_seconds=45.0, io_read_bytes=7_500_000,
               network_rx_bytes=15_000_000, network_tx_bytes=750_000)  # fmt: skip
    await seen(cloud, "web", Range.DAY, 0)
    data = await cloud.data("stat web --range=24h")
    assert {key: data[key] for key in ("name", "status", "range")} == {
        "name": "web", "status": "running", "range": "24h",
    }  # fmt: skip
    first, last = data["points"]
    assert first == {
        "timestamp": "2027-01-15T07:50:00Z",
        "vm_name": "web",
        "cpu_cores": 0.75,
        "cpu_nominal": 2,
        "mem_used_bytes": 512 * MIB,
        "mem_total_bytes": 2 * GIB,
        "disk_size_gb": 25.0,
        "disk_used_gb": 3.0,
        "network_tx_mbps": 0.1,
        "network_rx_mbps": 2.0,
        "io_read_mbps": 1.0,
        "io_write_mbps": 0.0,
    }
    assert last["timestamp"] == "2027-01-15T08:00:00Z"
    assert (last["cpu_cores"], last["io_read_mbps"], last["disk_used_gb"]) == (None, None, 3.0)


async def test_a_day_as_bars(cloud: Control) -> None:
    await seen(cloud, "web", Range.DAY, 287, seconds=60.0, cpu_seconds=60.0)
    await seen(cloud, "web", Range.DAY, 12, seconds=60.0, cpu_seconds=120.0)
    await seen(cloud, "web", Range.DAY, 0, seconds=60.0, io_write_bytes=60 * 125_000)
    reply = await cloud.run("stat web --range 24h")
    blank = " " * 21
    assert reply.text.splitlines() == [
        "web  running  last 24h, a bar is the most of 1 h",
        "USE           MIN   AVG   MAX   OVER TIME",
        f"cpu of 2      0.00  1.00  2.00  ▅{blank}█▁",
        f"memory of 2G  512M  512M  512M  █{blank}██",
        f"disk of 25G   3G    3G    3G    █{blank}██",
        f"in Mbit/s     0.0   0.0   0.0   ▁{blank}▁▁",
        f"out Mbit/s    0.0   0.0   0.0   ▁{blank}▁▁",
        f"read Mbit/s   0.0   0.0   0.0   ▁{blank}▁▁",
        f"write Mbit/s  0.0   0.3   1.0   ▁{blank}▁█",
    ]
    assert max(map(len, reply.text.splitlines())) < 80


async def test_rates_that_nobody_saw(cloud: Control) -> None:
    await seen(cloud, "web", Range.MONTH, 0)
    lines = (await cloud.run("stat web --range=30d")).text.splitlines()
    assert lines[0] == "web  running  last 30d, a bar is the most of 24 h"
    assert lines[2].split() == ["cpu", "of", "2", "-", "-", "-"]
    assert lines[3].split() == ["memory", "of", "2G", *["512M"] * 3, "█"]


async def test_nothing_is_null(cloud: Control) -> None:
    await cloud.run("pause web")
    reply = await cloud.run("stat web --range=7d")
    assert reply.data == {"name": "web", "status": "paused", "range": "7d", "points": None}
    assert reply.text == "web  paused  nothing seen in the last 7d"


async def test_several_vms(cloud: Control) -> None:
    await seen(cloud, "web", Range.WEEK, 0, seconds=60.0)
    reply = await cloud.run("stat '*' nope --range=7d")
    assert [vm["name"] for vm in reply.data["vms"]] == ["db", "web"]
    assert reply.data["vms"][0]["points"] is None
    assert (reply.data["failed"], reply.exit) == (["nope"], NotFound.exit)
    assert "a bar is the most of 6 h" in reply.text


async def test_a_range_that_is_none(cloud: Control) -> None:
    for wrong in ("1h", "", "24H", "NOW", "24h,7d"):
        with pytest.raises(Invalid, match="is none of now, 24h, 7d, 30d"):
            await cloud.run(f"stat web --range '{wrong}'")
    with pytest.raises(NotFound):
        await cloud.run("stat web --range=24h", cloud.bob)


async def test_now_is_what_it_was(cloud: Control) -> None:
    now = await cloud.data("stat web --range=now")
    assert (now["range"], len(now["points"]), "ports" in now["points"][0]) == ("now", 1, True)


async def test_it_says_when_vms_are_not_sampled(cloud: Control) -> None:
    cloud.engine.knows_samples = False
    await cloud.cloud.sampler.attempt()
    cloud.progress.clear()
    await cloud.run("stat web --range=24h")
    (said,) = cloud.progress
    assert said.startswith("VMs are not sampled just now: SampleVms is not a request")


@given(st.lists(st.none() | st.floats(min_value=0, max_value=1e18), max_size=80))
def test_a_bar_for_each_few_values(values: list[float | None]) -> None:
    made = bars(values)
    assert len(made) == -(-len(values) // POINTS_PER_BAR)
    assert set(made) <= {" ", *BARS}
    for at, bar in enumerate(made):
        some = values[at * POINTS_PER_BAR : (at + 1) * POINTS_PER_BAR]
        assert (bar == " ") == all(value is None for value in some)
    if any(values):
        assert BARS[-1] in made
