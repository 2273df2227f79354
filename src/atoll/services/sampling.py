"""Writes down once a minute what every running VM used, for charts of a day, a week and a month.

Invariant: the engine is asked one question a round, however many VMs there are, and asks no guest. What
was read is the base of the next round only once it is in the store, so a round that fails makes the
next one longer and loses nothing, up to MAX_GAP_S.

A VM that does not run has no sample: that is a gap in its charts, as is the time that control was away.
Why a minute: it is what a restart of a VM or of control may cost a chart, and little next to the
5 minutes of its finest point.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from atoll.base import log
from atoll.base.errors import AtollError
from atoll.domain.usage import Range, Reading, Sizes, Use, fold, growth
from atoll.rpc.messages import Sample, Samples, SampleVms, Vm
from atoll.services.facts import ASK_S, Engine, Facts
from atoll.store import samples, vms
from atoll.store.engine import Store, Tx

EVERY_S = 60.0
_log = log.get("sampling")


class Sampler:
    """Follows the counters of one engine's VMs."""

    def __init__(
        self,
        *,
        store: Store,
        engine: Engine,
        facts: Facts,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.problem = ""  # why the newest round failed
        self._store = store
        self._engine = engine
        self._facts = facts
        self._now = now
        self._before: dict[str, Reading] = {}

    async def run(self) -> None:
        """A round every minute. An engine that is away, or too old to be asked, is asked again."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.attempt()

    async def attempt(self) -> None:
        """A round, or `problem` says why there was none."""
        try:
            await self.sample()
            problem = ""
        except AtollError as error:
            problem = error.message
        if problem != self.problem:
            _log.info("vms sampled again" if not problem else "vms not sampled", reason=problem)
        self.problem = problem

    async def sample(self) -> None:
        """Ask the engine and add what was used since the last time to all three histories."""
        answer = await self._engine.call(SampleVms(), Samples, seconds=ASK_S)
        readings = {sample.vm: _reading(sample) for sample in answer.samples}
        uses: dict[str, Use] = {}
        for sample in answer.samples:
            facts = self._facts.get(sample.vm)
            if facts is not None:  # else the next list of VMs has it
                grown = growth(self._before.get(sample.vm), readings[sample.vm])
                uses[sample.vm] = Use(grown, _sizes(sample, facts))
        if uses:
            async with self._store.begin() as tx:
                await _add(tx, uses, self._now())
        self._before = readings


async def _add(tx: Tx, uses: Mapping[str, Use], now: float) -> None:
    """Fold what VMs used into the spans that `now` is in; a VM may be gone by now."""
    known = await vms.ids(tx)
    uses = {vm: use for vm, use in uses.items() if vm in known}
    for range_ in Range:
        start = range_.start(now)
        kept = await samples.at(tx, range_, start, uses)
        folded = {vm: fold(kept[vm], use) if vm in kept else use for vm, use in uses.items()}
        await samples.put(tx, range_, start, folded)


def _reading(sample: Sample) -> Reading:
    return Reading(
        process=sample.process,
        since_boot_s=sample.since_boot_s,
        cpu_seconds=sample.cpu_seconds,
        network_rx_bytes=sample.network_rx_bytes,
        network_tx_bytes=sample.network_tx_bytes,
        io_read_bytes=sample.io_read_bytes,
        io_write_bytes=sample.io_write_bytes,
    )


def _sizes(sample: Sample, facts: Vm) -> Sizes:
    return Sizes(
        memory_used_bytes=sample.memory_bytes,
        memory_total_bytes=facts.spec.memory_bytes,
        disk_used_bytes=facts.disk_used_bytes,
        disk_size_bytes=facts.spec.disk_bytes,
        cpus=facts.spec.cpus,
    )
