"""Any history of disks, stopped anywhere: nothing that is referenced is lost or changed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import HealthCheck, settings

from atoll.domain.layer_graph import LayerGraph, graph_of
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
    Unlink,
)
from framework.layer_machine import BASE, BLOCKS, SIZE, Content, LayerMachine


@dataclass(slots=True)
class File:
    """A layer file: its header, and the blocks it holds itself."""

    header: Layer
    blocks: dict[int, int] = field(default_factory=dict)


class ModelPool:
    """The pool folder as dictionaries; the graph is always read from them."""

    def __init__(self) -> None:
        self.files = {BASE: File(Layer(id=BASE, parent=None, kind=Kind.BASE, size_bytes=SIZE))}
        self.pins: dict[str, Pin] = {}
        self.retired: set[str] = set()

    def graph(self) -> LayerGraph:
        return graph_of(
            (file.header for file in self.files.values()), self.pins.values(), self.retired
        )

    def apply(self, step: Step) -> None:
        after = self.graph().after(step)
        match step:
            case CreateLayer(layer):
                self.files[layer.id] = File(layer)
            case Unlink(layer_name) | Abandon(layer_name):
                self.files.pop(layer_name, None)
            case AddPin(pin):
                self.pins[pin.name] = pin
            case DropPin(name):
                self.pins.pop(name, None)
            case Retire(vm):
                self.retired.add(vm)
            case Forget(vm):
                self.retired.discard(vm)
            case Merge(into, base):
                held = self._blocks_above(into, base)
                header = replace(self.files[into].header, parent=base)
                self.files[into] = File(header, held)
        assert self.graph() == after

    def _blocks_above(self, layer: LayerId, base: LayerId) -> dict[int, int]:
        chain = [each.id for each in self.graph().chain(layer)]
        held: dict[int, int] = {}
        for each in reversed(chain[: chain.index(base)]):
            held |= self.files[each].blocks
        return held

    def allocated(self) -> dict[LayerId, int]:
        return {layer: len(file.blocks) for layer, file in self.files.items()}

    def write(self, layer: LayerId, block: int, value: int) -> None:
        self.files[layer].blocks[block] = value

    def verify(self, truth: dict[LayerId, Content]) -> None:
        graph = self.graph()
        for layer, content in truth.items():
            found = [0] * BLOCKS
            for each in reversed(graph.chain(layer)):
                for block, value in self.files[each.id].blocks.items():
                    found[block] = value
            assert tuple(found) == content, f"{layer} reads {found}"

    def reopen(self) -> None:
        """Everything is read from the files anyway."""

    def close(self) -> None:
        """Nothing is held."""


class ModelLayers(LayerMachine):
    make_pool = ModelPool


TestLayers = ModelLayers.TestCase
TestLayers.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
