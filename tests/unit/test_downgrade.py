"""An older release on a newer one's pool: refused in words, and nothing in the pool is changed."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from atoll.base.errors import Conflict, Internal
from atoll.config import Config, Paths
from atoll.engine import downgrade, node
from atoll.engine.images.cache import Images
from atoll.engine.images.installed import Installed
from atoll.host_setup.up import up
from fakes.image_builder import FakeBuilder
from framework.past import PARENT, PAUSED, POOLS, TEMPLATE, unpack
from framework.templates import world


@pytest.fixture
def config(tmp_path: Path) -> Config:
    made = Config(paths=Paths(state=tmp_path / "s", run=tmp_path / "r", cache=tmp_path / "c"))
    unpack("c14c8b1", made.pool)
    return made


def change(file: Path, **facts: object) -> None:
    """What a newer release would have written there."""
    file.chmod(0o600)
    file.write_text(json.dumps(json.loads(file.read_bytes()) | facts))


def content(folder: Path) -> dict[str, str]:
    """Every file below, by what is in it."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("release", POOLS)
def test_pools_of_earlier_releases_are_welcome(release: str, tmp_path: Path) -> None:
    unpack(release, tmp_path / "pool")
    downgrade.refuse(tmp_path / "pool")
    downgrade.refuse(tmp_path / "none")


@pytest.mark.parametrize(
    ("file", "facts", "said"),
    [
        (f"vms/{PARENT}/vm.json", {"later": 1}, "the field 'later'"),
        (f"vms/{PARENT}/vm.json", {"state": "moving"}, "state 'moving'"),
        (f"vms/{PARENT}/vm.json", {"spec": {"image": "debian", "gpus": 1}}, "'spec.gpus'"),
        (f"vms/{PAUSED}/saved/meta.json", {"later": 1}, "the field 'later'"),
        (f"templates/{TEMPLATE}/meta.json", {"later": 1}, "the field 'later'"),
        ("images/*/manifest.json", {"later": 1}, "the field 'later'"),
        ("images/*/manifest.json", {"format": 2}, "format 2"),
        ("format.json", {"layout": 2}, "layout 2"),
    ],
)
def test_a_newer_pool_is_refused_in_words_and_stays_as_it_is(
    config: Config, file: str, facts: dict[str, object], said: str
) -> None:
    """An engine would end a VM whose record it cannot read, and forget what saved memory stands on."""
    (path,) = config.pool.glob(file)
    change(path, **facts)
    before = content(config.paths.state)
    with pytest.raises(Conflict) as caught:
        downgrade.refuse(config.pool)
    assert str(path) in caught.value.message
    assert said in caught.value.message
    assert "Install the" in caught.value.hint
    assert content(config.paths.state) == before


@pytest.mark.parametrize("starts", [node._build, up])
def test_it_is_asked_before_anything_is_touched(starts: Callable[..., object]) -> None:
    """By its text: an engine that is not stopped would go on, on this machine, and end its VMs."""
    text = inspect.getsource(starts)
    asked = text.index("downgrade.refuse")
    for touches in ("cgroups.setup", "network.setup", "Disks.open", "layout.prepare", ".start()"):
        assert asked < text.find(touches) or touches not in text


@pytest.mark.parametrize("damage", [b"", b"{", b"{}", b"\xff\xfe"])
def test_damage_is_not_taken_for_a_newer_release(config: Config, damage: bytes) -> None:
    """It is the trouble of one VM, and stops no other."""
    for pattern in ("vms/*/vm.json", "vms/*/saved/meta.json", "*/*/m*.json"):
        for path in config.pool.glob(pattern):
            path.chmod(0o600)
            path.write_bytes(damage)
    downgrade.refuse(config.pool)


def test_what_was_set_aside_stops_nobody(config: Config) -> None:
    folder = config.pool / "templates" / TEMPLATE
    change(folder / "meta.json", later=1)
    folder.rename(folder.with_name(f".bad-{TEMPLATE}"))
    downgrade.refuse(config.pool)


async def test_an_image_that_cannot_be_read_keeps_its_kernel(tmp_path: Path) -> None:
    """Of an image of another recipe there is no second one, and its VMs boot from nothing else."""
    async with world(tmp_path) as made:
        image = made.images.current("debian")
        (image.kernel.parent / "manifest.json").unlink()  # a link of the one in the cache
        (image.kernel.parent / "manifest.json").write_text("{")
        half = image.kernel.parent.with_name(".debian-half")
        half.mkdir()
        again = Installed(
            made.config.pool / "images",
            images=Images(made.config.paths.cache, builder=FakeBuilder()),
            disks=made.disks,
            progress=lambda _: None,
        )
        again.open()
        assert image.kernel.exists()
        assert not half.exists()
        (problem,) = again.problems
        assert str(image.kernel.parent / "manifest.json") in problem
        with pytest.raises(Internal, match=r"manifest\.json"):
            again.by_digest(image.digest)
        assert (await again.ensure("debian")).digest == image.digest  # today's is in the cache
        assert again.problems == ()
