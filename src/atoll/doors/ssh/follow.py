"""A reply that goes on, in a session: printed as it comes, until nobody wants more.

Invariant: it ends with the channel, with Ctrl-C or a signal; and a client that does not read holds up
the next piece instead of filling our memory. A connection without a terminal may share its input with
what is run next (the prompt), so that is read by whoever owns it: `PipedLines.end`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import asyncssh

from atoll.base.aio import unless
from atoll.commands.reply import Reply
from atoll.doors.ssh.process import Channel
from atoll.doors.ssh.terminal import Interrupted

_CHUNK = 65536


async def follow(process: Channel, reply: Reply, write: Callable[[str], None]) -> None:
    """Print the reply and what it goes on with. Raises OSError when the channel ends."""
    await unless(_pieces(process, reply, write), left(process))


async def left(process: Channel) -> None:
    """Wait until the channel is closed; raises OSError then."""
    await process.hung_up()
    raise BrokenPipeError("the client left")


async def signalled(process: Channel) -> None:
    """Read input and drop it; raises Interrupted when a signal comes. Its end is no reason to end."""
    try:
        while await process.stdin.read(_CHUNK):
            pass
    except (asyncssh.BreakReceived, asyncssh.SignalReceived) as error:
        raise Interrupted from error
    await asyncio.Event().wait()


async def _pieces(process: Channel, reply: Reply, write: Callable[[str], None]) -> None:
    assert reply.more is not None
    if reply.text:
        write(f"{reply.text}\n")
    async with aclosing(reply.more) as pieces:
        await process.stdout.drain()
        async for piece in pieces:
            write(f"\n{piece.text}\n" if reply.is_redrawn else f"{piece.text}\n")
            await process.stdout.drain()
