"""Layers of a running QEMU, over its monitor: a new one on top, merged ones underneath.

The order is always: file and index first, QEMU second, descriptors last. Whatever stops in between,
`catch_up` brings QEMU to what the pool says.

Invariant: a descriptor that can write to a frozen layer is taken from QEMU as soon as the layer is
frozen (`seal`), so that a QEMU taken over by its guest cannot change what clones read. QEMU lets go
of it only while its VM runs (monitor_fdset_cleanup), so call `seal` after `cont`.

An fd set must not keep the descriptor that QEMU has opened from it: both share one set of file
locks, and the locks a reopen leaves on the old descriptor refuse the next one ("Failed to get
write lock"). So sets are filled with fresh descriptors after each change.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from atoll.base.aio import shielded
from atoll.base.errors import AtollError, Conflict, Internal, Unavailable
from atoll.domain.layers import Layer, LayerId
from atoll.engine.disk.blockdev import (
    BlockOptions,
    fdset_of,
    free_fdsets,
    generation_of,
    layer_nodes,
    node,
    node_name,
    reopened,
)
from atoll.engine.disk.openings import open_layer
from atoll.engine.disk.pool import Pool

_CLEANUP_S = 30.0


class Monitor(Protocol):
    """What this module needs of a QMP connection."""

    async def execute(
        self, command: str, arguments: dict[str, Any] | None = None, *, seconds: float = 10
    ) -> Any:
        """Run a command and return its answer; raises AtollError."""

    async def add_fd(self, fdset: int, fd: int) -> None:
        """Add a descriptor to the fd set of this number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveDisk:
    """The disk of one VM whose QEMU runs."""

    monitor: Monitor
    pool: Pool
    vm: str
    options: BlockOptions

    async def attach(self, layer: LayerId) -> None:
        """Open a new, empty layer beside the running disk; the guest notices nothing.

        QEMU refuses a layer that is attached already.
        """
        (fdset,) = await self._free_fdsets(1)
        await self._open(layer, fdset, backing=None, writable=True)

    async def switch(self, frozen: LayerId, top: LayerId) -> None:
        """From now on the guest writes to `top`, attached before.

        Of a fork only this needs the VM paused: one command, about a millisecond.
        """
        await self.monitor.execute(
            "blockdev-snapshot", {"node": node_name(frozen), "overlay": node_name(top)}
        )

    async def announce_size(self) -> None:
        """Make the guest read its disk's size again: it may have got a larger top.

        Resizing to the size it has moves no data; the device then reports a change of configuration.
        """
        head = self._chain()[0]
        await self.monitor.execute(
            "block_resize", {"node-name": node_name(head.id), "size": head.size_bytes}
        )

    async def seal(self, *layers: LayerId) -> None:
        """Take from QEMU every descriptor of frozen layers that can write.

        Of the head it gets fresh ones of both kinds: to be frozen it needs one that only reads.
        """
        nodes = await self._nodes()  # once: what QEMU says is as long as the chain is deep
        for layer in layers:
            fdset = fdset_of(node_name(layer), nodes)
            if fdset is None:
                raise Conflict(f"layer {layer} is not open in the QEMU of {self.vm}")
            await self._drop_set(fdset)
            await self._fill(fdset, layer, writable=layer == self._chain()[0].id)

    async def detach(self, layer: LayerId) -> None:
        """Close a layer that the disk does not use; one that is not open is fine."""
        fdset = fdset_of(node_name(layer), await self._nodes())
        if fdset is not None:
            await self._close(node_name(layer), fdset)

    async def renew(self) -> bool:
        """Have QEMU use the chain as it is in the pool now, after a merge; False if it did already.

        What it reads is the same; the files of merged layers are let go. One command of this
        halts the guest's requests, about a millisecond.
        """
        head, *frozen = self._chain()
        if not await self._is_stale(frozen):
            return False
        generation = 1 + max(map(generation_of, layer_nodes(await self._nodes())))
        fdsets = await self._free_fdsets(len(frozen))
        below: str | None = None
        try:
            for fdset, layer in zip(fdsets, reversed(frozen), strict=True):
                await self._open(layer.id, fdset, backing=below, generation=generation)
                below = node_name(layer.id, generation)
            options = reopened(node_name(head.id), backing=below, writable=True)
            await self.monitor.execute("blockdev-reopen", {"options": [options]})
        finally:
            await shielded(self._sweep(), seconds=_CLEANUP_S)
        await asyncio.to_thread(self.pool.sweep)
        return True

    async def active(self) -> LayerId:
        """The layer this QEMU writes to. Raises Internal when it has no disk of this pool."""
        for drive in await self.monitor.execute("query-block"):
            name = str(drive.get("inserted", {}).get("node-name", ""))
            if name in self.pool.graph.layers:
                return LayerId(name)
        raise Internal(f"the QEMU of {self.vm} has no disk from this pool")

    async def catch_up(self) -> None:
        """After a crash of ours: let QEMU write to the head the pool knows, close what it lost.

        Raises Conflict when QEMU writes to something that is not in the VM's chain.
        """
        await self._sweep()
        chain = [layer.id for layer in self._chain()]
        active = await self.active()
        if active not in chain:
            raise Conflict(f"{self.vm} writes to {active}, which is not in its chain")
        at = chain.index(active)
        missed, below = chain[:at], chain[at + 1 : at + 2]
        nodes = await self._nodes()
        for top in reversed(missed):
            if fdset_of(node_name(top), nodes) is None:
                await self.attach(top)
            await self.switch(chain[chain.index(top) + 1], top)
        await self.seal(*missed, active)
        # The switch itself may have been the last that was done.
        nodes = await self._nodes()
        for layer in below:
            if fdset_of(node_name(layer), nodes) is not None:
                await self.seal(layer)

    def _chain(self) -> tuple[Layer, ...]:
        return self.pool.graph.chain(self.pool.graph.head(self.vm).id)

    async def _is_stale(self, frozen: list[Layer]) -> bool:
        """Whether QEMU has layers open that left the chain. A merge always takes some out."""
        wanted = {node_name(layer.id) for layer in frozen}
        open_now = {name.partition(".")[0] for name in layer_nodes(await self._nodes())}
        return bool(open_now - wanted - {node_name(self._chain()[0].id)})

    async def _sweep(self) -> None:
        """Close layers nothing in QEMU uses: it refuses the others, so trying is safe."""
        head = node_name(self._chain()[0].id)
        found = True
        while found:
            nodes, found = await self._nodes(), False
            for name in layer_nodes(nodes):  # newest first, so what stands on a layer goes first
                fdset = fdset_of(name, nodes)
                if name != head and fdset is not None and await self._closed(name, fdset):
                    found = True  # what stood under it may be free now

    async def _closed(self, name: str, fdset: int) -> bool:
        try:
            await self._close(name, fdset)
        except Unavailable:
            raise
        except AtollError:
            return False  # in use
        return True

    async def _close(self, name: str, fdset: int) -> None:
        await self.monitor.execute("blockdev-del", {"node-name": name})
        await self._drop_set(fdset)

    async def _open(
        self,
        layer: LayerId,
        fdset: int,
        *,
        backing: str | None,
        writable: bool = False,
        generation: int = 0,
    ) -> None:
        options = node(
            layer,
            fdset=fdset,
            backing=backing,
            writable=writable,
            options=self.options,
            generation=generation,
        )
        try:
            await self._fill(fdset, layer, writable=writable)
            await self.monitor.execute("blockdev-add", options)
        except BaseException:
            await shielded(self._drop_set(fdset), seconds=_CLEANUP_S)
            raise

    async def _nodes(self) -> list[Mapping[str, Any]]:
        found = await self.monitor.execute("query-named-block-nodes", {"flat": True})
        return list(found)

    async def _fill(self, fdset: int, layer: LayerId, *, writable: bool) -> None:
        """A descriptor that reads, and one that writes too if `writable`, into the fd set."""
        for mode in (False, True) if writable else (False,):
            fd = open_layer(self.pool, layer, writable=mode)
            try:
                await self.monitor.add_fd(fdset, fd)
            finally:
                os.close(fd)

    async def _free_fdsets(self, count: int) -> tuple[int, ...]:
        return free_fdsets(await self.monitor.execute("query-fdsets"), count)

    async def _drop_set(self, fdset: int) -> None:
        """Take an fd set's descriptors from QEMU. One that is gone is fine: QEMU drops sets too."""
        try:
            await self.monitor.execute("remove-fd", {"fdset-id": fdset})
        except Unavailable:
            raise
        except AtollError:
            if any(x.get("fdset-id") == fdset for x in await self.monitor.execute("query-fdsets")):
                raise
