"""A VM's chain opened for its QEMU: descriptors with their fd sets, and the nodes that use them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from atoll.base.errors import Conflict
from atoll.domain.layers import LayerId
from atoll.engine.disk.blockdev import BlockOptions, chain_nodes, node_name
from atoll.engine.disk.pool import Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenChain:
    """What `-add-fd fd=,set=` and `-blockdev` take, nodes lowest first.

    The starter must `close` it once QEMU runs: a descriptor kept here keeps QEMU's file locks.
    """

    fds: tuple[tuple[int, int], ...]  # (descriptor, fd set number)
    nodes: tuple[dict[str, object], ...]
    top_node: str

    def close(self) -> None:
        """Close our copies."""
        for fd, _ in self.fds:
            os.close(fd)


def open_chain(pool: Pool, vm: str, options: BlockOptions) -> OpenChain:
    """Open the chain of `vm` for writing to its head.

    Raises Conflict when the head is frozen: `layer_plans.plan_start` says what to do first.
    """
    graph = pool.graph
    if graph.writable(vm) is None:
        raise Conflict(f"layer {graph.head(vm).id} is frozen; {vm} needs a new one to start")
    chain = [layer.id for layer in graph.chain(graph.head(vm).id)]
    fds: list[tuple[int, int]] = []
    try:
        for fdset, layer in enumerate(chain, start=1):
            fds.append((open_layer(pool, layer, writable=False), fdset))
        fds.append((open_layer(pool, chain[0], writable=True), 1))
    except BaseException:
        for fd, _ in fds:
            os.close(fd)
        raise
    return OpenChain(
        fds=tuple(fds),
        nodes=chain_nodes(chain, options=options),
        top_node=node_name(chain[0]),
    )


def open_layer(pool: Pool, layer: LayerId, *, writable: bool) -> int:
    """A descriptor of the layer's file, close-on-exec."""
    mode = os.O_RDWR if writable else os.O_RDONLY
    return os.open(pool.path(layer), mode | os.O_CLOEXEC | os.O_NOFOLLOW)
