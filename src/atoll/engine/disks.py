"""Disks of this node's VMs: plans from `domain`, done on the pool's files and on running QEMUs.

Invariant: a step on the pool is durable before QEMU is told to rely on it, and undone if QEMU
refuses. Pool work blocks for a fsync or two, so it is done in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Collection
from pathlib import Path

from atoll.base import log
from atoll.base.aio import shielded
from atoll.base.errors import Conflict, NotFound
from atoll.config import Config
from atoll.domain import layer_plans as plans
from atoll.domain.layers import (
    Abandon,
    AddPin,
    Kind,
    LayerId,
    Merge,
    Pin,
    Plan,
    Switch,
    base_id,
)
from atoll.engine.disk.blockdev import BlockOptions
from atoll.engine.disk.live import LiveDisk
from atoll.engine.disk.merge import merge_layers
from atoll.engine.disk.openings import OpenChain, open_chain
from atoll.engine.disk.pool import Pool
from atoll.engine.qemu.qmp import Qmp

MERGE_S = 3600.0
UNDO_S = 60.0  # taking a layer back; under a second unless the host is stuck
_log = log.get("disks")


class Disks:
    """The pool's disks."""

    def __init__(self, pool: Pool, options: BlockOptions) -> None:
        self._pool = pool
        self._options = options

    @classmethod
    async def open(cls, config: Config) -> Disks:
        """Open the pool. Raises Conflict when another engine has it."""
        pool = await asyncio.to_thread(Pool.open, config.pool)
        for name, reason in pool.damaged.items():
            _log.error("pool file damaged", file=name, reason=reason)
        return cls(pool, BlockOptions(aio="io_uring" if _io_uring() else "threads"))

    # -- facts

    def depth(self, vm: str) -> int:
        """Files in the chain of `vm`; 0 before it has a disk, or when that is damaged."""
        with contextlib.suppress(NotFound, Conflict):
            return self._pool.graph.depth(vm)
        return 0

    def used_bytes(self, vm: str) -> int:
        """Bytes on disk that are this VM's own."""
        return self._pool.used_bytes(vm)

    @property
    def is_damaged(self) -> bool:
        """Whether a layer file cannot be read; nothing is deleted then, it might be needed."""
        return bool(self._pool.damaged)

    @property
    def problems(self) -> tuple[str, ...]:
        """Layer files that cannot be read."""
        return tuple(
            f"pool file {name} is damaged, nothing is deleted meanwhile: {reason}"
            for name, reason in self._pool.damaged.items()
        )

    def free_bytes(self) -> int:
        """Bytes the pool can still take."""
        return self._pool.free_bytes()

    # -- images and templates

    async def add_base(self, digest: str, disk: Path) -> None:
        """Take in an image's disk."""
        await asyncio.to_thread(self._pool.add_base, disk, digest)

    def layer_of_image(self, digest: str) -> LayerId:
        """What a cold VM of this image stands on."""
        return base_id(digest)

    async def keep_layer(self, vm: str, template: str) -> LayerId:
        """Freeze the disk of a VM that does not run, for as long as `template` exists."""
        head = self._pool.graph.head(vm)
        pin = Pin(name=template, layer=head.id, holder=template)
        await asyncio.to_thread(self._pool.apply, AddPin(pin))
        return head.id

    async def import_layer(self, file: Path, template: str) -> LayerId:
        """Like `keep_layer`, of a layer file that `link_out` left."""
        return await asyncio.to_thread(self._pool.import_layer, file, template)

    def link_out(self, layer: LayerId, target: Path) -> None:
        """Another name for a frozen layer's file; it never changes, so sharing is safe."""
        os.link(self._pool.path(layer), target)

    async def drop_layer(self, template: str) -> None:
        """Let go of what `keep_layer` kept."""
        if template in self._pool.graph.pins:
            plan = plans.plan_unpin(self._pool.graph, name=template)
            await asyncio.to_thread(self._pool.apply_all, plan)

    def template_pins(self) -> frozenset[str]:
        """Templates that a layer is kept for."""
        return frozenset(name for name in self._pool.graph.pins if name.startswith("tmpl-"))

    def bases(self) -> dict[str, bool]:
        """Digests of image disks, and whether anything stands on each."""
        graph = self._pool.graph
        return {
            layer.id.removeprefix("base-"): bool(graph.children(layer.id))
            for layer in graph.layers.values()
            if layer.kind is Kind.BASE
        }

    async def drop_base(self, digest: str) -> None:
        """Delete an image's disk; one that is not there is fine. Raises Conflict if it is in use."""
        base = base_id(digest)
        if base in self._pool.graph.layers:
            plan = plans.plan_drop_base(self._pool.graph, base=base)
            await asyncio.to_thread(self._pool.apply_all, plan)

    # -- one VM

    async def create(self, vm: str, owner: str, *, parent: LayerId, size_bytes: int) -> None:
        """An empty layer for a new VM on an image, a template or a snapshot."""
        plan = plans.plan_create(
            self._pool.graph,
            vm=vm,
            owner=owner,
            parent=parent,
            size_bytes=size_bytes,
            now=time.time(),
        )
        await asyncio.to_thread(self._pool.apply_all, plan)

    async def drive(self, vm: str, *, size_bytes: int = 0) -> OpenChain:
        """The chain of `vm`, opened for a QEMU about to start; `size_bytes` large, if it is smaller."""
        graph = self._pool.graph
        size_bytes = max(size_bytes, graph.head(vm).size_bytes)
        plan = plans.plan_start(graph, vm=vm, now=time.time(), size_bytes=size_bytes)
        await asyncio.to_thread(self._pool.apply_all, plan)
        return open_chain(self._pool, vm, self._options)

    def size_bytes(self, vm: str) -> int:
        """The size of the disk of `vm`, as its guest sees it; 0 where there is none to use."""
        with contextlib.suppress(NotFound, Conflict):
            return self._pool.graph.head(vm).size_bytes
        return 0

    async def grow(self, vm: str, qmp: Qmp, *, size_bytes: int) -> bool:
        """Make the disk of a VM whose QEMU runs larger, and its guest notice.

        False: it is as large already; the guest is told again.
        """
        plan = plans.plan_grow(self._pool.graph, vm=vm, size_bytes=size_bytes, now=time.time())
        live = self._live(vm, qmp)
        if plan:
            layer = Fork(self._pool, plan, live)
            try:
                await layer.prepare()
                await layer.switch()
                await layer.finish()
            except BaseException:
                await shielded(layer.abandon(), seconds=UNDO_S)
                raise
        await live.announce_size()
        return bool(plan)

    async def remove(self, vm: str) -> None:
        """Delete the disk of `vm`; layers that clones stand on stay for them."""
        plan = plans.plan_delete(self._pool.graph, vm=vm)
        await asyncio.to_thread(self._pool.apply_all, plan)

    async def fork(
        self, source: str, child: str, owner: str, qmp: Qmp | None, *, size_bytes: int
    ) -> Fork:
        """Begin a clone of the disk of `source`, whose QEMU `qmp` speaks to; see Fork.

        `size_bytes` is the child's, at least that of the source.
        """
        plan = plans.plan_clone(
            self._pool.graph,
            source=source,
            vm=child,
            owner=owner,
            now=time.time(),
            size_bytes=size_bytes,
        )
        return Fork(self._pool, plan, self._live(source, qmp) if qmp else None)

    # -- snapshots

    async def snapshot(self, vm: str, snapshot: str, qmp: Qmp | None) -> Fork:
        """Begin to keep the disk of `vm`, whose QEMU `qmp` speaks to; see Fork.

        It has nothing to do for a snapshot that is there. Raises Conflict when that is another VM's.
        """
        graph, now = self._pool.graph, time.time()
        plan = plans.plan_snapshot(graph, vm=vm, name=snapshot, now=now)
        return Fork(self._pool, plan, self._live(vm, qmp) if qmp else None)

    def has_snapshot(self, vm: str, snapshot: str) -> bool:
        """Whether `vm` keeps something under this name."""
        pin = self._pool.graph.pins.get(snapshot)
        return pin is not None and pin.holder == vm

    async def is_kept(self, vm: str) -> bool:
        """Whether a snapshot that `vm` keeps has its disk as it is; in doubt it has not.

        What a guest has not handed to its disk yet is not seen.
        """
        return await asyncio.to_thread(self._is_kept, vm)

    def _is_kept(self, vm: str) -> bool:
        graph = self._pool.graph
        kept = {pin.layer for pin in graph.pins.values() if pin.holder == vm}
        layer = graph.head(vm)
        while layer.id not in kept:
            below = graph.layer(layer.parent) if layer.parent is not None else None
            is_same = below is not None and below.size_bytes == layer.size_bytes
            if below is None or not is_same or not self._pool.is_as_made(layer.id):
                return False
            layer = below
        return True

    async def snapshots(self, vm: str) -> dict[str, int]:
        """What `vm` keeps, and the bytes that each of them holds alone."""
        return await asyncio.to_thread(self._pool.alone_bytes, vm)

    def layer_of_snapshot(self, vm: str, snapshot: str) -> LayerId:
        """What a copy of a snapshot stands on. Raises NotFound when `vm` has no such snapshot."""
        if not self.has_snapshot(vm, snapshot):
            raise NotFound(f"{vm} has no snapshot {snapshot}")
        return self._pool.graph.pins[snapshot].layer

    def plan_rollback(self, vm: str, snapshot: str, keep: str) -> Plan:
        """What `roll_back` would do now; nothing when it was done. Raises what that would raise."""
        graph, now = self._pool.graph, time.time()
        return plans.plan_rollback(graph, vm=vm, name=snapshot, keep=keep, now=now)

    async def roll_back(self, vm: str, snapshot: str, keep: str) -> None:
        """Make the disk of `vm`, which has no process, what `snapshot` keeps; see plan_rollback.

        Raises NotFound when it has no such snapshot.
        """
        plan = self.plan_rollback(vm, snapshot, keep)
        # A failure leaves the pin `keep`: it cannot be told whether the layer after it is on the disk.
        await asyncio.to_thread(self._pool.apply_all, plan)

    async def drop_snapshot(self, vm: str, snapshot: str) -> None:
        """Let go of a snapshot; one that is not there is fine. Raises Conflict if it is another VM's."""
        graph = self._pool.graph
        if snapshot not in graph.pins:
            return
        if not self.has_snapshot(vm, snapshot):
            raise Conflict(f"{snapshot} is no snapshot of {vm}")
        await asyncio.to_thread(self._pool.apply_all, plans.plan_unpin(graph, name=snapshot))

    # -- keeping chains short

    async def merge_step(self, vm: str, *, max_depth: int, qmp: Qmp | None) -> bool:
        """Do the cheapest merge that shortens the chain of `vm`; False when it is short enough.

        Nothing else may touch this VM's disk meanwhile.
        """
        graph = self._pool.graph
        allocated = await asyncio.to_thread(self._pool.allocated)
        plan = plans.plan_merge(graph, vm=vm, max_depth=max_depth, allocated=allocated)
        if not plan:
            return False
        step = plan[0]
        assert isinstance(step, Merge)  # plan_merge: what it returns begins so
        await merge_layers(self._pool, step, options=self._options, seconds=MERGE_S)
        if qmp is not None:
            await self._live(vm, qmp).renew()
        await asyncio.to_thread(self._pool.apply_all, plans.plan_collect(self._pool.graph))
        return True

    # -- after a restart

    async def adopt(self, qmp: Qmp, vm: str) -> None:
        """Agree with a running QEMU about its layers: a switch or a merge may have been cut short.

        Raises Conflict when it writes to a layer that is not in its VM's chain.
        """
        await self._live(vm, qmp).catch_up()

    def _live(self, vm: str, qmp: Qmp) -> LiveDisk:
        return LiveDisk(monitor=qmp, pool=self._pool, vm=vm, options=self._options)

    async def reconcile(self, vms: Collection[str]) -> None:
        """Delete disks of VMs that no record names, and what merges and deletions left over.

        Not while a file is damaged: whose it is, or what stands on it, cannot be told.
        """
        if self.is_damaged:
            return
        for vm in sorted(self._pool.graph.vms() - set(vms)):
            if vm.startswith("vm-"):
                _log.warning("disk without a vm removed", vm=vm)
                await self.remove(vm)
        plan = plans.plan_collect(self._pool.graph)
        await asyncio.to_thread(self._pool.apply_all, plan)


