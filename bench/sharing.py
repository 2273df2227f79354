"""How long a share takes to be so: from `share add` until the other person's page opens.

The other person is signed in and asks without a pause, each time on a new connection, which is also
what one request of the page costs. The command answers when HAProxy has the change, so the first
request after its answer must be right.
"""

from __future__ import annotations

import asyncio
import statistics
import time

from bench.report import Row

from atoll.base.aio import TaskGroup
from framework.atoll import Atoll, warm_image
from framework.friend import friend
from framework.inner_server import serve
from framework.visitor import Visitor, signed_in

VM, EMAIL, ROUNDS = "bench-shared", "bob@example.com", 20
LET_IN = 200
EFFECT_S = 30


async def measure(atoll: Atoll) -> list[Row]:
    """Two rows; the VM is removed again."""
    await warm_image(atoll)
    await atoll.command(f"new --name {VM}")
    try:
        await serve(atoll, VM)
        person = await friend(atoll, "bob")
        await atoll.command(f"share add {VM} {EMAIL}")
        bob = await signed_in(person, VM)
        request = [await _request(bob) for _ in range(ROUNDS)]
        changes: dict[str, list[float]] = {"remove": [], "add": []}
        for _ in range(ROUNDS):
            for verb, taken in changes.items():
                taken.append(await _effect(atoll, bob, verb))
    finally:
        await atoll.command(f"rm {VM}")
    return [_row(verb, taken, request) for verb, taken in sorted(changes.items())]


async def _request(bob: Visitor) -> float:
    began = time.perf_counter()
    assert await bob.ask() == LET_IN
    return (time.perf_counter() - began) * 1000


async def _effect(atoll: Atoll, bob: Visitor, verb: str) -> float:
    """Milliseconds from the command until the first answer that is as it says."""
    began = time.perf_counter()

    async def so() -> float:
        while (await bob.ask() == LET_IN) != (verb == "add"):
            pass
        return (time.perf_counter() - began) * 1000

    async with asyncio.timeout(EFFECT_S), TaskGroup() as group:
        seen = group.create_task(so())
        await atoll.command(f"share {verb} {VM} {EMAIL}")
        assert (await bob.ask() == LET_IN) == (verb == "add"), f"share {verb} answered too early"
    return seen.result()


def _row(verb: str, taken: list[float], request: list[float]) -> Row:
    p50, base = statistics.median(taken), statistics.median(request)
    return Row(
        what=f"from `share {verb}` to its effect on a page, beside one request of that page",
        goal="–",
        measured=f"{p50 / base:.1f} ({p50:.0f} ms)",
        met=None,
        runs=f"{len(taken)}",
        remarks=f"longest {max(taken):.0f} ms; a request with its TLS handshake {base:.0f} ms",
        raw={"effect_ms": taken, "request_ms": request},
    )
