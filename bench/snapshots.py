"""`snap` and `rollback`: flat in what a disk holds and in how many snapshots it has, beside other ways.

The whole product is measured as far as this machine carries it: VMs of the bench's cloud, one fresh
and one with a file in its disk, and one with a thousand snapshots. Larger disks, and the other ways
on the same data, are measured on the engine's disks alone (`bench.snapshot_disks`).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from bench.cloud import Timed, drop_all, prepare, rounded, timed
from bench.report import Row
from bench.snapshot_disks import SNAPS, WRITTEN, Extent, Times
from bench.snapshot_disks import measure as on_disks
from bench.snapshot_peers import GOING_BACK, KEEPING

from framework.atoll import Atoll

FLAT = 1.5  # the goal: a disk that is full, or the thousandth snapshot, beside the least of each
FILE_MIB, TURNS, BOOTS = 1024, 5, 2
COUNTS, LISTED = (1, 100, 1000), 5
MEMORY_MIB, MEMORY_TURNS = (64, 512, 1024), 3
# The pieces are alike, which no layer here makes use of: random data is slow to make in emulated code.
WRITE = """
head -c 16M /dev/urandom > /dev/shm/piece
for _ in $(seq {pieces}); do cat /dev/shm/piece; done |
  dd of=big bs=1M iflag=fullblock oflag=direct status=none
