"""Templates and images that nobody uses go, layer and all; what anybody stands on stays."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.domain.layers import LayerId, base_id
from atoll.engine.disk.pool import Pool
from atoll.engine.images import manifest
from atoll.engine.images.cache import Images
from atoll.engine.images.installed import Installed
from atoll.engine.images.manifest import Manifest
from atoll.engine.records import Intent
from atoll.engine.templates import Meta, Templates
from fakes.image_builder import FakeBuilder
from framework.templates import MIB, World, world

OLD = "0" * 20


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path, kept=2) as made:
        yield made


def there(node: World) -> set[str]:
    return {meta.id for meta in node.templates.all()}


async def some(node: World) -> list[Meta]:
    """The default's template, then four of other sizes, each used later than the one before."""
    others = [await node.make(number * 600 * MIB, used_at=number) for number in (1, 2, 3, 4)]
    return [await node.make(used_at=0.5), *others]


async def install_old(node: World) -> None:
    """The image of a recipe before today's, and its disk."""
    today = node.images.current("debian")
    place = node.config.pool / "images" / f"debian-{OLD}"
    shutil.copytree(today.kernel.parent, place)
    facts = manifest.read(place).model_copy(update={"digest": OLD})
    (place / manifest.NAME).write_text(facts.model_dump_json())
    cached = node.config.paths.cache / "images" / f"debian-{today.digest}"
    shutil.copytree(cached, cached.with_name(f"debian-{OLD}"))
    await node.disks.add_base(OLD, cached / manifest.DISK)
    node.images.open()
    assert Manifest.model_validate_json((place / manifest.NAME).read_bytes()).digest == OLD


def images_there(node: World) -> set[bool]:
    """Whether the old image is there: installed, as a base, in the cache."""
    return {
        OLD in node.images.digests(),
        OLD in node.disks.bases(),
        (node.config.paths.cache / "images" / f"debian-{OLD}").exists(),
    }


async def test_the_least_recently_used_go_with_layer_memory_and_cache(node: World) -> None:
    default, first, second, third, fourth = await some(node)
    await node.templates.load(first.id)
    await node.templates.load(second.id)  # used just now
    assert await node.pruning.run(default) == 2
    assert there(node) == {default.id, first.id, second.id}
    assert node.layers() == {default.layer, first.layer, second.layer}
    assert node.disks.template_pins() == there(node)
    assert len(node.cached()) == 3
    assert not list((node.config.pool / "templates").glob(".*"))
    assert node.find(third.memory_bytes) is node.find(fourth.memory_bytes) is None
    assert await node.pruning.run(default) == 0


async def test_what_a_vm_or_its_saved_memory_stands_on_stays(node: World) -> None:
    default, first, *_, fourth = await some(node)
    record = node.stand(base=first.id, image=first.digest)
    assert await node.pruning.run(default) == 1
    assert {default.id, first.id, fourth.id} < there(node)
    node.records.drop(record.vm)
    assert await node.pruning.run(default) == 1
    assert first.id not in there(node)


async def test_a_disk_keeps_the_layer_of_a_template_that_is_gone(node: World) -> None:
    """A VM that booted cold from its own disk since: only its chain needs the layer."""
    default, first, *_ = await some(node)
    await node.disks.create(
        "vm-a", "acct", parent=LayerId(first.layer), size_bytes=first.disk_bytes
    )
    await node.pruning.run(default)
    assert first.id not in there(node)
    assert first.layer in node.layers()
    await node.disks.remove("vm-a")
    assert first.layer not in node.layers()


async def test_while_a_vm_is_being_made_nothing_goes(node: World) -> None:
    """It may have chosen its template a moment ago, and not have written that down."""
    default, *_ = await some(node)
    record = node.stand()
    making = record.model_copy(update={"intent": Intent(op="op-1", kind="create", fresh=True)})
    node.records.put(making)
    assert await node.pruning.run(default) == 0
    node.records.put(making.model_copy(update={"image": default.digest}))
    assert await node.pruning.run(default) == 2


async def test_with_a_record_or_a_layer_unreadable_nothing_goes(node: World) -> None:
    default, *_ = await some(node)
    node.records.unreadable.add("vm-lost")
    assert await node.pruning.run(default) == 0
    assert len(there(node)) == 5


