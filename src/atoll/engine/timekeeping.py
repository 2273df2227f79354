"""Wall clocks of running VMs: a guest has no NTP of ours and drifts, so it is told the time now and then.

It is told at once when this machine's own clock was set, when the machine slept, and when an engine
begins: a guest with another time judges the gateway's short-lived certificates by it, and lets nobody in.

Invariant: a VM on which an operation runs is left alone until that ends. One guest is asked at a
time: a guest that does not answer delays the others, and fails nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from atoll.base import log
from atoll.base.errors import AtollError
from atoll.engine.boot import set_clock
from atoll.engine.qemu.machine import Machine

EVERY_S = 600.0  # a drift of 50 ppm is 30 ms by then
LOOK_S = 5.0  # how long a step of our own clock may go unseen
STEP_S = 1.0  # NTP slews by 0.3 s in EVERY_S at most
_log = log.get("timekeeping")


async def keep_time(
    machines: Mapping[str, Machine],
    busy: Callable[[str], bool],
    *,
    look_s: float = LOOK_S,
    wall: Callable[[], float] = time.time,
) -> None:
    """For ever: step the clocks of `machines` that are not `busy`."""
    told, apart = time.monotonic(), wall() - time.monotonic()
    behind = set(machines)  # of an engine that was not there when the clock was set, perhaps
    while True:
        await asyncio.sleep(look_s)
        now = time.monotonic()
        step_s = wall() - now - apart
        if abs(step_s) >= STEP_S:
            _log.warning("clock of this machine was set", by_s=round(step_s, 1))
        if abs(step_s) >= STEP_S or now - told >= EVERY_S:
            told, apart, behind = now, apart + step_s, set(machines)
        for vm in sorted(behind):
            machine = machines.get(vm)
            if machine is None or not busy(vm):
                behind.discard(vm)
            if machine is not None and vm not in behind:
                await _tell(machine)


async def _tell(machine: Machine) -> None:
    try:
        await set_clock(machine)
    except AtollError as error:
        _log.info("guest clock not set", vm=machine.vm, reason=error.message)
