"""When `snap` and `rollback` count as flat."""

from __future__ import annotations

import pytest
from bench.snapshot_disks import Extent, Times
from bench.snapshot_peers import GOING_BACK, KEEPING
from bench.snapshots import flat_rows, peer_rows

EXTENT = Extent(mib=(1024, 10240), hollow_mib=(51200,), counts=(1, 100, 1000))


def times(ms: float) -> Times:
    return Times(
        snap=[ms, ms, 90.0], rollback=[ms / 2] * 3, listing=[1.0], opening=[20.0], depth=[3]
    )


@pytest.mark.parametrize(("last", "is_met"), [(15.0, True), (15.1, False)])
def test_flat_is_by_the_worst_median_beside_the_first(last: float, is_met: bool) -> None:
    by_size = {"1024 MiB": times(10.0), "10240 MiB": times(9.0), "51200 MiB hollow": times(last)}
    by_count = {
        "1 snapshots": times(10.0),
        "100 snapshots": times(last),
        "1000 snapshots": times(9.0),
    }
    rows = flat_rows(by_size | by_count, EXTENT)
    assert [row.met for row in rows] == [is_met] * 4
    assert rows[0].measured.startswith(f"0.90, {last / 10:.2f} (10.0, 9.0, {last:.1f} ms)")


def test_others_are_told_by_how_much_longer_they_take() -> None:
    ours = times(10.0)
    ours.peers = {way: [2000.0, 1.0, 4000.0] for way in (*KEEPING, *GOING_BACK)}
    keep, back = peer_rows({"1024 MiB": ours}, Extent(mib=(1024,)))
    assert keep.measured.startswith("`qemu-img convert` 1/200.0, ")
    assert back.measured.endswith("restic's restore 1/400.0")