rm /dev/shm/piece
sync
"""


async def measure(atoll: Atoll) -> list[Row]:
    """All rows of this subject; no VM runs at the end."""
    extent = Extent()
    disks = await on_disks(atoll.folder, extent)
    return [
        *flat_rows(disks, extent),
        *peer_rows(disks, extent),
        *await by_file(atoll, file_mib=FILE_MIB),
        *await by_memory(atoll, sizes_mib=MEMORY_MIB),
        *await by_count(atoll, counts=COUNTS),
    ]


# -- on the engine's disks


def flat_rows(found: Mapping[str, Times], extent: Extent) -> list[Row]:
    """By size, then by count; each beside the least."""
    sizes = [f"{mib} MiB" for mib in extent.mib] + [
        f"{mib} MiB hollow" for mib in extent.hollow_mib
    ]
    counts = [f"{count} snapshots" for count in extent.counts]
    in_gib = ", ".join(f"{mib / 1024:g}" for mib in (*extent.mib, *extent.hollow_mib))
    hollow = ", ".join(f"{mib / 1024:g}" for mib in extent.hollow_mib)
    of_size = (
        f"the engine's part alone, on a pool of its own. {hollow} GiB: the disk's clusters are "
        "allocated, with no data in them (the same metadata)"
    )
    of_count = "the same; small layers, and the chain as the engine's merges leave it"
    return [
        *_flat(f"a disk that holds {in_gib} GiB", of_size, {n: found[n] for n in sizes}),
        *_flat(
            f"a disk with {', '.join(map(str, extent.counts))} snapshots",
            of_count,
            {n: found[n] for n in counts},
        ),
    ]


def _flat(of: str, remark: str, found: Mapping[str, Times]) -> list[Row]:
    snaps = {name: times.snap for name, times in found.items()}
    rollbacks = {name: times.rollback for name, times in found.items()}
    least, *_ = found.values()
    rounds = len(least.opening)
    listing = ", ".join(f"{statistics.median(t.listing):.1f}" for t in found.values())
    depths = ", ".join(str(max(t.depth)) for t in found.values())
    opening = ", ".join(f"{statistics.median(t.opening):.0f}" for t in found.values())
    return [
        _ratios(
            f"`snap` of {of}, each beside the first",
            snaps,
            runs=f"{len(least.snap)} of each, {SNAPS} in turns",
            remarks=f"{remark}. A QEMU runs, and has written {WRITTEN >> 20} MiB since the last one; "
            f"files in the chain before these: {depths}",
            raw={name: asdict(times) for name, times in found.items()},
        ),
        _ratios(
            f"`rollback` of {of}, each beside the first",
            rollbacks,
            runs=f"{len(least.rollback)} of each, {len(least.rollback) // rounds} in turns",
            remarks="from the command to the files being open for the next QEMU, whose start with them "
            f"takes {opening} ms; to the first snapshot, the newest and one before that. "
            f"What each snapshot holds alone, for `snap ls`, takes {listing} ms",
        ),
    ]


def peer_rows(found: Mapping[str, Times], extent: Extent) -> list[Row]:
    """The same disks kept, and brought back, by others."""
    rows = []
    for what, own, ways in (
        ("`snap`", "snap", KEEPING),
        ("`rollback`", "rollback", GOING_BACK),
    ):
        for mib in extent.mib:
            times = found[f"{mib} MiB"]
            ours = statistics.median(getattr(times, own))
            theirs = {way: statistics.median(times.peers[way]) for way in ways}
            rows.append(
                Row(
                    what=f"{what} of a disk with {mib / 1024:g} GiB of data beside other ways to do that",
                    goal="–",
                    measured=", ".join(
                        f"{ways[way]} {_beside(ours / ms)}" for way, ms in theirs.items()
                    ),
                    met=None,
                    runs=f"{len(times.peers['copy'])} of each, in turns; ours {len(getattr(times, own))}",
                    remarks=f"ours {ours:.1f} ms, on the disk when it answers; the others, ms: "
                    + ", ".join(f"{ms:.0f}" for ms in theirs.values())
                    + ", perhaps still in memory, of a disk that nobody has open. "
                    "The page cache is written out before each, and kept",
                )
            )
    return rows


# -- in the whole product


async def by_file(atoll: Atoll, *, file_mib: int) -> list[Row]:
    """A fresh VM and one with a file, in turns: `snap` while they run, `rollback` when they do not."""
    await prepare(atoll)
    vms = {"fresh": "snap-fresh", "full": "snap-full"}
    for vm in vms.values():
        await atoll.command(f"new --name {vm}")
    await atoll.ssh(
        "bash -s", user=vms["full"], stdin=WRITE.format(pieces=file_mib // 16).encode(), seconds=400
    )
    snaps: dict[str, list[Timed]] = {name: [] for name in vms}
    for turn in range(TURNS):
        for name, vm in vms.items():
            snaps[name].append(await timed(atoll, f"snap {vm} running-{turn}"))
    assert all(one.data["consistency"] == "clean" for each in snaps.values() for one in each)
    boots = [await timed(atoll, f"rollback {vms['full']} running-{turn}") for turn in range(BOOTS)]
    await drop_all(atoll)
    rollbacks: dict[str, list[Timed]] = {name: [] for name in vms}
    for turn in range(TURNS):
        for name, vm in vms.items():
            rollbacks[name].append(await timed(atoll, f"rollback {vm} running-{turn}"))
    await _remove(atoll, vms.values())
    switched = statistics.median(one.laps["end"] + one.laps["disk"] for one in boots)
    said = f"a VM with a file of {file_mib} MiB beside a fresh one"
    return [
        _ratios(
            f"`snap` of {said}, the whole command",
            {name: _walls(each) for name, each in snaps.items()},
            runs=f"{TURNS} of each, in turns",
            remarks="both run, their file systems held still. Engine's laps of the last, ms: "
            + _laps(snaps["full"][-1]),
            raw={"laps_ms": _all_laps(snaps)},
        ),
        _ratios(
            f"`rollback` of {said}, the whole command",
            {name: _walls(each) for name, each in rollbacks.items()},
            runs=f"{TURNS} of each, in turns; {BOOTS} of a VM that runs",
            remarks="neither runs. Of the larger one while it runs: "
            f"{switched:.0f} ms to the disk being the old one, then a cold boot; laps of the last, ms: "
            + _laps(boots[-1]),
            raw={"laps_ms": _all_laps(rollbacks),
                 "boot_laps_ms": [one.laps for one in boots]},
        ),
    ]  # fmt: skip


async def by_memory(atoll: Atoll, *, sizes_mib: Sequence[int]) -> list[Row]:
    """One VM, with more and more in its memory: `snap --live`, and back to it."""
    vm = "snap-live"
    await atoll.command(f"new --name {vm} --memory 3G")
    snaps: dict[str, list[Timed]] = {}
    rollbacks: dict[str, list[Timed]] = {}
    for mib in sizes_mib:
        fill = f"tr '\\0' x < /dev/zero | head -c {mib}M > /dev/shm/fill"
        await atoll.ssh("bash -s", user=vm, stdin=fill.encode(), seconds=300)
        of_size: tuple[list[Timed], list[Timed]] = ([], [])
        for turn in range(MEMORY_TURNS):
            of_size[0].append(await timed(atoll, f"snap {vm} live-{turn} --live"))
            back = await timed(atoll, f"rollback {vm} live-{turn}")
            assert not back.data["booted"], back.data
            of_size[1].append(back)
            for name in (f"live-{turn}", back.data["kept"]):
                await atoll.command(f"snap rm {vm} {name}")
        snaps[f"{mib} MiB"], rollbacks[f"{mib} MiB"] = of_size
    await _remove(atoll, [vm])
    sizes = ", ".join(map(str, sizes_mib))
    said = f"a VM that wrote {sizes} MiB to its memory, each beside the first"
    pauses = [statistics.median(one.laps["pause"] for one in each) for each in snaps.values()]
    return [
        _ratios(
            f"`snap --live` of {said}, the whole command",
            {name: _walls(each) for name, each in snaps.items()},
            runs=f"{MEMORY_TURNS} of each",
            remarks=f"it stands still for {', '.join(f'{ms:.0f}' for ms in pauses)} ms of it; its memory"
            f" is on the disk when it answers. Laps of the last, ms: {_laps([*snaps.values()][-1][-1])}",
            raw={"laps_ms": _all_laps(snaps)},
            goal=None,
        ),
        _ratios(
            f"`rollback` to a live snapshot of {said}, the whole command",
            {name: _walls(each) for name, each in rollbacks.items()},
            runs=f"{MEMORY_TURNS} of each",
            remarks="until its guest has said that it is itself again; what it was is kept with"
            f" its memory. Laps of the last, ms: {_laps([*rollbacks.values()][-1][-1])}",
            raw={"laps_ms": _all_laps(rollbacks)},
            goal=None,
        ),
    ]


async def by_count(atoll: Atoll, *, counts: Sequence[int]) -> list[Row]:
    """One VM that does not run, with more and more snapshots."""
    vm = "snap-many"
    await atoll.command(f"new --name {vm}")
    await drop_all(atoll)
    snaps: dict[str, list[Timed]] = {}
    lists: dict[str, list[float]] = {}
    held = 0
    for count in counts:
        # Those measured are the last of them: no VM has more than the largest.
        while held < count - TURNS:
            await atoll.command(f"snap {vm} at-{held}")
            held += 1
        taken = []
        while held < max(count, TURNS):
            taken.append(await timed(atoll, f"snap {vm} at-{held}"))
            held += 1
        snaps[f"{count}"] = taken
        lists[f"{count}"] = [(await timed(atoll, f"snap ls {vm}")).wall_ms for _ in range(LISTED)]
    await _remove(atoll, [vm])
    said = f"a VM with {', '.join(map(str, counts))} snapshots, each beside the first"
    engine = [statistics.median(one.engine_ms for one in each) for each in snaps.values()]
    return [
        _ratios(
            f"`snap` of {said}, the whole command",
            {name: _walls(each) for name, each in snaps.items()},
            runs=f"{TURNS} of each",
            remarks="it does not run, so nothing is held still; a layer each, merged in the background. "
            f"The engine's laps: {', '.join(f'{ms:.1f}' for ms in engine)} ms",
            raw={"laps_ms": _all_laps(snaps)},
        ),
        _ratios(
            f"`snap ls` of {said}, the whole command",
            lists,
            runs=f"{LISTED} of each",
            remarks="as JSON",
            goal=None,
        ),
    ]


async def _remove(atoll: Atoll, vms: Iterable[str]) -> None:
    await drop_all(atoll)
    await atoll.command(f"rm {' '.join(vms)}")


def _walls(each: Sequence[Timed]) -> list[float]:
    return [one.wall_ms for one in each]


def _laps(one: Timed) -> str:
    return ", ".join(f"{lap} {ms:.0f}" for lap, ms in one.laps.items())


def _all_laps(found: Mapping[str, Sequence[Timed]]) -> dict[str, list[dict[str, float]]]:
    return {name: [one.laps for one in each] for name, each in found.items()}


# -- rows


def _ratios(
    what: str,
    found: Mapping[str, Sequence[float]],
    *,
    runs: str,
    remarks: str,
    raw: Mapping[str, object] | None = None,
    goal: float | None = FLAT,
) -> Row:
    """Medians beside the first one's."""
    first, *others = (statistics.median(each) for each in found.values())
    ratios = [other / first for other in others]
    return Row(
        what=what,
        goal="–" if goal is None else f"≤ {goal}",
        measured=", ".join(f"{ratio:.2f}" for ratio in ratios)
        + f" ({', '.join(f'{ms:.1f}' for ms in (first, *others))} ms)",
        met=None if goal is None else max(ratios) <= goal,
        runs=runs,
        remarks=remarks,
        raw={"ms": {name: rounded(each) for name, each in found.items()}, **(raw or {})},
    )


def _beside(ratio: float) -> str:
    """1/3.0 reads better than 0.33 when it is 1/3000."""
    return f"1/{1 / ratio:.1f}" if ratio < 1 else f"{ratio:.2f}"
