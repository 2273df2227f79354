"""Random lives of disks, with crashes: the same machine for a model pool and for a real one.

`truth` is what each layer should read as, kept without looking at any file. After every step,
finished plan or crash, every layer that a VM or a pin can reach must read as its truth says. That is
the promise of `atoll.domain.layer_graph`: no referenced layer is ever lost or written.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from atoll.domain import layer_plans as plans
from atoll.domain.layer_graph import LayerGraph
from atoll.domain.layers import (
    AddPin,
    CreateLayer,
    DropPin,
    LayerId,
    Pin,
    Plan,
    Step,
    Switch,
    base_id,
)

BLOCKS = 12  # a disk in the eyes of this test; where they are is the pool's business
SIZE = 4 << 20
BASE = base_id("0123456789abcdef")
Content = tuple[int, ...]
_PICK = st.integers(0, 11)  # one of what there is
_BLOCK = st.integers(0, BLOCKS - 1)
_VALUE = st.integers(0, 255)
# How many steps of a plan are done before everything stops; most plans have fewer than 4.
_STOP = st.sampled_from([None, None, None, None, 0, 1, 2, 3])
_MOST_VMS = 6


class PoolUnderTest(Protocol):
    """A pool with an empty base; `reopen` is what a restart after a crash does."""

    def graph(self) -> LayerGraph: ...
    def apply(self, step: Step) -> None: ...
    def allocated(self) -> dict[LayerId, int]: ...
    def write(self, layer: LayerId, block: int, value: int) -> None: ...
    def verify(self, truth: dict[LayerId, Content]) -> None: ...
    def reopen(self) -> None: ...
    def close(self) -> None: ...


class LayerMachine(RuleBasedStateMachine):
    """Operations on a few VMs; a VM writes through a QEMU that only a Switch moves on."""

    make_pool: ClassVar[type[PoolUnderTest]]
    verify_always: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.pool = self.make_pool()
        self.truth: dict[LayerId, Content] = {BASE: (0,) * BLOCKS}
        self.disks: dict[str, Content] = {}  # what the guest of each VM knows it wrote
        self.writes_to: dict[str, LayerId] = {}  # as the QEMU of each VM sees it
        self.on: set[str] = set()  # VMs with a running QEMU; one begins with its first layer
        self.kept: dict[str, Content] = {}  # by pin: what it was made to keep
        self.now = 0.0
        self.busy = False

    def teardown(self) -> None:
        self.check()
        self.pool.close()

    # -- carrying out plans

    def carry_out(self, plan: Plan, stop: int | None) -> None:
        for step in plan[:stop]:
            self.perform(step)
            self.guests_write()
        if stop is not None and stop < len(plan):
            self.crash()

    def perform(self, step: Step) -> None:
        match step:
            case CreateLayer(layer):
                assert layer.parent is not None
                self.pool.apply(step)
                self.truth[layer.id] = self.truth[layer.parent]
                if layer.vm not in self.on:
                    self.writes_to[layer.vm] = layer.id
                    self.disks[layer.vm] = self.truth[layer.id]
                if layer.seq == 1:
                    self.on.add(layer.vm)
            case AddPin(pin):
                self.pool.apply(step)
                self.kept.setdefault(pin.name, self.truth[pin.layer])
            case DropPin(name):
                self.pool.apply(step)
                self.kept.pop(name, None)
            case Switch(vm, frozen, top):
                if vm in self.on:
                    assert self.writes_to[vm] == frozen
                self.writes_to[vm] = top
            case _:
                self.pool.apply(step)
        self._forget_the_gone()

    def guests_write(self) -> None:
        """Guests do not wait for our plans: between any two steps each running one writes."""
        for vm in sorted(self.on) if self.busy else ():
            self._put(vm, int(self.now) % BLOCKS, int(self.now) % 251)

    def _put(self, vm: str, block: int, value: int) -> None:
        target = self.writes_to[vm]
        self.pool.write(target, block, value)
        for layer in {target, self.graph.head(vm).id}:  # an unswitched head is empty
            self.truth[layer] = _with(self.truth[layer], block, value)
        self.disks[vm] = _with(self.disks[vm], block, value)

    def crash(self) -> None:
        """Our process is gone and comes back; the QEMUs went on. See LiveDisk.catch_up."""
        before = self.pool.graph()
        self.pool.reopen()
        assert self.pool.graph() == before, "the files tell another story than the index did"
        self._forget_the_gone()
        for vm in self.writes_to:
            self.writes_to[vm] = self.graph.head(vm).id
        for step in plans.plan_collect(self.graph):
            self.perform(step)

    def _forget_the_gone(self) -> None:
        for vm in set(self.writes_to) - self.graph.vms():
            del self.writes_to[vm], self.disks[vm]
            self.on.discard(vm)

    @property
    def graph(self) -> LayerGraph:
        return self.pool.graph()

    def tick(self) -> float:
        self.now += 1
        return self.now

    # -- what can happen

    def one(self, pick: int) -> str:
        return sorted(self.writes_to)[pick % len(self.writes_to)]

    def snapshots(self) -> list[Pin]:
        """Pins of VMs that are there, by name."""
        pins = sorted(self.graph.pins.values(), key=lambda pin: pin.name)
        return [pin for pin in pins if pin.holder in self.writes_to]

    def new_name(self) -> str:
        return f"vm-{int(self.tick())}"

    @initialize()
    def begin(self) -> None:
        self.create(None)
        self.write(0, 0, 1)
        self.clone(0, None)

    @precondition(lambda self: len(self.writes_to) < _MOST_VMS)
    @rule(stop=_STOP)
    def create(self, stop: int | None) -> None:
        plan = plans.plan_create(
            self.graph,
            vm=self.new_name(),
            owner="acct",
            parent=BASE,
            size_bytes=SIZE,
            now=self.now,
        )
        self.carry_out(plan, stop)

    @precondition(lambda self: self.graph.pins and len(self.writes_to) < _MOST_VMS)
    @rule(pick=_PICK, stop=_STOP)
    def create_from_pin(self, pick: int, stop: int | None) -> None:
        names = sorted(self.graph.pins)
        parent = self.graph.pins[names[pick % len(names)]].layer
        plan = plans.plan_create(
            self.graph,
            vm=self.new_name(),
            owner="acct",
            parent=parent,
            size_bytes=SIZE,
            now=self.now,
        )
        self.carry_out(plan, stop)

    @precondition(lambda self: self.writes_to)
    @rule(pick=_PICK, block=_BLOCK, value=_VALUE)
    def write(self, pick: int, block: int, value: int) -> None:
        vm = self.one(pick)
        if vm not in self.on:
            self.carry_out(plans.plan_start(self.graph, vm=vm, now=self.tick()), None)
            self.on.add(vm)
        self._put(vm, block, value)

    @precondition(lambda self: 0 < len(self.writes_to) < _MOST_VMS)
    @rule(pick=_PICK, stop=_STOP)
    def clone(self, pick: int, stop: int | None) -> None:
        source = self.one(pick)
        plan = plans.plan_clone(
            self.graph, source=source, vm=self.new_name(), owner="acct", now=self.now
        )
        self.carry_out(plan, stop)

    @precondition(lambda self: self.writes_to)
    @rule(pick=_PICK, stop=_STOP)
    def snapshot(self, pick: int, stop: int | None) -> None:
        """Whoever asked for it asks again after a crash, and finds the disk of then or of now."""
        vm, name = self.one(pick), f"snapshot-{int(self.tick())}"
        self.carry_out(plans.plan_snapshot(self.graph, vm=vm, name=name, now=self.now), stop)
        again = plans.plan_snapshot(self.graph, vm=vm, name=name, now=self.tick())
        assert bool(again) == (name not in self.kept)
        self.carry_out(again, None)
        assert self.graph.pins[name].holder == vm
        assert not plans.plan_snapshot(self.graph, vm=vm, name=name, now=self.tick())

    @precondition(lambda self: self.writes_to)
    @rule(pick=_PICK, stop=_STOP)
    def keep_as_template(self, pick: int, stop: int | None) -> None:
        name = f"tmpl-{int(self.tick())}"
        vm = self.one(pick)
        self.on.discard(vm)
        layer = self.graph.head(vm).id
        self.carry_out((AddPin(Pin(name=name, layer=layer, holder=name)),), stop)

    @precondition(lambda self: self.snapshots())
    @rule(pick=_PICK, stops=st.lists(st.integers(0, 3), max_size=2), written=st.booleans())
    def roll_back(self, pick: int, stops: list[int], written: bool) -> None:
        """Cut short, and asked again until it is done; the VM may have run in between."""
        pin = self.snapshots()[pick % len(self.snapshots())]
        vm, name, keep = pin.holder, pin.name, f"before-{int(self.tick())}"
        wanted, replaced = self.kept[name], self.disks[vm]
        for stop in [*stops, None]:
            self.on.discard(vm)
            plan = plans.plan_rollback(self.graph, vm=vm, name=name, keep=keep, now=self.tick())
            self.carry_out(plan, stop)
            if stop is not None and stop < len(plan) and written:
                self.write(sorted(self.writes_to).index(vm), 0, int(self.now) % 251)
                replaced = self.disks[vm]
        assert (self.disks[vm], self.kept[keep]) == (wanted, replaced)
        assert not plans.plan_rollback(self.graph, vm=vm, name=name, keep=keep, now=self.tick())

    @precondition(lambda self: len(self.graph.pins) > 2)
    @rule(pick=_PICK, stop=_STOP)
    def unpin(self, pick: int, stop: int | None) -> None:
        names = sorted(self.graph.pins)
        plan = plans.plan_unpin(self.graph, name=names[pick % len(names)])
        assert isinstance(plan[0], DropPin)
        self.carry_out(plan, stop)

    @precondition(lambda self: len(self.writes_to) > 2)
    @rule(pick=_PICK, stop=_STOP)
    def delete(self, pick: int, stop: int | None) -> None:
        vm = self.one(pick)
        self.carry_out(plans.plan_delete(self.graph, vm=vm), stop)
        assert stop is not None or vm not in self.graph.vms()

    @precondition(lambda self: any(self.graph.depth(vm) > 3 for vm in self.writes_to))
    @rule(pick=_PICK, max_depth=st.integers(2, 4), stop=_STOP)
    def merge(self, pick: int, max_depth: int, stop: int | None) -> None:
        deep = sorted(vm for vm in self.writes_to if self.graph.depth(vm) > 3)
        vm = deep[pick % len(deep)]
        plan = plans.plan_merge(
            self.graph, vm=vm, max_depth=max_depth, allocated=self.pool.allocated()
        )
        if plan:
            before = self.graph.depth(vm)
            self.carry_out(plan, stop)
            assert stop == 0 or self.graph.depth(vm) < before

    @rule(busy=st.booleans())
    def guests_get_busy(self, busy: bool) -> None:
        self.busy = busy

    @rule()
    def restart(self) -> None:
        self.crash()

    # -- what must hold

    @invariant()
    def each_step_leaves_everything_readable(self) -> None:
        if self.verify_always:
            self.check()

    def check(self) -> None:
        graph = self.graph
        reachable = graph.reachable()
        assert reachable <= graph.layers.keys()
        assert not graph.garbage(), "a finished plan leaves nothing behind"
        assert set(self.writes_to) == graph.vms()
        for vm, content in self.disks.items():
            assert self.truth[graph.head(vm).id] == content
        for pin in graph.pins.values():
            assert self.truth[pin.layer] == self.kept[pin.name], f"{pin.name} keeps nothing"
            alone = graph.alone(pin.holder)[pin.name]
            assert alone == {*graph.after(DropPin(pin.name)).garbage()}, f"{pin.name}: {alone}"
        self.pool.verify({layer: self.truth[layer] for layer in reachable})


def _with(content: Content, block: int, value: int) -> Content:
    return (*content[:block], value, *content[block + 1 :])
