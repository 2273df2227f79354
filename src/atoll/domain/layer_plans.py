"""Plans over disk layers: create, clone, snapshot, roll back, delete, merge.

Each function takes a `LayerGraph` and returns the steps to take, in an order that is safe to stop
after any of them. They decide; `atoll.engine.disk` acts. Raises NotFound for a VM, pin or layer
that is not there and Conflict where the graph does not allow the act.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from atoll.base.errors import Conflict, Invalid, NotFound
from atoll.domain.layer_graph import LayerGraph
from atoll.domain.layers import (
    AddPin,
    CreateLayer,
    DropPin,
    Forget,
    Kind,
    Layer,
    LayerId,
    Merge,
    Pin,
    Plan,
    Retire,
    Step,
    Switch,
    Unlink,
    layer_id,
)

# Bytes of a layer that stays for other readers are copied without being freed later: they count
# this much more. A judgement, not a measurement.
_STAYS_PENALTY = 4


def plan_create(
    graph: LayerGraph, *, vm: str, owner: str, parent: LayerId, size_bytes: int, now: float
) -> Plan:
    """The first layer of a new VM, on an image base or a pinned layer (a template, a snapshot)."""
    below = graph.layer(parent)
    if below.kind is not Kind.BASE and parent not in graph.pinned:
        raise Conflict(f"layer {parent} is not pinned, so it is no point to start from")
    return (_first(graph, vm=vm, owner=owner, on=below, size_bytes=size_bytes, now=now),)


def plan_clone(
    graph: LayerGraph, *, source: str, vm: str, owner: str, now: float, size_bytes: int = 0
) -> Plan:
    """Freeze the head of `source`; it goes on in a new layer, and so does the new VM.

    `size_bytes` 0 keeps the size. Start the child only after the whole plan is done: before the
    Switch the frozen layer is still being written.
    """
    head = graph.head(source)
    size = size_bytes or head.size_bytes
    child = _first(graph, vm=vm, owner=owner, on=head, size_bytes=size, now=now)
    return (*_freeze(graph, source, Kind.CLONE, now), child)


def plan_snapshot(graph: LayerGraph, *, vm: str, name: str, now: float) -> Plan:
    """Freeze the head and keep it under `name`; nothing when `vm` keeps something under it already.

    The pin comes last: cut short before it, nothing is kept, and the next try freezes anew.
    """
    if _pin_of(graph, vm, name) is not None:
        return ()
    pin = AddPin(Pin(name=name, layer=graph.head(vm).id, holder=vm))
    return (*_freeze(graph, vm, Kind.SNAPSHOT, now), pin)


def plan_rollback(graph: LayerGraph, *, vm: str, name: str, keep: str, now: float) -> Plan:
    """Go on from what `vm` keeps under `name`; its head is kept under `keep` first, to undo this.

    The VM must not run. Nothing when it was done already; cut short, the same call does the rest, also
    when the VM has run meanwhile: then `keep` moves on to the head of now.
    """
    head, kept, pin = graph.head(vm), _pin_of(graph, vm, keep), graph.pins.get(name)
    if kept is not None and _is_rolled_back(graph, head, kept.layer):
        return ()
    if pin is None or pin.holder != vm:
        raise NotFound(f"{vm} has no snapshot {name}")
    if name == keep:
        raise Conflict(f"{vm} keeps another state under {keep}")
    steps: list[Step] = []
    if kept is not None and kept.layer != head.id:
        steps.append(DropPin(keep))
    if kept is None or kept.layer != head.id:
        steps.append(AddPin(Pin(name=keep, layer=head.id, holder=vm)))
    target = graph.layer(pin.layer)
    size = max(target.size_bytes, head.size_bytes)
    top = _next(head, on=target.id, kind=Kind.ROLLBACK, size=size, now=now)
    return (*steps, CreateLayer(top))


def plan_start(graph: LayerGraph, *, vm: str, now: float, size_bytes: int = 0) -> Plan:
    """What must be done before `vm` may run: nothing, unless its head is frozen or has to grow."""
    head = graph.head(vm)
    size = size_bytes or head.size_bytes
    if size < head.size_bytes:
        raise Invalid(f"the disk of {vm} has {head.size_bytes} bytes and cannot shrink to {size}")
    if graph.writable(vm) is not None and size == head.size_bytes:
        return ()
    return (CreateLayer(_next(head, on=head.id, kind=Kind.START, size=size, now=now)),)


def plan_grow(graph: LayerGraph, *, vm: str, size_bytes: int, now: float) -> Plan:
    """A larger layer on top of what the running `vm` writes; nothing when that is as large.

    Not the head itself: a layer's size never changes, so what stands on it is as large whenever a
    crash interrupts this.
    """
    head = graph.head(vm)
    if size_bytes <= head.size_bytes:
        return ()
    top = _next(head, on=head.id, kind=Kind.START, size=size_bytes, now=now)
    return (CreateLayer(top), Switch(vm=vm, frozen=head.id, top=top.id))


def plan_delete(graph: LayerGraph, *, vm: str) -> Plan:
    """Retire `vm`, drop its pins, unlink what nothing else needs. A VM that is not there is fine.

    Layers that clones stand on stay until the last clone goes; that deletion unlinks them.
    """
    steps: list[Step] = []
    if vm in graph.vms():
        steps.append(Retire(vm))
    steps += [DropPin(pin.name) for pin in graph.pins.values() if pin.holder == vm]
    return (*steps, *plan_collect(graph.after(*steps)))


def plan_unpin(graph: LayerGraph, *, name: str) -> Plan:
    """Forget a pin and unlink what only it kept."""
    drop = DropPin(name)
    return (drop, *plan_collect(graph.after(drop)))


def plan_drop_base(graph: LayerGraph, *, base: LayerId) -> Plan:
    """Unlink an image base nothing stands on."""
    if graph.layer(base).kind is not Kind.BASE or graph.children(base) or base in graph.pinned:
        raise Conflict(f"layer {base} is in use and stays")
    return (Unlink(base),)


def plan_collect(graph: LayerGraph) -> Plan:
    """Unlink what nothing needs; it also ends deletions and merges a crash cut short."""
    steps: tuple[Step, ...] = tuple(Unlink(layer) for layer in graph.garbage())
    left = {layer.vm for layer in graph.after(*steps).layers.values()}
    return (*steps, *(Forget(vm) for vm in sorted(graph.retired - left)))


def plan_merge(
    graph: LayerGraph, *, vm: str, max_depth: int, allocated: Mapping[LayerId, int]
) -> Plan:
    """The cheapest merge that shortens the chain of `vm`, or nothing when it is short enough.

    `allocated` gives the bytes each layer holds on disk. Cheapest is: fewest bytes copied for each
    layer the chain gets shorter by. One merge per call; ask again after it. Every other chain through
    the same layers gets shorter too.
    """
    chain = graph.chain(graph.head(vm).id)
    if len(chain) <= max_depth:
        return ()
    first = 1 if graph.writable(vm) else 0  # a head that may be written is never replaced
    found: list[tuple[float, int, Merge]] = []
    for at in range(first, len(chain) - 2):
        cost = float(allocated.get(chain[at].id, 0))
        for base in range(at + 2, len(chain)):
            between = chain[base - 1]
            stays = len(graph.children(between.id)) > 1 or between.id in graph.pinned
            cost += allocated.get(between.id, 0) * (_STAYS_PENALTY if stays else 1)
            shorter = base - at - 1
            found.append((cost / shorter, -shorter, Merge(chain[at].id, chain[base].id)))
    if not found:
        return ()
    step = min(found, key=lambda each: each[:2])[2]
    return (step, *plan_collect(graph.after(step)))


def _first(
    graph: LayerGraph, *, vm: str, owner: str, on: Layer, size_bytes: int, now: float
) -> CreateLayer:
    if vm in graph.vms() or vm in graph.retired:
        raise Conflict(f"{vm} has a disk already", hint="Delete it first, or use another id")
    if size_bytes < on.size_bytes:
        raise Invalid(f"a disk on {on.id} has at least {on.size_bytes} bytes, not {size_bytes}")
    kind = Kind.CREATE if on.kind is Kind.BASE or on.id in graph.pinned else Kind.CLONE
    layer = Layer(
        id=layer_id(vm, 1), parent=on.id, kind=kind, size_bytes=size_bytes,
        vm=vm, seq=1, owner=owner, created=now,
    )  # fmt: skip
    return CreateLayer(layer)


def _pin_of(graph: LayerGraph, vm: str, name: str) -> Pin | None:
    """The pin of this name, if there is one. Raises Conflict when it is not held by `vm`."""
    pin = graph.pins.get(name)
    if pin is not None and pin.holder != vm:
        raise Conflict(f"pin {name} is not one of {vm}")
    return pin


def _is_rolled_back(graph: LayerGraph, head: Layer, kept: LayerId) -> bool:
    """Whether the VM with this head has gone elsewhere since `kept` was its head."""
    chain = graph.chain(head.id)
    above = [layer.kind for layer in itertools.takewhile(lambda layer: layer.id != kept, chain)]
    return len(above) == len(chain) or Kind.ROLLBACK in above


def _freeze(graph: LayerGraph, vm: str, kind: Kind, now: float) -> Plan:
    """New head over the current one, unless that is frozen already."""
    head = graph.head(vm)
    if graph.writable(vm) is None:
        return ()
    top = _next(head, on=head.id, kind=kind, size=head.size_bytes, now=now)
    return (CreateLayer(top), Switch(vm=vm, frozen=head.id, top=top.id))


def _next(head: Layer, *, on: LayerId, kind: Kind, size: int, now: float) -> Layer:
    seq = head.seq + 1
    return Layer(
        id=layer_id(head.vm, seq), parent=on, kind=kind, size_bytes=size,
        vm=head.vm, seq=seq, owner=head.owner, created=now,
    )  # fmt: skip
