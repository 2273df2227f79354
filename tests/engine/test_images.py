"""The real builder: what is in the image `debian`, and what a killed build leaves behind.

The image is built into the machine's own cache if it is not there (under a minute, needs the
package archive); it is the one the other rings boot.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from atoll.base import proc
from atoll.base.aio import poll
from atoll.config import Paths
from atoll.engine.images.cache import BuiltImage, Images

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="building an image needs root"),
    pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="mmdebstrap is not installed"),
    pytest.mark.timeout(900),
]
CACHE = Path(os.environ.get("ATOLL_TEST_CACHE", Paths().cache))
SOURCE = Path(__file__).parent.parent.parent / "src"


async def built() -> BuiltImage:
    return await Images(CACHE).ensure("debian", lambda _: None)


@pytest.fixture
async def raw(tmp_path: Path) -> Path:
    """The disk as debugfs and e2fsck read it; sparse."""
    image = await built()
    path = tmp_path / "disk.raw"
    argv = ["qemu-img", "convert", "-O", "raw", str(image.disk), str(path)]
    await proc.run(argv, seconds=120)
    return path


async def debugfs(raw: Path, command: str) -> str:
    """What debugfs prints for one command."""
    done = await proc.run(["debugfs", "-R", command, str(raw)], seconds=30)
    return done.out.decode()


async def test_the_image_is_what_its_manifest_says() -> None:
    image = await built()
    await Images(CACHE).check("debian")
    assert Images(CACHE).get("debian") == image
    info = await proc.run(["qemu-img", "info", "--output=json", str(image.disk)], seconds=30)
    facts = json.loads(info.out)
    assert facts["virtual-size"] == image.virtual_bytes
    assert facts["format-specific"]["data"]["extended-l2"] is True
    assert facts["cluster-size"] == 131_072
    await proc.run(["qemu-img", "check", str(image.disk)], seconds=60)
    assert image.size_bytes < 500 << 20
    assert image.disk.stat().st_mode & 0o777 == 0o444


async def test_the_file_system_is_clean(raw: Path) -> None:
    await proc.run(["e2fsck", "-fn", str(raw)], seconds=60)


async def test_no_image_has_an_identity(raw: Path) -> None:
    assert await debugfs(raw, "cat /etc/machine-id") == ""
    names = await debugfs(raw, "ls -p /etc/ssh")
    assert "ssh_host" not in names
    assert "Inode" not in await debugfs(raw, "stat /var/lib/systemd/random-seed")
    shadow = await debugfs(raw, "cat /etc/shadow")
    secrets = {line.split(":")[0]: line.split(":")[1] for line in shadow.splitlines()}
    assert set(secrets["atoll"] + secrets["root"]) <= set("!*")


async def test_the_agent_and_its_units_are_in(raw: Path) -> None:
    for name in ("agent", "wire", "kernel", "verbs", "identity", "freezing", "facts"):
        inside = await debugfs(raw, f"cat /usr/lib/atoll/atoll/guest/{name}.py")
        assert inside == (SOURCE / f"atoll/guest/{name}.py").read_text()
    wanted = await debugfs(raw, "ls -p /etc/systemd/system/sysinit.target.wants")
    assert "atoll-agent.service" in wanted
    assert "ssh.socket" in await debugfs(raw, "ls -p /etc/systemd/system/sockets.target.wants")
    assert "Mode:  0440" in await debugfs(raw, "stat /etc/sudoers.d/atoll")
    assert "Type: regular" in await debugfs(raw, "stat /var/lib/systemd/linger/atoll")


async def test_a_killed_build_leaves_no_process_no_mount_and_no_image(tmp_path: Path) -> None:
    program = "import asyncio, sys; from pathlib import Path; "
    program += "from atoll.engine.images.cache import Images; "
    program += "asyncio.run(Images(Path(sys.argv[1])).ensure('debian', print))"
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    argv = [sys.executable, "-P", "-c", program, str(tmp_path)]
    process = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL)  # noqa: ASYNC220
    try:

        async def unpacking() -> bool | None:
            assert process.poll() is None, "it ended by itself"
            return any(tmp_path.glob("images/.debian-*.new/work/root/var/lib/dpkg")) or None

        await poll(unpacking, seconds=120, what="packages being installed")
    finally:
        process.kill()
        process.wait()

    async def quiet() -> bool | None:
        return not workers(tmp_path) or None

    await poll(quiet, seconds=10, what="the end of the package tools")
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert Images(tmp_path).get("debian") is None
    assert not list(tmp_path.glob("images/debian-*"))


def workers(folder: Path) -> list[str]:
    """Command lines of processes that work in `folder`, other than this one's."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line and int(path.parent.name) != os.getpid():
            found.append(line)
    return found


async def test_a_built_image_is_found_at_once() -> None:
    await built()
    started = time.monotonic()
    await built()
    assert time.monotonic() - started < 1
