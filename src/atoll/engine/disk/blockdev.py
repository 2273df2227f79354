"""How QEMU is told about a chain: block nodes and file-descriptor sets. Pure; nothing is opened here.

QEMU runs as a user who cannot open the pool, so every file reaches it as descriptors in an fd set
and is opened as /dev/fdset/N. `auto-read-only` makes QEMU hold a file read-only until a parent has
to write, and again after a snapshot froze it; so the set of a writable layer has a descriptor for
each mode.

Node names are layer ids, so whoever finds a running QEMU can tell which layer is which. A layer whose
file was replaced is opened beside its old self for a moment: then `.<generation>` is added.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from atoll.base.errors import Exhausted
from atoll.domain.layers import LayerId

# For `-device virtio-blk-*`: a full pool stops the VM instead of breaking its file system.
DEVICE_OPTIONS = "werror=enospc,rerror=report"
_NODE_NAME_MAX = 31
_FDSETS = range(1, 900)  # higher numbers are left to other users of fd sets
_PREFIX = "/dev/fdset/"
_FILE_SUFFIX = ".f"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockOptions:
    """What the host can do: `aio` is "io_uring" or "threads"; `direct` bypasses its page cache."""

    aio: str = "threads"
    direct: bool = True


def node_name(layer: LayerId, generation: int = 0) -> str:
    """The layer's id, cut to what QEMU takes (only a base's digest is longer)."""
    suffix = f".{generation}" if generation else ""
    return layer[: _NODE_NAME_MAX - len(_FILE_SUFFIX) - len(suffix)] + suffix


def generation_of(name: str) -> int:
    """The generation in a node's name; 0 for the names QEMU was started with."""
    suffix = name.removesuffix(_FILE_SUFFIX).partition(".")[2]
    return int(suffix) if suffix.isdecimal() else 0


def node(
    layer: LayerId,
    *,
    fdset: int,
    backing: str | None,
    writable: bool,
    options: BlockOptions,
    generation: int = 0,
) -> dict[str, object]:
    """One layer, opened from an fd set, as a `blockdev-add` argument.

    `backing` is the name of a node that exists; None leaves the layer without one, as
    `blockdev-snapshot` wants it of an overlay.
    """
    name = node_name(layer, generation)
    return {
        **reopened(name, backing=backing, writable=writable),
        "file": {
            "driver": "file",
            "node-name": name + _FILE_SUFFIX,
            "filename": f"{_PREFIX}{fdset}",
            "aio": options.aio,
            "cache": {"direct": options.direct, "no-flush": False},
            "discard": "unmap",
            "auto-read-only": True,
        },
    }


def reopened(name: str, *, backing: str | None, writable: bool) -> dict[str, object]:
    """The node `name` as a `blockdev-reopen` argument: its file stays, its backing may change."""
    return {
        "driver": "qcow2",
        "node-name": name,
        "read-only": not writable,
        "discard": "unmap",
        "detect-zeroes": "unmap" if writable else "off",
        "backing": backing,
        "file": name + _FILE_SUFFIX,
    }


def chain_nodes(
    chain: Sequence[LayerId], *, options: BlockOptions
) -> tuple[dict[str, object], ...]:
    """A chain given top first as nodes, lowest first; the layer at `chain[i]` is in fd set i + 1.

    The top is writable.
    """
    below: str | None = None
    found = []
    for fdset, layer in reversed(tuple(enumerate(chain, start=1))):
        top = fdset == 1
        found.append(node(layer, fdset=fdset, backing=below, writable=top, options=options))
        below = node_name(layer)
    return tuple(found)


def fdset_of(name: str, nodes: Iterable[Mapping[str, object]]) -> int | None:
    """The fd set the node `name` was opened from, by `query-named-block-nodes`; None: not open."""
    for each in nodes:
        if each.get("node-name") == name + _FILE_SUFFIX:
            number = str(each.get("file", "")).removeprefix(_PREFIX)
            return int(number) if number.isdecimal() else None
    return None


def layer_nodes(nodes: Iterable[Mapping[str, object]]) -> tuple[str, ...]:
    """The names of all nodes that are layers, by `query-named-block-nodes`."""
    return tuple(str(each["node-name"]) for each in nodes if each.get("drv") == "qcow2")


def free_fdsets(sets: Iterable[Mapping[str, object]], count: int) -> tuple[int, ...]:
    """From an answer to `query-fdsets`: numbers not in use. Raises Exhausted."""
    used = {each.get("fdset-id") for each in sets}
    free = tuple(islice((number for number in _FDSETS if number not in used), count))
    if len(free) < count:
        raise Exhausted(f"all {len(_FDSETS)} fd sets of a QEMU are in use")
    return free
