"""A flood of output on a terminal in the page, beside the same taken by a client that shows nothing.

Real Chromium, TLS, uvicorn, the WebSocket with its acknowledgements, xterm.js; the bytes come from a
source in the server's process, so that no VM is measured. Both clients are on this machine, which has two
cores as often as not. Beside speed: for how long the page's own thread was kept from everything else.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from bench.report import Row

from framework.fountain import Fountains
from framework.site import WATCH, Site, site

FLOOD, RUNS = 100_000_000, 5
GOAL_MB_S, BUSY_MS = 10.0, 200.0


async def measure() -> list[Row]:
    """Both in turns; medians."""
    shown, bare, busy, usual = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        async with site(Path(folder), Fountains()) as source:
            for _ in range(RUNS):
                bare.append(await _bare(source))
                speed, gaps = await _shown(source)
                shown.append(speed)
                busy.append(gaps[-1])
                usual.append(gaps[len(gaps) * 99 // 100])
    speed, most = statistics.median(shown), statistics.median(busy)
    return [
        Row(
            what="a terminal in Chromium under a flood of 100 MB: throughput beside a client that shows"
            " nothing, and how long the page was busy at most",
            goal="≥ 10 MB/s, ≤ 200 ms",
            measured=f"{speed / statistics.median(bare):.2f} ({speed:.1f} MB/s); {most:.0f} ms",
            met=speed >= GOAL_MB_S and most <= BUSY_MS,
            runs=f"{RUNS}, in turns",
            remarks=f"MB/s {min(shown):.1f} to {max(shown):.1f}, bare {statistics.median(bare):.0f};"
            f" 99% of the time the page was busy for at most {statistics.median(usual):.0f} ms. Server"
            " and browser share the machine",
            raw={"shown_mb_s": shown, "bare_mb_s": bare, "busy_ms": busy, "busy_99_ms": usual},
        )
    ]


async def _bare(source: Site) -> float:
    """MB/s of a client that acknowledges and forgets."""
    page = await source.house.attach(await source.house.opened(kind="prompt"))
    await page.shows("> $")
    began = time.monotonic()
    await page.type(f"{FLOOD}\r")
    page.output = b""
    await page.took(FLOOD)
    took = time.monotonic() - began
    await page.socket.close()
    return FLOOD / took / 1e6


async def _shown(source: Site) -> tuple[float, list[float]]:
    """MB/s until the last row is on the screen, and for how long the page was busy each time, sorted."""
    async with source.person() as ann:
        screen = await source.opened(ann, "New command line")
        await screen.page.evaluate(WATCH)
        began = await screen.page.evaluate("performance.now()")
        await screen.type(f"{FLOOD}\n")
        await screen.shows("^done$", "^>$", seconds=100)
        took_ms = await screen.page.evaluate("performance.now()") - began
        return FLOOD / took_ms / 1e3, sorted(await screen.page.evaluate("gaps"))
