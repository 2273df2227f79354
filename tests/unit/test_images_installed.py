"""Images of a pool: which one new VMs get, as long as one engine runs."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.engine.images import recipe
from atoll.engine.images.cache import Images
from atoll.engine.images.installed import Installed
from fakes.image_builder import FakeBuilder
from framework.templates import World, image_disk, world


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The guest agent's files, which are part of every recipe, in a folder that may change."""
    shutil.copytree(recipe.GUEST, tmp_path / "guest")
    monkeypatch.setattr(recipe, "GUEST", tmp_path / "guest")
    return tmp_path / "guest"


@pytest.fixture
async def node(guest: Path, tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path / "node") as made:
        yield made


def another_engine(node: World) -> Installed:
    """The images as the next engine opens them."""
    made = Installed(
        node.config.pool / "images",
        images=Images(node.config.paths.cache, builder=FakeBuilder(disk=image_disk())),
        disks=node.disks,
        progress=lambda _: None,
    )
    made.open()
    return made


async def test_the_recipe_of_an_engine_is_that_of_its_start(node: World, guest: Path) -> None:
    before = node.images.current("debian")
    (guest / "verbs.py").write_text("# of the next release\n")
    assert recipe.find("debian").digest(recipe.architecture()) != before.digest
    assert node.images.current("debian") == before
    assert await node.images.ensure("debian") == before
    assert node.images.obsolete() == frozenset()


async def test_the_next_engine_reads_it_anew(node: World, guest: Path) -> None:
    before = node.images.current("debian")
    (guest / "verbs.py").write_text("# of the next release\n")
    after = another_engine(node)
    assert after.current("debian") == before, "until today's is built"
    made = await after.ensure("debian")
    assert made.digest == recipe.find("debian").digest(recipe.architecture()) != before.digest
    assert after.current("debian") == made
    assert after.obsolete() == {before.digest}


async def test_what_is_built_meanwhile_is_known_by_what_it_is_made_of(
    node: World, guest: Path
) -> None:
    """In the moments between the installation of a release and the end of the engine before."""
    later = another_engine(node)
    later.current("debian")
    shutil.rmtree(node.images.current("debian").kernel.parent)
    later._known.clear()
    (guest / "verbs.py").write_text("# of the next release\n")
    made = await later.ensure("debian")
    assert made.digest == recipe.find("debian").digest(recipe.architecture())
    assert later.by_digest(made.digest) == made
