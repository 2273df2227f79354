"""The engine is killed while it builds an image: the next one builds it anew, and from the start."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from atoll.base.aio import poll
from atoll.base.errors import Unavailable
from atoll.engine.images.cache import Images
from framework.agreement import agreed, new, replaced
from framework.atoll import Atoll, running_atoll, warm_image

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(900)]

IMAGE = "debian"
POINT_S = 300.0
QUIET_S = 20.0


@pytest_asyncio.fixture(loop_scope="session")
async def bare() -> AsyncIterator[Atoll]:
    """A cloud without any image, and with a cache of its own."""
    cache = Path(tempfile.mkdtemp(prefix="atoll-cache-", dir="/var/tmp"))
    try:
        paths = {"cache": str(cache)}
        async with running_atoll(prepare_image=False, paths=paths) as atoll:
            yield atoll
    finally:
        shutil.rmtree(cache)


def workers(folder: Path) -> list[str]:
    """Processes of the build: whatever names a file in the cache's folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{folder}/" in line:
            found.append(line)
    return found


async def test_an_engine_killed_during_a_build_leaves_nothing_and_builds_again(
    bare: Atoll,
) -> None:
    images = bare.config.paths.cache / "images"
    # While packages are unpacked, and while the disk is made of them.
    for point in ("work/root/var/lib/dpkg/info", "work/disk.raw"):
        asked = asyncio.get_running_loop().create_task(warm_image(bare))

        async def reached(point: str = point, asked: asyncio.Task[None] = asked) -> bool | None:
            assert not asked.done(), f"{point} was not seen: {asked}"
            return any(images.glob(f".{IMAGE}-*.new/{point}")) or None

        await poll(reached, seconds=POINT_S, what=point, every=0.02)
        pid = await bare.pid_of("engine")
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(Unavailable):
            await asked
        await replaced(bare, "engine", pid)

        async def quiet() -> bool | None:
            return not workers(images) or None

        await poll(quiet, seconds=QUIET_S, what="the end of the build's processes")
        assert str(images) not in Path("/proc/self/mountinfo").read_text()
        assert Images(bare.config.paths.cache).get(IMAGE) is None
        assert not list((bare.config.pool / "base").iterdir()), "no half image in the pool"
        await agreed(bare)

    await warm_image(bare)
    await Images(bare.config.paths.cache).check(IMAGE)
    assert [path.name for path in images.iterdir() if path.name.endswith(".new")] == []
    assert (await new(bare, "whole"))["cold_booted"] is False
    script = "systemctl is-system-running --wait; dpkg --audit; hostname"
    assert (await bare.ssh(script, user="whole")).out == b"running\nwhole\n"
    await agreed(bare)
    await bare.command("rm whole")
    await agreed(bare)
