"""Wall clocks of running VMs: a guest has no NTP of ours and drifts, so it is told the time now and then.

Invariant: a VM on which an operation runs is left alone. One guest is asked at a time: a guest that
does not answer delays the others, and fails nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from atoll.base import log
from atoll.base.errors import AtollError
from atoll.engine.boot import set_clock
from atoll.engine.qemu.machine import Machine

EVERY_S = 600.0  # a drift of 50 ppm is 30 ms by then
_log = log.get("timekeeping")


async def keep_time(machines: Mapping[str, Machine], busy: Callable[[str], bool]) -> None:
    """For ever: step the clocks of `machines` that are not `busy`."""
    while True:
        await asyncio.sleep(EVERY_S)
        for vm in list(machines):
            machine = machines.get(vm)
            if machine is not None and not busy(vm):
                await _tell(machine)


async def _tell(machine: Machine) -> None:
    try:
        await set_clock(machine)
    except AtollError as error:
        _log.info("guest clock not set", vm=machine.vm, reason=error.message)
