"""Real QEMUs without a guest, for tests of disks: they hold a chain and do what the monitor says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from atoll.base.errors import Unavailable
from atoll.engine.disk.blockdev import BlockOptions
from atoll.engine.disk.live import LiveDisk
from atoll.engine.disk.openings import open_chain
from atoll.engine.disk.pool import Pool
from atoll.engine.qemu.qmp import Qmp

MIB = 1 << 20
OPTIONS = BlockOptions(aio="threads", direct=True)


class Host:
    """One QEMU holding the disk of `vm`. Reads and writes go through its block layer (`qemu-io`)."""

    def __init__(
        self, process: asyncio.subprocess.Process, disk: LiveDisk, qmp: Qmp, said: Path
    ) -> None:
        self.process = process
        self.disk = disk
        self.qmp = qmp
        self._said = said

    @property
    def head(self) -> str:
        return self.disk.pool.graph.head(self.disk.vm).id

    async def io(self, command: str) -> str:
        """Run one `qemu-io` command on the head and return what it printed.

        QEMU prints that on its own output, whatever the monitor is.
        """
        before = self._said.stat().st_size
        line = f'qemu-io {self.head} "{command}"'
        refused = await self.qmp.execute("human-monitor-command", {"command-line": line})
        assert not refused, refused
        return self._said.read_bytes()[before:].decode()

    async def write(self, pattern: int, offset: int, length: int) -> None:
        said = await self.io(f"write -P {pattern} {offset} {length}")
        assert f"wrote {length}/{length} bytes" in said, said

    async def kill(self) -> None:
        """SIGKILL: what QEMU holds in memory is lost."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        await self.qmp.close()


@contextlib.asynccontextmanager
async def hosting(pool: Pool, vm: str, *, drive: bool = False) -> AsyncIterator[Host]:
    """A QEMU with the chain of `vm`, killed at the end.

    With `drive` the disk sits in a machine with nothing to boot, else in none at all.
    """
    chain = open_chain(pool, vm, OPTIONS)
    path = pool.root / f"{vm}.qmp"
    path.unlink(missing_ok=True)
    argv = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"]
    argv += ["-accel", "tcg"]
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen(1)
    argv += ["-chardev", f"socket,id=qmp,fd={listening.fileno()},server=on,wait=off"]
    argv += ["-mon", "chardev=qmp,mode=control"]
    for fd, fdset in chain.fds:
        argv += ["-add-fd", f"fd={fd},set={fdset}"]
    for each in chain.nodes:
        argv += ["-blockdev", json.dumps(each)]
    # -S: an event before the monitor's greeting (RESUME was seen) would confuse the client.
    argv += ["-S", "-M", "q35" if drive else "none"]
    if drive:
        argv += ["-device", f"virtio-blk-pci,drive={chain.top_node},share-rw=on"]
    said = pool.root / f"{vm}.out"
    with said.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            "stdbuf", "-o0", *argv,
            pass_fds=[listening.fileno(), *(fd for fd, _ in chain.fds)],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )  # fmt: skip
    chain.close()
    listening.close()
    qmp = Qmp(path)
    try:
        await _connect(qmp, said)
        disk = LiveDisk(monitor=qmp, pool=pool, vm=vm, options=OPTIONS)
        host = Host(process, disk, qmp, said)
        yield host
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await qmp.close()


async def _connect(qmp: Qmp, said: Path) -> None:
    try:
        await qmp.connect(seconds=20)
    except Unavailable as error:
        raise RuntimeError(said.read_text()) from error
    await qmp.execute("cont")


async def make_base(folder: Path, *, size_bytes: int, pattern: int = 7) -> Path:
    """A small image: its first MiB is `pattern`."""
    path = folder / "image.qcow2"
    options = "cluster_size=128k,extended_l2=on"
    await tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(path), str(size_bytes))
    await tool("qemu-io", "-f", "qcow2", "-c", f"write -P {pattern} 0 1M", str(path))
    return path


async def tool(*argv: str, codes: tuple[int, ...] = (0,)) -> str:
    """Run a tool to its end; anything but one of `codes` fails the test with what it said."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    text = said.decode()
    assert process.returncode in codes, f"{shlex.join(argv)}: {text}"
    return text


async def check(path: Path) -> None:
    """`qemu-img check` finds the image sound, or with leaked clusters at worst (3)."""
    await tool("qemu-img", "check", "-q", "-f", "qcow2", str(path), codes=(0, 3))


async def holds(path: Path, *patterns: tuple[int, int, int]) -> None:
    """Each (pattern, offset, length) reads back from the image and its chain."""
    for pattern, offset, length in patterns:
        command = f"read -P {pattern} {offset} {length}"
        said = await tool("qemu-io", "-r", "-U", "-f", "qcow2", "-c", command, str(path))
        assert "verification failed" not in said, f"{path.name}: {command}: {said}"
