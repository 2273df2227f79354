"""Images are built once, never half, and not believed when they changed on disk."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from atoll.base.aio import TaskGroup, together
from atoll.base.errors import NotFound, Unavailable
from atoll.engine.images import manifest
from atoll.engine.images.cache import Images
from atoll.engine.images.manifest import Damaged
from fakes.image_builder import FakeBuilder


def silent(_: str) -> None:
    """Progress nobody reads."""


def folders(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "images").iterdir() if path.is_dir())


async def test_an_image_is_built_once_and_then_found(tmp_path: Path) -> None:
    builder = FakeBuilder()
    images = Images(tmp_path, builder=builder)
    assert images.known() == ("debian", "full")
    assert images.get("debian") is None
    image = await images.ensure("debian", silent)
    assert image == images.get("debian") == await images.ensure("debian", silent)
    assert builder.built == 1
    assert image.disk.read_bytes() == b"disk.qcow2" * 100
    assert image.size_bytes == 1000
    assert (image.default_port, image.login_user) == (8000, "atoll")
    await images.check("debian")


async def test_an_unknown_name_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await Images(tmp_path).ensure("../debian", silent)


async def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    images = Images(tmp_path, builder=FakeBuilder(fails=Unavailable("no archive")))
    with pytest.raises(Unavailable, match="no archive"):
        await images.ensure("debian", silent)
    assert folders(tmp_path) == []
    assert images.get("debian") is None


async def test_a_cancelled_build_leaves_nothing(tmp_path: Path) -> None:
    builder = FakeBuilder()
    builder.go.clear()
    images = Images(tmp_path, builder=builder)
    async with TaskGroup() as group:
        task = group.create_task(images.ensure("debian", silent))
        await builder.started.wait()
        assert len(folders(tmp_path)) == 1
        task.cancel()
    assert folders(tmp_path) == []


async def test_a_build_that_was_killed_is_swept_by_the_next(tmp_path: Path) -> None:
    images = Images(tmp_path, builder=FakeBuilder())
    left = tmp_path / "images" / ".debian-0123.new"
    (left / "work/root").mkdir(parents=True)
    (left / manifest.DISK).write_bytes(b"half")
    assert images.get("debian") is None
    image = await images.ensure("debian", silent)
    assert folders(tmp_path) == [f"debian-{image.digest}"]


async def test_two_at_once_build_once(tmp_path: Path) -> None:
    builder = FakeBuilder()
    builder.go.clear()
    said: list[str] = []
    first, second = (Images(tmp_path, builder=builder) for _ in range(2))

    async def late() -> None:
        await builder.started.wait()
        async with TaskGroup() as group:
            waiting = group.create_task(second.ensure("debian", said.append))
            while not said:
                await asyncio.sleep(0)
            builder.go.set()
            assert (await waiting).name == "debian"

    await together(first.ensure("debian", silent), late())
    assert builder.built == 1
    assert said == ["debian: waiting for a build that is under way"]


def shorten(folder: Path) -> None:
    (folder / manifest.DISK).write_bytes(b"short")


def lose(folder: Path) -> None:
    (folder / manifest.INITRD).unlink()


def no_manifest(folder: Path) -> None:
    (folder / manifest.NAME).unlink()


def half_manifest(folder: Path) -> None:
    text = (folder / manifest.NAME).read_text()
    (folder / manifest.NAME).write_text(text[: len(text) // 2])


def outside_manifest(folder: Path) -> None:
    facts = json.loads((folder / manifest.NAME).read_text())
    facts["files"]["../../etc/passwd"] = {"size": 1, "sha256": "0" * 64}
    (folder / manifest.NAME).write_text(json.dumps(facts))


def other_digest(folder: Path) -> None:
    facts = json.loads((folder / manifest.NAME).read_text())
    facts["digest"] = "f" * 20
    (folder / manifest.NAME).write_text(json.dumps(facts))


@pytest.mark.parametrize(
    "damage", [shorten, lose, no_manifest, half_manifest, outside_manifest, other_digest]
)
async def test_a_damaged_image_is_built_anew(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    builder = FakeBuilder()
    images = Images(tmp_path, builder=builder)
    image = await images.ensure("debian", silent)
    damage(image.disk.parent)
    assert images.get("debian") is None
    assert await images.ensure("debian", silent) == image
    assert builder.built == 2


async def test_a_flipped_bit_is_found_by_the_full_check(tmp_path: Path) -> None:
    images = Images(tmp_path, builder=FakeBuilder())
    image = await images.ensure("debian", silent)
    data = bytearray(image.disk.read_bytes())
    data[500] ^= 1
    image.disk.write_bytes(data)
    assert images.get("debian") is not None, "the quick check looks at sizes only"
    with pytest.raises(Damaged, match=r"disk\.qcow2"):
        await images.check("debian")