class Fork:
    """A clone or a snapshot of one disk, or a new top of it, in three parts around its plan's Switch.

    `prepare`, then `switch` at the instant of the clone, then, with the VM running again, `finish`.
    `abandon` undoes `prepare` when `switch` was not reached. Without a Switch, for the head is frozen
    already, all is done by `finish`.
    """

    def __init__(self, pool: Pool, plan: Plan, live: LiveDisk | None) -> None:
        self._pool = pool
        self._live = live
        self._switch = next((step for step in plan if isinstance(step, Switch)), None)
        at = plan.index(self._switch) if self._switch is not None else 0
        self._before = plan[:at]
        self._after = tuple(step for step in plan[at:] if step != self._switch)

    async def prepare(self) -> None:
        """Make the source's next layer, and let its QEMU open it."""
        if self._switch is None:
            return
        for step in self._before:
            await asyncio.to_thread(self._pool.apply, step)
        if self._live is not None:
            await self._live.attach(self._switch.top)

    async def switch(self) -> None:
        """Freeze the source's disk: from here on its QEMU writes to the next layer. About 1 ms."""
        if self._switch is not None and self._live is not None:
            await self._live.switch(self._switch.frozen, self._switch.top)

    async def finish(self) -> None:
        """Take write access to the frozen layer away, then pin it or make a child's first layer on it."""
        if self._switch is not None and self._live is not None:
            await self._live.seal(self._switch.frozen, self._switch.top)
        for step in self._after:
            await asyncio.to_thread(self._pool.apply, step)

    async def abandon(self) -> None:
        """Undo what was begun; safe in any state."""
        if self._switch is None or self._switch.top not in self._pool.graph.layers:
            return
        if self._live is not None:
            if await self._live.active() == self._switch.top:
                return  # switched after all: the new layer is in use, and the disk is right
            await self._live.detach(self._switch.top)
        if not self._pool.graph.children(self._switch.top):
            await asyncio.to_thread(self._pool.apply, Abandon(self._switch.top))


def _io_uring() -> bool:
    """Whether this kernel lets us: the sysctl is there (Linux 6.6) and says 0."""
    try:
        return Path("/proc/sys/kernel/io_uring_disabled").read_text().strip() == "0"
    except OSError:
        return False
