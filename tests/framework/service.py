"""A real Service around parts that a test has made; what it publishes lands in a list."""

from __future__ import annotations

from atoll.config import Config
from atoll.engine.boot import Boot
from atoll.engine.capture import Capture
from atoll.engine.disk.reserve import Reserve
from atoll.engine.disks import Disks
from atoll.engine.operations import Operations
from atoll.engine.records import Records
from atoll.engine.service import Service
from atoll.engine.space import Space
from atoll.rpc.messages import Event


def service_of(
    *,
    config: Config,
    records: Records,
    disks: Disks,
    boot: Boot,
    operations: Operations,
    told: list[Event],
    reserve_bytes: int,
) -> Service:
    """No problems to tell, and no template is made for a size that is missed."""
    return Service(
        config=config,
        records=records,
        disks=disks,
        boot=boot,
        capture=Capture(records=records, disks=disks, boot=boot),
        operations=operations,
        space=Space(disks, Reserve(config.pool, reserve_bytes), reserve_bytes=reserve_bytes),
        publish=told.append,
        problems=tuple,
        missed=lambda _: False,
    )
