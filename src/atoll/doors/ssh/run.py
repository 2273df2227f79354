"""A command in a VM for the other doors: output as it comes, then the exit code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Literal, TypeAlias

import asyncssh

from atoll.base.aio import TaskGroup
from atoll.base.errors import Unavailable
from atoll.domain.account import Route
from atoll.doors.ssh.session import VmOpener

CHUNK = 1 << 16
QUEUED = 16  # chunks held when the reader is slow; then the VM's own window fills and it waits
SIGNALLED = 128  # a command ended by signal n has exit code 128 + n; the number is not told to us
Item: TypeAlias = tuple[Literal["stdout", "stderr"], bytes] | int


class Runner:
    """Runs commands over the gateway's own way into VMs."""

    def __init__(self, *, opener: VmOpener) -> None:
        self._opener = opener

    async def run_in_vm(self, route: Route, command: str) -> AsyncGenerator[Item, None]:
        """Output, then the exit code; closing it early hangs up on the command.

        Raises Unavailable when the VM does not answer.
        """
        connection = await self._opener.open_vm(route)
        try:
            process = await connection.create_process(command, encoding=None)
            queue: asyncio.Queue[Item | None] = asyncio.Queue(QUEUED)
            async with TaskGroup() as group:
                group.create_task(_pump(process, queue, group))
                while (item := await queue.get()) is not None:
                    yield item
        except (asyncssh.Error, OSError) as error:
            raise Unavailable(f"{route.vm_name}: the command broke off: {error}") from error
        finally:
            connection.abort()


async def _pump(
    process: asyncssh.SSHClientProcess[bytes], queue: asyncio.Queue[Item | None], group: TaskGroup
) -> None:
    """Both streams into the queue, the exit code after them, None at the very end."""

    async def drain(name: Literal["stdout", "stderr"]) -> None:
        stream = process.stdout if name == "stdout" else process.stderr
        while data := await stream.read(CHUNK):
            await queue.put((name, data))

    process.stdin.write_eof()
    streams = [group.create_task(drain("stdout")), group.create_task(drain("stderr"))]
    await asyncio.wait(streams)
    ended = await process.wait()
    code = ended.exit_status
    await queue.put(code if code is not None and code >= 0 else SIGNALLED)
    await queue.put(None)
