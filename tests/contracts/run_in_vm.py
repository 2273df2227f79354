"""What running a command in a VM must do, whatever its sshd is."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TypeAlias

import pytest

from atoll.base.aio import poll, unless
from atoll.base.errors import Unavailable
from atoll.doors.ssh.run import Item

Output: TypeAlias = AsyncGenerator[Item, None]
Start: TypeAlias = Callable[[str], Output]
# Children that ignore what a terminal's end would send, one of them in the background.
STUBBORN = 'trap "" HUP TERM INT; sleep 600 & echo $$ $!; sleep 600; sleep 600'


async def collected(items: Output) -> tuple[bytes, bytes, int | None]:
    """stdout, stderr, exit code."""
    out, err, code = bytearray(), bytearray(), None
    async with aclosing(items):
        async for item in items:
            assert code is None, "the exit code is last"
            if isinstance(item, int):
                code = item
            elif item[0] == "stdout":
                out += item[1]
            else:
                err += item[1]
    return bytes(out), bytes(err), code


async def gone(pid: int) -> None:
    """Wait for a process to be gone."""

    async def check() -> bool | None:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        # ours to reap when the test runs as init of a container
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3] or None

    await poll(check, seconds=10, what=f"process {pid} to end")


async def pids(items: Output) -> list[int]:
    """The process ids that a command printed, one word each on its first line."""
    said = b""
    while b"\n" not in said:
        item = await anext(items)
        assert not isinstance(item, int)
        said += item[1]
    return [int(word) for word in said.partition(b"\n")[0].split()]


async def stuck(pid: int) -> None:
    """Wait for a process that writes all the time to be unable to."""
    written: list[str] = []

    async def check() -> bool | None:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
        written.append(next(line for line in lines if line.startswith("wchar")))
        return (len(written) > 3 and len(set(written[-4:])) == 1) or None

    await poll(check, seconds=30, what=f"process {pid} to be held up")


class RunInVmContract:
    """Subclass it with a `start` fixture: runs a command in the VM."""

    async def test_streams_and_exit_code(self, start: Start) -> None:
        done = await collected(start("cat; echo out; echo err >&2; printf '\\377\\0'; exit 7"))
        assert done == (b"out\n\xff\0", b"err\n", 7)

    async def test_a_signal_is_an_exit_code(self, start: Start) -> None:
        assert (await collected(start("kill -TERM $$")))[2] == 128 + signal.SIGTERM
        assert (await collected(start("kill -SEGV $$")))[2] == 128 + signal.SIGSEGV

    async def test_much_output(self, start: Start) -> None:
        out, _, code = await collected(start("head -c 50000000 /dev/zero"))
        assert (len(out), code) == (50_000_000, 0)

    async def test_closing_kills_the_process_group(self, start: Start) -> None:
        items = start(STUBBORN)
        shell, background = await pids(items)
        await items.aclose()
        await gone(shell)
        await gone(background)

    async def test_cancelling_kills_the_process_group(self, start: Start) -> None:
        found: list[int] = []

        async def run() -> None:
            async with aclosing(start(STUBBORN)) as items:
                found.extend(await pids(items))
                await anext(items)

        async def leave() -> None:
            async def check() -> bool | None:
                return bool(found) or None

            await poll(check, seconds=10, what="the command to start")
            raise Unavailable("the client left")

        with pytest.raises(Unavailable, match="the client left"):
            await unless(run(), leave())
        for pid in found:
            await gone(pid)

    async def test_a_reader_that_stops_reading_holds_little_and_kills_all_the_same(
        self, start: Start
    ) -> None:
        items = start("echo $$; exec cat /dev/zero")
        (shell,) = await pids(items)
        await stuck(shell)
        async with asyncio.timeout(10):
            await items.aclose()
        await gone(shell)
