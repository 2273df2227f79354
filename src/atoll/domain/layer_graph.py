"""What a set of disk layers means: heads, chains, who reads what, what is garbage.

Nothing but the layers themselves, pins and retirements is recorded; all else follows from them, and
the layers from their files' headers, so this can be rebuilt from the pool folder alone.

Invariants, held by `after` for every step (and so by every prefix of a plan: a crash may stop
anywhere):
- a layer that a living VM or a pin can reach is never unlinked;
- only a living VM's head is ever written, and only while nothing stands on it and no pin names it;
  a Merge puts another file in a layer's place, one that reads the same;
- losing a record of ours can leak a layer, never lose one: a VM lives while it has layers, until it
  is retired in writing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from atoll.base.errors import Conflict, NotFound
from atoll.domain.layers import (
    Abandon,
    AddPin,
    CreateLayer,
    DropPin,
    Forget,
    Kind,
    Layer,
    LayerId,
    Merge,
    Pin,
    Retire,
    Step,
    Switch,
    Unlink,
)


@dataclass(frozen=True)
class LayerGraph:
    """All layers of a pool at one moment. Immutable: `after` gives the next one."""

    layers: Mapping[LayerId, Layer] = field(default_factory=dict)
    pins: Mapping[str, Pin] = field(default_factory=dict)
    retired: frozenset[str] = frozenset()
    broken: frozenset[str] = frozenset()  # VMs with a layer file that cannot be read

    @cached_property
    def _children(self) -> Mapping[LayerId, tuple[LayerId, ...]]:
        found: dict[LayerId, list[LayerId]] = {}
        for layer in self.layers.values():
            if layer.parent is not None:
                found.setdefault(layer.parent, []).append(layer.id)
        return {parent: tuple(sorted(children)) for parent, children in found.items()}

    @cached_property
    def _heads(self) -> Mapping[str, Layer]:
        newest: dict[str, Layer] = {}
        for layer in self.layers.values():
            held = newest.get(layer.vm)
            if layer.vm and (held is None or held.seq < layer.seq):
                newest[layer.vm] = layer
        return newest

    @cached_property
    def pinned(self) -> frozenset[LayerId]:
        """Layers some pin names."""
        return frozenset(pin.layer for pin in self.pins.values())

    def layer(self, layer: LayerId) -> Layer:
        """Raises NotFound."""
        try:
            return self.layers[layer]
        except KeyError:
            raise NotFound(f"layer {layer} is not in the pool") from None

    def children(self, layer: LayerId) -> tuple[LayerId, ...]:
        """Layers standing directly on this one."""
        return self._children.get(layer, ())

    def vms(self) -> frozenset[str]:
        """Holders that have a head and are not retired."""
        return frozenset(self._heads) - self.retired

    def head(self, vm: str) -> Layer:
        """The newest layer of a living VM.

        Raises NotFound, or Conflict when a layer of the VM is damaged: the newest may be that one.
        """
        if vm in self.broken:
            raise Conflict(f"the disk of {vm} is damaged", hint="Try: atoll doctor")
        if vm not in self._heads or vm in self.retired:
            raise NotFound(f"{vm} has no disk in the pool")
        return self._heads[vm]

    def writable(self, vm: str) -> LayerId | None:
        """The head if its VM may write to it: nothing stands on it and no pin names it."""
        head = self.head(vm)
        return None if self.children(head.id) or head.id in self.pinned else head.id

    def chain(self, layer: LayerId) -> tuple[Layer, ...]:
        """This layer and all below it, top first, base last. Raises NotFound for a missing one."""
        found = [self.layer(layer)]
        while (parent := found[-1].parent) is not None:
            found.append(self.layer(parent))
        return tuple(found)

    def depth(self, vm: str) -> int:
        """Files in the chain of this VM, base included."""
        return len(self.chain(self.head(vm).id))

    def refcounts(self) -> dict[LayerId, int]:
        """References to each layer: children, pins, and the living VM whose head it is."""
        counts = {layer: len(self.children(layer)) for layer in self.layers}
        for pin in self.pins.values():
            counts[pin.layer] += 1
        for vm in self.vms():
            counts[self._heads[vm].id] += 1
        return counts

    def reachable(self) -> frozenset[LayerId]:
        """Layers that must stay: bases, and what heads of living VMs and pins stand on."""
        found = {layer.id for layer in self.layers.values() if layer.kind is Kind.BASE}
        for root in [self._heads[vm].id for vm in self.vms()] + list(self.pinned):
            at: LayerId | None = root
            while at is not None and at not in found:
                found.add(at)
                at = self.layers[at].parent
        return frozenset(found)

    def garbage(self) -> tuple[LayerId, ...]:
        """Layers nothing needs, children before parents: unlink them in this order."""
        lost = self.layers.keys() - self.reachable()
        return tuple(sorted(lost, key=lambda layer: (-len(self.chain(layer)), layer)))

    def charged(self, vm: str) -> frozenset[LayerId]:
        """Layers that count as this VM's: those it began and those only it still reads."""
        found = {layer.id for layer in self.layers.values() if layer.vm == vm}
        readers = self.refcounts()
        for layer in self.chain(self.head(vm).id):
            if readers[layer.id] != 1 or layer.kind is Kind.BASE:
                break
            found.add(layer.id)
        return frozenset(found)

    def alone(self, holder: str) -> dict[str, frozenset[LayerId]]:
        """By each pin of this holder the layers that nothing else keeps: dropping it unlinks them."""
        readers = self.refcounts()
        pins = [pin for pin in self.pins.values() if pin.holder == holder]
        found: dict[str, frozenset[LayerId]] = {}
        for pin in pins:
            only = itertools.takewhile(
                lambda layer: readers[layer.id] == 1 and layer.kind is not Kind.BASE,
                self.chain(pin.layer),
            )
            found[pin.name] = frozenset(layer.id for layer in only)
        return found

    def after(self, *steps: Step) -> LayerGraph:
        """The graph once `steps` are done. Raises Conflict for a step that breaks an invariant."""
        graph = self
        for step in steps:
            graph = graph._after(step)
        return graph

    def _after(self, step: Step) -> LayerGraph:
        match step:
            case CreateLayer(layer):
                return self._with_layer(layer)
            case Abandon(layer_name):
                if (
                    layer_name in self.layers
                    and self.writable(self.layer(layer_name).vm) != layer_name
                ):
                    raise Conflict(f"layer {layer_name} is in use and stays")
                return self._dropped(layer_name)
            case Switch():
                return self
            case AddPin(pin):
                self.layer(pin.layer)
                if self.pins.get(pin.name, pin) != pin:
                    raise Conflict(f"pin {pin.name} names {self.pins[pin.name].layer} already")
                return replace(self, pins={**self.pins, pin.name: pin})
            case DropPin(name):
                return replace(self, pins={k: v for k, v in self.pins.items() if k != name})
            case Retire(vm):
                return replace(self, retired=self.retired | {vm})
            case Unlink(layer_name):
                return self._without(layer_name)
            case Forget(vm):
                if vm in self._heads:
                    raise Conflict(f"{vm} still has layer {self._heads[vm].id}")
                return replace(self, retired=self.retired - {vm})
            case Merge(into, base):
                return self._merged(into, base)

    def _with_layer(self, layer: Layer) -> LayerGraph:
        held = self.layers.get(layer.id)
        if held is not None and held != layer:
            raise Conflict(f"layer {layer.id} exists already")
        if layer.parent is not None:
            self.layer(layer.parent)
        return replace(self, layers={**self.layers, layer.id: layer})

    def _without(self, layer: LayerId) -> LayerGraph:
        if layer in self.layers and (self.children(layer) or layer in self._kept):
            raise Conflict(f"layer {layer} is in use and stays")
        return self._dropped(layer)

    def _dropped(self, layer: LayerId) -> LayerGraph:
        return replace(self, layers={k: v for k, v in self.layers.items() if k != layer})

    @cached_property
    def _kept(self) -> frozenset[LayerId]:
        heads = {self._heads[vm].id for vm in self.vms()}
        return self.pinned | heads

    def _merged(self, layer: LayerId, base: LayerId) -> LayerGraph:
        held = self.layer(layer)
        if held.kind is Kind.BASE or (
            layer in self._kept and not self.children(layer) and layer not in self.pinned
        ):
            raise Conflict(f"layer {layer} is not frozen and cannot be replaced")
        if base not in (below.id for below in self.chain(layer)[1:]):
            raise Conflict(f"layer {base} is not below {layer}")
        return replace(self, layers={**self.layers, layer: replace(held, parent=base)})


def graph_of(
    layers: Iterable[Layer],
    pins: Iterable[Pin] = (),
    retired: Iterable[str] = (),
    broken: Iterable[str] = (),
) -> LayerGraph:
    """A graph of layers found in any order.

    Raises Conflict for a layer or pin whose layer is missing, and for layers in a ring.
    """
    graph = LayerGraph(
        layers={layer.id: layer for layer in layers},
        pins={pin.name: pin for pin in pins},
        retired=frozenset(retired),
        broken=frozenset(broken),
    )
    for pin in graph.pins.values():
        if pin.layer not in graph.layers:
            raise Conflict(f"pin {pin.name} names layer {pin.layer}, which is missing")
    grounded: set[LayerId] = set()
    for layer in graph.layers.values():
        path: list[LayerId] = []
        at: LayerId | None = layer.id
        while at is not None and at not in grounded:
            if at not in graph.layers or at in path:
                raise Conflict(f"layer {layer.id} stands on {at}, which is missing or above it")
            path.append(at)
            at = graph.layers[at].parent
        grounded.update(path)
    return graph