async def test_what_a_crash_left_half_removed_is_found_again(node: World) -> None:
    default, first, second, *_ = await some(node)
    root = node.config.pool / "templates"
    (root / first.id).rename(root / f".gone-{first.id}")  # its layer is still kept
    again = Templates(root)
    again.open()
    assert first.id not in {meta.id for meta in again.all()}
    assert not (root / f".gone-{first.id}").exists()
    await node.templates.remove(first.id)
    assert first.layer in node.layers()
    await node.pruning.run(default)
    assert first.layer not in node.layers()
    assert second.layer not in node.layers(), "it was the least recently used"


async def test_a_template_set_aside_keeps_no_layer(node: World) -> None:
    meta = await node.make()
    node.templates.set_aside(meta.id, "damaged")
    await node.pruning.run(None)
    assert node.layers() == set()


async def test_a_template_without_its_layer_is_not_found(node: World) -> None:
    meta = await node.make()
    await node.disks.drop_layer(meta.id)
    node.pruning.check_layers()
    assert node.find() is None


async def test_an_image_of_before_goes_with_its_last_vm(node: World) -> None:
    await install_old(node)
    meta = await node.make(digest=OLD)
    record = node.stand(base=meta.id, image=OLD)
    default = await node.make()
    assert await node.pruning.run(default) == 0
    assert images_there(node) == {True}
    node.records.drop(record.vm)
    assert await node.pruning.run(default) == 1
    assert images_there(node) == {False}
    assert there(node) == {default.id}
    assert set(node.disks.bases()) == {default.digest}
    await node.pruning.run(default)


async def test_an_image_stays_while_todays_is_not_built(node: World) -> None:
    await install_old(node)
    today = node.images.current("debian").digest
    shutil.rmtree(node.config.pool / "images" / f"debian-{today}")
    installed = Installed(
        node.config.pool / "images",
        images=Images(node.config.paths.cache, builder=FakeBuilder()),
        disks=node.disks,
        progress=lambda _: None,
    )
    installed.open()
    assert installed.current("debian").digest == OLD
    assert installed.obsolete() == frozenset()


async def test_a_base_whose_image_a_crash_lost_goes(node: World) -> None:
    disk = node.config.paths.cache / "images"
    (found,) = disk.glob("debian-*")
    await node.disks.add_base(OLD, found / manifest.DISK)
    assert OLD in node.disks.bases()
    await node.pruning.run(None)
    assert set(node.disks.bases()) == {node.images.current("debian").digest}


def prologues(node: World, *names: str) -> Path:
    """The folder, with what earlier shapes left there."""
    folder = node.config.pool / "prologues"
    folder.mkdir(mode=0o700)
    for name in names:
        (folder / name).write_bytes(b"head")
    return folder


async def test_prologues_of_machines_that_nobody_has_go(node: World) -> None:
    """A QEMU that was upgraded, a size nobody uses: each left one for ever."""
    default = await node.make()
    record = node.stand(image=default.digest)
    stopped = record.model_copy(update={"vm": "vm-b", "spec": node.spec(700 * MIB)})
    node.records.put(stopped)
    own = node.boot.key(stopped)
    folder = prologues(node, default.key, own, "0" * 32, f".{own}.99.new")
    await node.pruning.run(default)
    assert {path.name for path in folder.iterdir()} == {default.key, own}
    node.records.drop(stopped.vm)
    await node.pruning.run(default)
    assert {path.name for path in folder.iterdir()} == {default.key}
    await node.pruning.run(default)


async def test_while_a_machine_is_not_known_no_prologue_goes(node: World) -> None:
    default = await node.make()
    folder = prologues(node, "0" * 32)
    record = node.stand(image=OLD)  # which is not there, nor is what its machine is
    await node.pruning.run(default)
    assert list(folder.iterdir())
    node.records.drop(record.vm)
    node.records.unreadable.add("vm-lost")
    await node.pruning.run(default)
    assert list(folder.iterdir())
    node.records.unreadable.clear()
    await node.pruning.run(default)
    assert not list(folder.iterdir())


async def test_the_pool_reads_the_same_afterwards(node: World, tmp_path: Path) -> None:
    default, *_ = await some(node)
    await node.pruning.run(default)
    twin = tmp_path / "twin"
    shutil.copytree(node.config.pool, twin)
    with Pool.open(twin) as pool:
        assert not pool.damaged
        assert base_id(default.digest) in pool.graph.layers
        assert {layer for layer in pool.graph.layers if layer.startswith("vm-")} == node.layers()
