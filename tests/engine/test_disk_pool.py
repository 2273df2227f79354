"""The pool folder: what survives a restart, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.base.errors import Conflict, Exhausted, Invalid, NotFound
from atoll.domain import layer_plans as plans
from atoll.domain.layer_graph import LayerGraph
from atoll.domain.layers import Abandon, LayerId, Unlink, base_id, layer_id
from atoll.engine.disk.blockdev import BlockOptions
from atoll.engine.disk.openings import open_chain
from atoll.engine.disk.pool import Pool
from atoll.engine.disk.reserve import Reserve
from atoll.engine.disks import Disks

MIB = 1 << 20
DIGEST = "0123456789abcdef"
BASE = base_id(DIGEST)
SIZE = 8 * MIB


def tool(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", str(path), str(SIZE))
    tool("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 1M", str(path))
    return path


@pytest.fixture
def pool(tmp_path: Path, image: Path) -> Iterator[Pool]:
    pool = Pool.open(tmp_path / "pool")
    pool.add_base(image, DIGEST)
    yield pool
    pool.close()


def create(pool: Pool, vm: str, parent: LayerId = BASE) -> None:
    pool.apply_all(
        plans.plan_create(pool.graph, vm=vm, owner="acct", parent=parent, size_bytes=SIZE, now=1.5)
    )


def clone(pool: Pool, source: str, vm: str) -> None:
    plan = plans.plan_clone(pool.graph, source=source, vm=vm, owner="other", now=2.5)
    pool.apply_all(plan)


def reopened(pool: Pool) -> Pool:
    pool.close()
    return Pool.open(pool.root)


def write(pool: Pool, layer: LayerId, pattern: int) -> None:
    tool("qemu-io", "-f", "qcow2", "-c", f"write -P {pattern} 0 1M", str(pool.path(layer)))


def test_the_index_is_rebuilt_from_the_headers(pool: Pool) -> None:
    create(pool, "vm-a")
    clone(pool, "vm-a", "vm-b")
    pool.apply_all(plans.plan_snapshot(pool.graph, vm="vm-b", name="monday", now=3.5))
    pool.apply_all(plans.plan_delete(pool.graph, vm="vm-a"))
    before: LayerGraph = pool.graph
    pool = reopened(pool)
    assert pool.graph == before
    assert pool.graph.retired == {"vm-a"}
    assert pool.graph.head("vm-b").owner == "other"
    pool.close()


def test_a_moved_pool_still_reads(pool: Pool, tmp_path: Path) -> None:
    create(pool, "vm-a")
    clone(pool, "vm-a", "vm-b")
    pool.close()
    moved = tmp_path / "elsewhere" / "pool"
    moved.parent.mkdir()
    shutil.move(pool.root, moved)
    pool = Pool.open(moved)
    path = pool.path(pool.graph.head("vm-b").id)
    assert "failed" not in tool("qemu-io", "-r", "-c", "read -P 7 0 1M", str(path))
    pool.close()


def test_one_process_has_a_pool_open(pool: Pool) -> None:
    with pytest.raises(Conflict, match="another process"):
        Pool.open(pool.root)


def test_a_pool_of_another_layout_is_refused(pool: Pool) -> None:
    (pool.root / "format.json").write_text(json.dumps({"layout": 2, "pool": "pool-x"}))
    with pytest.raises(Conflict, match="layout 2"):
        reopened(pool)


def test_a_pool_without_its_format_is_not_taken_for_a_new_one(pool: Pool) -> None:
    create(pool, "vm-a")
    (pool.root / "format.json").unlink()
    with pytest.raises(Conflict, match="missing"):
        reopened(pool)


def test_the_id_of_a_pool_stays(pool: Pool) -> None:
    held = pool.id
    pool = reopened(pool)
    assert pool.id == held
    pool.close()


def test_files_in_the_making_are_swept(pool: Pool) -> None:
    leftover = pool.root / "layers" / ".vm-a-0001.qcow2.new"
    leftover.write_bytes(b"half")
    pool = reopened(pool)
    assert not leftover.exists()
    pool.close()


@pytest.mark.parametrize("kind", ["empty", "cut", "foreign parent", "misnamed"])
def test_a_damaged_layer_stops_its_vm_and_every_deletion(pool: Pool, kind: str) -> None:
    create(pool, "vm-a")
    create(pool, "vm-b")
    path = pool.path(layer_id("vm-a", 1))
    match kind:
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(path.read_bytes()[:60])
        case "foreign parent":
            tool("qemu-img", "rebase", "-u", "-F", "qcow2", "-b", "/etc/passwd", str(path))
        case _:
            path.rename(pool.path(layer_id("vm-a", 9)))
    pool = reopened(pool)
    assert list(pool.damaged) == [
        f"layers/{pool.path(layer_id('vm-a', 9 if kind == 'misnamed' else 1)).name}"
    ]
    with pytest.raises(Conflict, match="damaged"):
        pool.graph.head("vm-a")
    with pytest.raises(Conflict, match="nothing is removed"):
        pool.apply_all(plans.plan_delete(pool.graph, vm="vm-b"))
    assert pool.path(layer_id("vm-b", 1)).exists()
    pool.close()


async def test_an_engine_starts_on_a_pool_with_a_damaged_layer(pool: Pool) -> None:
    create(pool, "vm-a")
    create(pool, "vm-b")
    pool.path(layer_id("vm-a", 1)).write_bytes(b"")
    pool = reopened(pool)
    disks = Disks(pool, BlockOptions(aio="threads"))
    assert disks.depth("vm-a") == 0
    assert disks.used_bytes("vm-a") == 0
    assert disks.depth("vm-b") == 2
    (problem,) = disks.problems
    assert "vm-a" in problem
    await disks.reconcile([])
    assert pool.path(layer_id("vm-b", 1)).exists(), "removed while something is damaged"
    pool.close()


def test_a_missing_parent_damages_all_that_stood_on_it(pool: Pool) -> None:
    create(pool, "vm-a")
    clone(pool, "vm-a", "vm-b")
    pool.path(layer_id("vm-a", 1)).unlink()
    pool = reopened(pool)
    assert len(pool.damaged) == 2
    for vm in ("vm-a", "vm-b"):
        with pytest.raises(Conflict, match="damaged"):
            pool.graph.head(vm)
    pool.close()


def test_a_pin_that_cannot_be_read_stops_the_pool(pool: Pool) -> None:
    create(pool, "vm-a")
    pool.apply_all(plans.plan_snapshot(pool.graph, vm="vm-a", name="monday", now=1.0))
    (pool.root / "pins" / "monday.json").write_text("{")
    with pytest.raises(Conflict, match=r"monday\.json is damaged"):
        reopened(pool)


def test_a_base_is_taken_once_and_kept_from_writing(pool: Pool, image: Path) -> None:
    assert pool.add_base(image, DIGEST) == BASE
    assert pool.path(BASE).stat().st_mode & 0o777 == 0o444
    create(pool, "vm-a")
    with pytest.raises(Invalid, match="cannot be a base"):
        pool.add_base(pool.path(layer_id("vm-a", 1)), "fedcba9876543210")
    raw = image.with_name("raw")
    raw.write_bytes(bytes(MIB))
    with pytest.raises(Invalid, match="not a qcow2"):
        pool.add_base(raw, "fedcba9876543210")


def test_a_base_may_come_from_another_file_system(pool: Pool, image: Path) -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == pool.root.stat().st_dev:
        pytest.skip("no second file system here")
    source = shm / f"atoll-{os.getpid()}.qcow2"
    tool("cp", "--sparse=always", str(image), str(source))
    try:
        layer = pool.add_base(source, "fedcba9876543210")
    finally:
        source.unlink()
    assert pool.path(layer).read_bytes() == image.read_bytes()
    assert pool.path(layer).stat().st_blocks <= image.stat().st_blocks + 8


def test_only_an_unwritten_head_is_abandoned(pool: Pool) -> None:
    create(pool, "vm-a")
    clone(pool, "vm-a", "vm-b")
    head = pool.graph.head("vm-a").id
    pool.apply(Abandon(head))
    assert pool.graph.head("vm-a").id == layer_id("vm-a", 1)
    write(pool, layer_id("vm-b", 1), 9)
    with pytest.raises(Conflict, match="was written to"):
        pool.apply(Abandon(layer_id("vm-b", 1)))


def test_a_layer_in_use_is_not_unlinked(pool: Pool) -> None:
    create(pool, "vm-a")
    clone(pool, "vm-a", "vm-b")
    with pytest.raises(Conflict, match="in use"):
        pool.apply(Unlink(layer_id("vm-a", 1)))
    assert pool.path(layer_id("vm-a", 1)).exists()


def test_use_is_what_the_files_take(pool: Pool) -> None:
    create(pool, "vm-a")
    empty = pool.used_bytes("vm-a")
    write(pool, layer_id("vm-a", 1), 9)
    assert empty < 128 * 1024
    assert MIB <= pool.used_bytes("vm-a") - empty < 2 * MIB
    clone(pool, "vm-a", "vm-b")
    assert pool.used_bytes("vm-b") < 128 * 1024, "what the source wrote is the source's"
    pool.apply_all(plans.plan_delete(pool.graph, vm="vm-a"))
    assert pool.used_bytes("vm-b") > MIB, "now only the clone keeps it"
    assert pool.used_bytes("vm-a") == 0
    assert pool.free_bytes() > 0


def test_a_chain_is_opened_for_reading_but_for_its_top(pool: Pool) -> None:
    create(pool, "vm-a")
    clone(pool, "vm-a", "vm-b")
    chain = open_chain(pool, "vm-b", BlockOptions())
    try:
        writable = [fdset for fd, fdset in chain.fds if _flags(fd) & os.O_ACCMODE == os.O_RDWR]
        assert writable == [1]
        assert sorted(fdset for _, fdset in chain.fds) == [1, 1, 2, 3]
        assert [node["node-name"] for node in chain.nodes] == [BASE, "vm-a-0001", "vm-b-0001"]
        assert [node["read-only"] for node in chain.nodes] == [True, True, False]
        assert chain.top_node == "vm-b-0001"
    finally:
        chain.close()
    plan = plans.plan_snapshot(pool.graph, vm="vm-b", name="kept", now=1.0)
    pool.apply(plan[-1])
    with pytest.raises(Conflict, match="frozen"):
        open_chain(pool, "vm-b", BlockOptions())
    with pytest.raises(NotFound):
        open_chain(pool, "vm-x", BlockOptions())


def _flags(fd: int) -> int:
    text = Path(f"/proc/self/fdinfo/{fd}").read_text()
    return int(text.split("flags:")[1].split()[0], 8)


def test_the_reserve_takes_its_space_and_gives_it_back(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path, 4 * MIB)
    assert reserve.held_bytes == 0
    reserve.hold()
    reserve.hold()
    assert reserve.held_bytes >= 4 * MIB
    reserve.release()
    reserve.release()
    assert reserve.held_bytes == 0
    with pytest.raises(Exhausted, match="too little"):
        Reserve(tmp_path, 1 << 50).hold()
    assert reserve.held_bytes == 0
