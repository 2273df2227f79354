"""Templates: written once, checked when loaded, given up only when damaged."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
from pathlib import Path

import pytest

from atoll.base.errors import Internal, Unavailable
from atoll.engine.qemu.machine import Saved
from atoll.engine.qemu.memory import PAGE, Pages, Run
from atoll.engine.templates import Loaded, Meta, Templates

SIZE = 64 * PAGE
STATE = b"device state"


def meta(template: str = "tmpl-a", *, created_at: float = 1.0, digest: str = "d" * 64) -> Meta:
    return Meta(
        id=template,
        key="k" * 32,
        image="debian",
        digest=digest,
        cpus=1,
        memory_bytes=SIZE,
        disk_bytes=1 << 30,
        layer="layer-1",
        state_sha256=hashlib.sha256(STATE).hexdigest(),
        created_at=created_at,
    )


def saved() -> Saved:
    pages = Pages(SIZE)
    pages.runs = [Run(4 * PAGE, PAGE)]
    pages._view[4 * PAGE : 5 * PAGE] = b"x" * PAGE
    return Saved(pages=pages, state=STATE)


def opened(root: Path) -> Templates:
    templates = Templates(root)
    templates.open()
    return templates


@pytest.fixture
def root(tmp_path: Path) -> Path:
    templates = opened(tmp_path / "templates")
    templates.write(meta(), saved())
    return tmp_path / "templates"


async def test_it_is_found_after_a_restart_and_its_memory_is_sealed(root: Path) -> None:
    templates = opened(root)
    found = templates.find("k" * 32, "d" * 64, 1 << 30)
    assert found == meta()
    loaded = await templates.load("tmpl-a")
    assert os.pread(loaded.ram, PAGE, 4 * PAGE) == b"x" * PAGE
    assert os.fstat(loaded.ram).st_size == SIZE
    with pytest.raises(PermissionError):
        os.pwrite(loaded.ram, b"y", 0)
    fresh = loaded.saved()
    assert fresh.state == STATE
    assert fresh.pages.runs == []
    assert await templates.load("tmpl-a") is loaded
    await templates.remove("tmpl-a")


async def test_many_who_ask_at_once_get_one(root: Path) -> None:
    templates = opened(root)
    loaded = await asyncio.gather(*(templates.load("tmpl-a") for _ in range(5)))
    assert len({one.ram for one in loaded}) == 1
    await templates.remove("tmpl-a")


def test_the_newest_of_the_image_is_taken(root: Path) -> None:
    templates = opened(root)
    templates.write(meta("tmpl-b", created_at=2.0), saved())
    templates.write(meta("tmpl-c", created_at=3.0, digest="e" * 64), saved())
    found = templates.find("k" * 32, "d" * 64, 1 << 30)
    assert found is not None
    assert found.id == "tmpl-b"
    assert templates.find("j" * 32, "d" * 64, 1 << 30) is None


def test_half_written_ones_are_removed_and_unreadable_ones_set_aside(root: Path) -> None:
    (root / ".tmpl-half").mkdir()
    (root / "tmpl-bad").mkdir()
    (root / "tmpl-bad" / "meta.json").write_text("{")
    assert [known.id for known in opened(root).all()] == ["tmpl-a"]
    assert not (root / ".tmpl-half").exists()
    assert not (root / "tmpl-bad").exists()
    assert len(list(root.glob(".bad-*"))) == 1


@pytest.mark.parametrize("name", ["pages", "state"])
async def test_a_damaged_one_is_never_used_again(root: Path, name: str) -> None:
    path = root / "tmpl-a" / name
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    templates = opened(root)
    with pytest.raises(Internal, match="cannot be used"):
        await templates.load("tmpl-a")
    assert list(templates.all()) == []
    with pytest.raises(Internal, match="not there"):
        await templates.load("tmpl-a")
    assert not (root / "tmpl-a").exists()


async def test_a_host_short_of_descriptors_costs_no_template(root: Path) -> None:
    """VMs and saved memories stand on it."""
    templates = opened(root)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    await asyncio.to_thread(lambda: None)  # the worker needs none later
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(Unavailable, match="Too many open files"):
            await templates.load("tmpl-a")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (await templates.load("tmpl-a")).meta == meta()
    await templates.remove("tmpl-a")


async def test_set_aside_lets_go_of_its_memory(root: Path) -> None:
    templates = opened(root)
    ram = saved().pages.sealed_file()
    templates.keep_loaded(Loaded(meta("tmpl-new"), ram, STATE))
    assert (await templates.load("tmpl-new")).ram == ram
    templates.set_aside("tmpl-new", "self-test failed")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(ram)


async def test_another_pool_takes_it_by_links(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    opened(root).link_out("tmpl-a", cache)
    other = opened(tmp_path / "other")
    made = other.link_in(cache, "tmpl-z", "layer-9")
    assert (made.id, made.layer) == ("tmpl-z", "layer-9")
    assert (await other.load("tmpl-z")).meta == made
    assert opened(tmp_path / "other").find("k" * 32, "d" * 64, 1 << 30) == made
    await other.remove("tmpl-z")
