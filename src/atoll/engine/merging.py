"""Keeps disk chains short: merges in the background, one VM at a time, only where nobody works."""

from __future__ import annotations

import asyncio
import contextlib
import time

from atoll.base import log
from atoll.base.errors import AtollError, Conflict
from atoll.engine.disks import Disks
from atoll.engine.operations import Operations
from atoll.engine.records import Records
from atoll.engine.service import Service

LOOK_S = 5.0
RETRY_S = 60.0
_log = log.get("merging")


class Merging:
    """Looks for deep chains and shortens them."""

    def __init__(
        self,
        *,
        records: Records,
        disks: Disks,
        service: Service,
        operations: Operations,
        max_depth: int,
    ) -> None:
        self._records = records
        self._disks = disks
        self._service = service
        self._operations = operations
        self._max_depth = max_depth
        self._not_before: dict[str, float] = {}  # after a failure; monotonic

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            for record in self._records.all():
                if self._disks.depth(record.vm) > self._max_depth and self._is_due(record.vm):
                    with contextlib.suppress(Conflict):  # busy: its turn comes again
                        await self._shorten(record.vm)

    def _is_due(self, vm: str) -> bool:
        return time.monotonic() >= self._not_before.get(vm, 0.0)

    async def _shorten(self, vm: str) -> None:
        async with self._operations.holding("merging disk layers", vm):
            machine = self._service.machines.get(vm)
            before = self._disks.depth(vm)
            try:
                while await self._disks.merge_step(
                    vm, max_depth=self._max_depth, qmp=machine.qmp if machine else None
                ):
                    pass
            except (AtollError, OSError) as error:  # OSError: the pool is full
                _log.error("merge failed", vm=vm, reason=str(error))
                self._not_before[vm] = time.monotonic() + RETRY_S
                return
            self._not_before.pop(vm, None)
            _log.info("layers merged", vm=vm, before=before, after=self._disks.depth(vm))
