"""A cloud of 500 VMs behind the real HTTP server, for `bench/api.py`: a process of its own.

    python bench/api_server.py FOLDER [--profile SECONDS]

Store, services, language, API and uvicorn are the real ones, the engine is the fake one of the tests. One
line of JSON says where it is; it ends with its input. Calls are not limited. With --profile
it asks itself for `ls` instead, and prints where the time went.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import json
import pstats
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src"), str(ROOT / "tests")]

from atoll.base import ids, log  # noqa: E402
from atoll.base.aio import TaskGroup  # noqa: E402
from atoll.base.limits import Limits  # noqa: E402
from atoll.domain.vm import Phase, VmRecord  # noqa: E402
from atoll.domain.web import SESSION_COOKIE  # noqa: E402
from atoll.doors.front.serve import serve  # noqa: E402
from atoll.rpc.messages import GIB, Spec, Vm, VmState  # noqa: E402
from atoll.services.sessions import Sessions  # noqa: E402
from atoll.store import vms  # noqa: E402
from fakes.engine import FakeEngine  # noqa: E402
from framework.api import BASE, Door, door  # noqa: E402
from framework.clients import free_port  # noqa: E402
from framework.cloud import Control, control  # noqa: E402

VMS = 500


@asynccontextmanager
async def cloud_of(folder: Path, count: int) -> AsyncIterator[tuple[Control, Door]]:
    """A control with so many running VMs of ann's, and its application."""
    engine = FakeEngine(folder / "engine.sock")
    limits = Limits(per_second=1e9, burst=1e9, monotonic=time.monotonic)
    async with (
        engine.serving(),
        control(folder / "control", engine, loops=True) as cloud,
        door(cloud, folder, limits=limits) as api,
    ):
        await _fill(cloud, engine, count)
        gc.collect()
        gc.freeze()  # as daemon.py
        yield cloud, api


async def _fill(cloud: Control, engine: FakeEngine, count: int) -> None:
    size = Spec(image="debian", cpus=1, memory_bytes=GIB, disk_bytes=8 * GIB)
    async with cloud.store.begin() as tx:
        for number in range(count):
            record = VmRecord(
                id=ids.new("vm"), owner=cloud.ann.account.id, name=f"row-{number}x",
                image=size.image, cpus=size.cpus, memory_bytes=size.memory_bytes,
                disk_bytes=size.disk_bytes, comment="a row", phase=Phase.LIVE, port=8000,
                host_key="", created_at=cloud.clock(), tags=("prod",),
            )  # fmt: skip
            await vms.add(tx, record)
            engine.vms[record.id] = Vm(
                vm=record.id, owner=record.owner, spec=size,
                state=VmState.RUNNING, address=f"10.213.{number // 64}.{number % 64 * 4 + 2}",
            )  # fmt: skip
    await cloud.cloud.facts.refresh()


async def cookie_of(cloud: Control) -> str:
    """A signed-in browser's."""
    sessions = Sessions(
        store=cloud.store, changes=cloud.cloud.changes, keys=cloud.cloud.keys.tokens,
        session_seconds=3600, now=cloud.clock,
    )  # fmt: skip
    return f"{SESSION_COOKIE}={await sessions.new_session(cloud.ann.account.id)}"


async def _serve(folder: Path) -> None:
    async with cloud_of(folder, VMS) as (cloud, api), TaskGroup() as group:
        port = free_port()
        task = group.create_task(serve(api.app, port=port))
        said = {"port": port, "token": api.token, "cookie": await cookie_of(cloud)}
        print(json.dumps(said), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        task.cancel()


async def _profile(folder: Path, seconds: float) -> None:
    async with cloud_of(folder, VMS) as (_, api):
        await api.data("ls")
        profile, asked, end = cProfile.Profile(), 0, time.monotonic() + seconds
        profile.enable()
        while time.monotonic() < end:
            await api.exec("ls")
            asked += 1
        profile.disable()
    print(f"{asked} requests to {BASE}/exec in this process")
    pstats.Stats(profile).sort_stats("tottime").print_stats(35)


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--profile", type=float, default=0.0)
    args = parser.parse_args()
    log.setup(json=False, level="warning")
    asyncio.run(_profile(args.folder, args.profile) if args.profile else _serve(args.folder))


if __name__ == "__main__":
    main()
