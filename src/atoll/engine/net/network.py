"""The networks of this node's VMs: one slot each, some kept ready so that `new` does not wait.

Invariant: a slot is handed to one VM at a time and is built afresh between two VMs, so that no
connection of the one before is found in it. Nothing here outlives the process but what the kernel
holds; `reconcile` with the engine's records makes both agree after a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from atoll.base import log
from atoll.base.aio import shielded, together
from atoll.base.errors import AtollError, Conflict, Exhausted
from atoll.config import Network as Settings
from atoll.engine.net import host, kernel, rules
from atoll.engine.net.address import Layout, Slot
from atoll.engine.net.kernel import Traffic
from atoll.engine.net.services import Services

RETRY_SECONDS = 5.0  # after a failure to prepare a slot
AT_ONCE = 4  # slots built or removed together; the kernel does them one by one in any case
CLEANUP_SECONDS = 30.0
_log = log.get("engine.net")


class Network:
    """Slots of one Atoll. Call `setup`, then `reconcile`, before anything else."""

    def __init__(self, *, settings: Settings, services: Services, slots_ready: int) -> None:
        self.layout = Layout(instance=settings.instance, block=settings.block)
        self._services = services
        self.problems: tuple[str, ...] = ()
        self._limits = rules.Limits(
            connections=settings.connections_per_vm,
            new_per_second=settings.new_connections_per_second,
        )
        self._slots_ready = slots_ready
        self._features = rules.Features()
        self._inner_rules = self._render_inner()
        self._busy: set[int] = set()  # being built or removed
        self._ready: list[int] = []  # complete, nobody's
        self._taken: set[int] = set()  # handed out
        self._wanted = asyncio.Event()
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def setup(self) -> None:
        """Make the host's side: service address, forwarding, rules. Doing it again refreshes it.

        Raises Conflict when the block is routed elsewhere. `problems` then tells what is degraded.
        """
        await host.check_routes(self.layout)
        self._features = await host.probe()
        self._inner_rules = self._render_inner()
        await kernel.nft(
            rules.render_root(self.layout, self._limits, self._features, self._services)
        )
        await host.add_service_link(self.layout)
        host.forward()
        self.problems = (*self._features.problems(), *await host.foreign_firewalls(self.layout))

    def _render_inner(self) -> str:
        return rules.render_inner(self.layout, self._limits, self._features, self._services)

    async def teardown(self) -> None:
        """Remove everything with our prefix. Forwarding stays on: others may rely on it by now."""
        await self.reconcile(())
        link = self.layout.service_link
        if (kernel.LINKS / link).exists():
            await kernel.ip(f"link del {link}")
        await kernel.nft(rules.remove_root(self.layout))

    def existing(self) -> set[int]:
        """Slots of which anything exists in the kernel, ours or a crashed engine's."""
        return kernel.found(self.layout)

    async def reconcile(self, wanted: Iterable[int]) -> None:
        """Remove every slot that is not in `wanted`, and count those as handed out."""
        self._taken = set(wanted)
        self._ready.clear()
        await together(*(self._drop(n) for n in sorted(self.existing() - self._taken)))
        self._wanted.set()

    async def acquire(self, in_use: Iterable[int] = ()) -> Slot:
        """A complete slot that is in nobody's hands. 0.1 ms from the ready ones, else about 15 ms.

        `in_use` are the slots of the engine's records. Raises Exhausted when the block is full.
        """
        self._taken |= set(in_use)
        ready = [number for number in self._ready if number not in self._taken]
        self._ready = ready
        self._wanted.set()
        if ready:
            number = ready.pop(0)
            self._taken.add(number)
            return self.layout.slot(number)
        slot = self._claim()
        self._taken.add(slot.number)
        try:
            await self._build(slot)
        except BaseException:
            self._taken.discard(slot.number)
            raise
        return slot

    async def ensure(self, number: int) -> Slot:
        """The slot of a VM that has one: rebuilt when damaged, else its rules brought up to date."""
        slot = self.layout.slot(number)
        self._taken.add(number)
        if number in self._ready:
            self._ready.remove(number)
        async with self._hold(slot):
            if kernel.is_complete(slot):
                await kernel.refresh(slot, self._inner_rules)
            else:
                await self._build_held(slot)
        return slot

    async def release(self, number: int) -> None:
        """Remove a slot with all its connections; a slot already gone is fine."""
        await self._drop(number)
        self._taken.discard(number)
        self._wanted.set()

    async def keep_ready(self) -> None:
        """Run for ever: keep `slots_ready` complete slots ahead of `acquire`."""
        while True:
            self._wanted.clear()
            try:
                while len(self._ready) < self._slots_ready:
                    slot = self._claim()
                    await self._build(slot)
                    self._offer(slot.number)
            except AtollError as error:  # acquire meets and reports the same; this only helps it
                _log.warning("no slot prepared", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
                continue
            await self._wanted.wait()

    @property
    def ready(self) -> tuple[int, ...]:
        """Slots that `acquire` hands out at once."""
        return tuple(self._ready)

    async def open_tap(self, slot: Slot, *, forked: bool = False) -> int:
        """See `kernel.open_tap`."""
        return await kernel.open_tap(slot, forked=forked)

    def open(self, number: int) -> None:
        """Let packets pass. A slot is handed out open; `close` it before its VM is ready for them."""
        kernel.plug(self.layout.slot(number), into=True)

    def close(self, number: int) -> None:
        """Let none pass, in or out; connections stay in the tables."""
        kernel.plug(self.layout.slot(number), into=False)

    def traffic(self, number: int) -> Traffic:
        """Byte counters of a slot, as its VM sees them."""
        return kernel.traffic(self.layout.slot(number))

    def _claim(self) -> Slot:
        """The lowest number nobody has. Nothing awaits between here and its entry in a set."""
        held = self._taken | self._busy | set(self._ready)
        for number in range(self.layout.capacity):
            if number not in held:
                return self.layout.slot(number)
        raise Exhausted(
            f"all {self.layout.capacity} network slots of {self.layout.block} are in use",
            hint="Try: a larger network.block in the configuration, or delete VMs",
        )

    def _offer(self, number: int) -> None:
        if number not in self._taken:  # else `ensure` took it meanwhile
            self._ready.append(number)

    async def _build(self, slot: Slot) -> None:
        async with self._hold(slot):
            await self._build_held(slot)

    async def _build_held(self, slot: Slot) -> None:
        try:
            await kernel.build(slot, self._inner_rules)
        except BaseException:
            await shielded(kernel.remove(slot), seconds=CLEANUP_SECONDS)
            raise

    async def _drop(self, number: int) -> None:
        slot = self.layout.slot(number)
        async with self._hold(slot):
            await kernel.remove(slot)

    @asynccontextmanager
    async def _hold(self, slot: Slot) -> AsyncIterator[None]:
        """One change of a slot at a time, and not too many in all."""
        if slot.number in self._busy:
            raise Conflict(f"network slot {slot.number} is being changed already")
        self._busy.add(slot.number)
        try:
            async with self._at_once:
                yield
        finally:
            self._busy.discard(slot.number)
