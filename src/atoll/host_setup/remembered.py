"""Which VMs ran when `atoll down` paused them, so that `atoll up` can wait for their return."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path

from atoll.base import atomic
from atoll.rpc.client import EngineClient
from atoll.rpc.messages import ListVms, Vms, VmState

STILL_S = 90.0  # without one more VM running by then, waiting has no point


def read(state_dir: Path) -> tuple[str, ...]:
    """VM ids, or nothing."""
    try:
        return tuple(str(vm) for vm in json.loads(_path(state_dir).read_bytes()))
    except FileNotFoundError:
        return ()


def write(state_dir: Path, vms: Iterable[str]) -> None:
    """Add `vms` to those remembered: a `down` that was broken off goes on where it stopped."""
    atomic.write_json(_path(state_dir), sorted({*read(state_dir), *vms}))


def forget(state_dir: Path) -> None:
    """All are back, or reported."""
    atomic.remove(_path(state_dir))


async def wait_running(
    engine: EngineClient, vms: tuple[str, ...], *, still_s: float = STILL_S
) -> dict[str, str]:
    """Wait until every VM runs; those that failed or do not come, with the reason."""
    loop = asyncio.get_running_loop()
    missing, left = await _missing(engine, vms), len(vms)
    end = loop.time() + still_s
    while any(not why for why in missing.values()) and loop.time() < end:
        if len(missing) < left:
            left, end = len(missing), loop.time() + still_s
        await asyncio.sleep(0.2)
        missing = await _missing(engine, vms)
    return {vm: why or "it is not running yet" for vm, why in missing.items()}


async def _missing(engine: EngineClient, vms: tuple[str, ...]) -> dict[str, str]:
    """VMs that do not run -> why they never will, or "" for those that still may."""
    found = {vm.vm: vm for vm in (await engine.call(ListVms(), Vms, seconds=10)).vms}
    missing: dict[str, str] = {}
    for vm in vms:
        if vm not in found:
            missing[vm] = "it no longer exists"
        elif found[vm].state is not VmState.RUNNING:
            missing[vm] = ""
    return missing


def _path(state_dir: Path) -> Path:
    return state_dir / "ran-before-down.json"
