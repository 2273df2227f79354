"""What a set of disk layers means, and the plans made over it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from atoll.base.errors import Conflict, Invalid, NotFound
from atoll.domain import layer_plans as plans
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
    Switch,
    Unlink,
    base_id,
    layer_id,
    step_id,
)

MIB = 1 << 20
BASE = base_id("0123456789abcdef")
A, B, C = "vm-a", "vm-b", "vm-c"


def layer(vm: str, seq: int, on: LayerId, kind: Kind = Kind.CREATE) -> Layer:
    return Layer(
        id=layer_id(vm, seq), parent=on, kind=kind, size_bytes=MIB, vm=vm, seq=seq, owner="acct"
    )


def stack(*seqs: int, vm: str = A) -> list[Layer]:
    """Layers of one VM, each on the one before, the first on the base."""
    found: list[Layer] = []
    for seq in seqs:
        found.append(layer(vm, seq, found[-1].id if found else BASE))
    return found


def graph(*layers: Layer, pins: tuple[Pin, ...] = (), retired: tuple[str, ...] = ()) -> LayerGraph:
    base = Layer(id=BASE, parent=None, kind=Kind.BASE, size_bytes=MIB)
    return graph_of([base, *layers], pins, retired)


def id_(vm: str, seq: int) -> LayerId:
    return layer_id(vm, seq)


# -- meaning


def test_the_newest_layer_is_the_head_and_the_only_one_that_may_be_written() -> None:
    found = graph(*stack(1, 2, 3))
    assert found.head(A).id == id_(A, 3)
    assert found.writable(A) == id_(A, 3)
    assert [each.id for each in found.chain(id_(A, 3))] == [id_(A, 3), id_(A, 2), id_(A, 1), BASE]
    assert found.depth(A) == 4


def test_a_head_that_is_pinned_or_stood_on_is_frozen() -> None:
    pin = Pin(name="kept", layer=id_(A, 1), holder=A)
    assert graph(*stack(1), pins=(pin,)).writable(A) is None
    assert graph(*stack(1), layer(B, 1, id_(A, 1))).writable(A) is None


def test_after_a_rollback_the_head_is_the_newest_not_the_highest() -> None:
    old = stack(1, 2, 3)
    found = graph(*old, layer(A, 4, id_(A, 1), Kind.ROLLBACK))
    assert found.head(A).id == id_(A, 4)
    assert found.depth(A) == 3


def test_references_are_children_pins_and_living_heads() -> None:
    pin = Pin(name="kept", layer=id_(A, 1), holder=A)
    found = graph(*stack(1, 2), layer(B, 1, id_(A, 1)), pins=(pin,), retired=(B,))
    assert found.refcounts() == {BASE: 1, id_(A, 1): 3, id_(A, 2): 1, id_(B, 1): 0}


def test_garbage_is_given_children_first() -> None:
    found = graph(*stack(1, 2, 3), retired=(A,))
    assert found.garbage() == (id_(A, 3), id_(A, 2), id_(A, 1))
    assert found.reachable() == {BASE}


def test_a_vm_is_charged_for_what_it_began_and_for_what_only_it_still_reads() -> None:
    shared = graph(*stack(1, 2), layer(B, 1, id_(A, 1)))
    assert shared.charged(B) == {id_(B, 1)}
    orphaned = graph(layer(A, 1, BASE), layer(B, 1, id_(A, 1)), retired=(A,))
    assert orphaned.charged(B) == {id_(B, 1), id_(A, 1)}


def test_a_vm_with_a_damaged_layer_has_no_head_but_keeps_its_layers() -> None:
    base = Layer(id=BASE, parent=None, kind=Kind.BASE, size_bytes=MIB)
    found = graph_of([base, *stack(1, 2)], broken=[A])
    with pytest.raises(Conflict, match="damaged"):
        found.head(A)
    assert found.garbage() == ()


@pytest.mark.parametrize(
    "layers",
    [
        [layer(A, 2, id_(A, 1))],
        [layer(A, 1, id_(A, 2)), layer(A, 2, id_(A, 1))],
    ],
    ids=["missing parent", "ring"],
)
def test_a_graph_with_no_ground_is_refused(layers: list[Layer]) -> None:
    with pytest.raises(Conflict, match="missing or above"):
        graph_of(layers)


def test_a_pin_of_a_missing_layer_is_refused() -> None:
    with pytest.raises(Conflict, match="missing"):
        graph(pins=(Pin(name="kept", layer=id_(A, 1), holder=A),))


@pytest.mark.parametrize("vm", ["", "vm", "vm-", "VM-a", "vm-A", "vm-1234567890123", "toolong-a"])
def test_a_name_that_would_not_fit_a_node_is_refused(vm: str) -> None:
    with pytest.raises(Invalid):
        layer_id(vm, 1)


# -- steps that would break an invariant


@pytest.mark.parametrize(
    "step",
    [
        Unlink(id_(A, 2)),  # a living head
        Unlink(id_(A, 1)),  # stood on
        Abandon(id_(A, 1)),  # not the head
        Forget(A),  # still has layers
        Merge(into=id_(A, 2), base=BASE),  # may be written
        Merge(into=id_(A, 1), base=id_(A, 2)),  # not below
        Merge(into=BASE, base=BASE),
        CreateLayer(layer(A, 2, BASE)),  # exists, with another parent
    ],
    ids=step_id,
)
def test_a_step_that_breaks_an_invariant_is_refused(step: Step) -> None:
    with pytest.raises(Conflict):
        graph(*stack(1, 2)).after(step)


def test_steps_done_twice_are_done_once() -> None:
    start = graph(*stack(1, 2))
    pin = AddPin(Pin(name="kept", layer=id_(A, 2), holder=A))
    for step in (
        CreateLayer(layer(A, 3, id_(A, 2))),
        pin,
        DropPin("kept"),
        Retire(A),
        Merge(into=id_(A, 1), base=BASE),
    ):
        once = start.after(step)
        assert once.after(step) == once
    gone = start.after(Retire(A), Unlink(id_(A, 2)))
    assert gone.after(Unlink(id_(A, 2))) == gone


# -- plans


def test_create_needs_a_base_or_a_pinned_layer() -> None:
    found = graph(*stack(1))
    make = {"vm": B, "owner": "acct", "size_bytes": MIB, "now": 1.0}
    (step,) = plans.plan_create(found, parent=BASE, **make)  # type: ignore[arg-type]
    assert isinstance(step, CreateLayer)
    assert step.layer.id == id_(B, 1)
    with pytest.raises(Conflict, match="not pinned"):
        plans.plan_create(found, parent=id_(A, 1), **make)  # type: ignore[arg-type]
    pinned = found.after(AddPin(Pin(name="template", layer=id_(A, 1), holder="tmpl-1")))
    assert plans.plan_create(pinned, parent=id_(A, 1), **make)  # type: ignore[arg-type]


def test_create_refuses_a_smaller_disk_and_a_second_one() -> None:
    found = graph(*stack(1))
    with pytest.raises(Invalid, match="at least"):
        plans.plan_create(found, vm=B, owner="a", parent=BASE, size_bytes=MIB - 4096, now=1.0)
    with pytest.raises(Conflict, match="already"):
        plans.plan_create(found, vm=A, owner="a", parent=BASE, size_bytes=MIB, now=1.0)


def test_clone_freezes_first_and_makes_the_child_last() -> None:
    plan = plans.plan_clone(graph(*stack(1)), source=A, vm=B, owner="other", now=1.0)
    assert [step_id(step) for step in plan] == [
        "create:vm-a-0002",
        "switch:vm-a:vm-a-0002",
        "create:vm-b-0001",
    ]
    after = graph(*stack(1)).after(*plan)
    assert after.writable(A) == id_(A, 2)
    assert after.writable(B) == id_(B, 1)
    assert after.head(B).owner == "other"
    assert after.head(A).owner == "acct"


def test_clone_of_a_frozen_head_needs_no_new_layer_for_its_source() -> None:
    found = graph(*stack(1), pins=(Pin(name="t", layer=id_(A, 1), holder=A),))
    plan = plans.plan_clone(found, source=A, vm=B, owner="acct", now=1.0)
    assert [step_id(step) for step in plan] == ["create:vm-b-0001"]


def snapped(found: LayerGraph, name: str, *, vm: str = A) -> LayerGraph:
    return found.after(*plans.plan_snapshot(found, vm=vm, name=name, now=1.0))


def rolled_back(found: LayerGraph, name: str, keep: str) -> LayerGraph:
    return found.after(*plans.plan_rollback(found, vm=A, name=name, keep=keep, now=2.0))


def chain(found: LayerGraph, vm: str = A) -> list[LayerId]:
    return [each.id for each in found.chain(found.head(vm).id)]


def test_a_rollback_keeps_the_old_head_and_can_be_undone() -> None:
    found = snapped(graph(*stack(1)), "monday")
    back = rolled_back(found, "monday", "was")
    assert chain(back) == [id_(A, 3), id_(A, 1), BASE]
    assert back.pins["was"] == Pin(name="was", layer=id_(A, 2), holder=A)
    assert back.garbage() == ()
    assert chain(rolled_back(back, "was", "is")) == [id_(A, 4), id_(A, 2), id_(A, 1), BASE]


def test_a_rollback_pins_a_head_that_another_pin_names() -> None:
    pin = Pin(name="template", layer=id_(A, 2), holder="tmpl-1")
    found = graph(*stack(1, 2), pins=(pin, Pin(name="monday", layer=id_(A, 1), holder=A)))
    back = rolled_back(found, "monday", "was").after(DropPin("template"))
    assert back.pins["was"].layer == id_(A, 2)
    assert back.garbage() == ()


def test_a_rollback_to_the_head_itself_goes_on_above_it() -> None:
    found = graph(*stack(1), pins=(Pin(name="monday", layer=id_(A, 1), holder=A),))
    back = rolled_back(found, "monday", "was")
    assert (chain(back), back.pins["was"].layer) == ([id_(A, 2), id_(A, 1), BASE], id_(A, 1))
    assert plans.plan_rollback(back, vm=A, name="monday", keep="was", now=3.0) == ()


@pytest.mark.parametrize("name", ["tuesday", "template", "others"])
def test_a_rollback_needs_a_snapshot_of_its_own_vm(name: str) -> None:
    pin = Pin(name="template", layer=id_(A, 1), holder="tmpl-1")
    found = snapped(
        snapped(graph(*stack(1), *stack(1, vm=B), pins=(pin,)), "monday"), "others", vm=B
    )
    with pytest.raises(NotFound, match=name):
        plans.plan_rollback(found, vm=A, name=name, keep="was", now=2.0)


@pytest.mark.parametrize("keep", ["monday", "others"])
def test_a_rollback_keeps_under_a_name_of_its_own(keep: str) -> None:
    pinned = Pin(name="monday", layer=id_(A, 1), holder=A)
    found = snapped(graph(*stack(1), *stack(1, vm=B), pins=(pinned,)), "others", vm=B)
    with pytest.raises(Conflict, match=keep):
        plans.plan_rollback(found, vm=A, name="monday", keep=keep, now=2.0)


def test_a_rollback_stopped_anywhere_and_asked_again_ends_the_same() -> None:
    found = snapped(graph(*stack(1)), "monday")
    ask = {"vm": A, "name": "monday", "keep": "was", "now": 2.0}
    plan = plans.plan_rollback(found, **ask)  # type: ignore[arg-type]
    assert [step_id(step) for step in plan] == ["pin:was:vm-a-0002", "create:vm-a-0003"]
    for stop in range(len(plan) + 1):
        cut = found.after(*plan[:stop])
        again = plans.plan_rollback(cut, **ask)  # type: ignore[arg-type]
        assert again == plan[stop:]
        assert cut.after(*again) == found.after(*plan)


def test_a_rollback_that_was_done_stays_done_whatever_came_after() -> None:
    back = rolled_back(snapped(graph(*stack(1)), "monday"), "monday", "was")
    for later in (snapped(back, "tuesday"), back.after(*plans.plan_unpin(back, name="monday"))):
        assert plans.plan_rollback(later, vm=A, name="monday", keep="was", now=3.0) == ()


def test_a_vm_that_ran_before_its_rollback_was_done_loses_nothing_by_it() -> None:
    cut = snapped(graph(*stack(1)), "monday")
    cut = cut.after(AddPin(Pin(name="was", layer=id_(A, 2), holder=A)))
    ran = cut.after(*plans.plan_start(cut, vm=A, now=2.0))
    plan = plans.plan_rollback(ran, vm=A, name="monday", keep="was", now=3.0)
    assert [step_id(step) for step in plan] == [
        "unpin:was",
        "pin:was:vm-a-0003",
        "create:vm-a-0004",
    ]
    for stop in range(len(plan) + 1):
        assert ran.after(*plan[:stop]).garbage() == ()
        assert rolled_back(ran.after(*plan[:stop]), "monday", "was").pins["was"].layer == id_(A, 3)
    assert chain(ran.after(*plan)) == [id_(A, 4), id_(A, 1), BASE]


def test_a_snapshot_that_is_there_is_not_taken_again() -> None:
    found = snapped(graph(*stack(1), *stack(1, vm=B)), "monday")
    assert plans.plan_snapshot(found, vm=A, name="monday", now=2.0) == ()
    with pytest.raises(Conflict, match="monday"):
        plans.plan_snapshot(found, vm=B, name="monday", now=2.0)


def test_a_snapshot_stopped_anywhere_and_asked_again_keeps_one_state() -> None:
    found = graph(*stack(1))
    plan = plans.plan_snapshot(found, vm=A, name="monday", now=1.0)
    assert [step_id(step) for step in plan] == [
        "create:vm-a-0002",
        "switch:vm-a:vm-a-0002",
        "pin:monday:vm-a-0001",
    ]
    for stop in range(len(plan) + 1):
        after = snapped(found.after(*plan[:stop]), "monday")
        assert (len(after.pins), after.garbage()) == (1, ())
        # What is kept reads like the head of then: layers between were never written.
        assert after.pins["monday"].layer in chain(after)[1:]


def test_a_snapshot_of_a_frozen_head_is_a_pin_alone() -> None:
    found = snapped(graph(*stack(1)), "monday")
    back = found.after(*plans.plan_rollback(found, vm=A, name="monday", keep="was", now=2.0)[:1])
    plan = plans.plan_snapshot(back, vm=A, name="tuesday", now=3.0)
    assert [step_id(step) for step in plan] == ["pin:tuesday:vm-a-0002"]


def test_start_is_free_unless_the_head_is_frozen_or_must_grow() -> None:
    found = graph(*stack(1))
    assert plans.plan_start(found, vm=A, now=1.0) == ()
    (grown,) = plans.plan_start(found, vm=A, now=1.0, size_bytes=2 * MIB)
    assert isinstance(grown, CreateLayer)
    assert grown.layer.size_bytes == 2 * MIB
    with pytest.raises(Invalid, match="shrink"):
        plans.plan_start(found, vm=A, now=1.0, size_bytes=MIB // 2)
    pinned = found.after(AddPin(Pin(name="t", layer=id_(A, 1), holder=A)))
    (fresh,) = plans.plan_start(pinned, vm=A, now=1.0)
    assert isinstance(fresh, CreateLayer)
    assert fresh.layer.parent == id_(A, 1)


def test_a_running_disk_grows_by_a_layer_that_its_vm_goes_on_in() -> None:
    found = graph(*stack(1))
    plan = plans.plan_grow(found, vm=A, size_bytes=2 * MIB, now=1.0)
    assert plan == (
        CreateLayer(
            replace(layer(A, 2, id_(A, 1)), kind=Kind.START, size_bytes=2 * MIB, created=1.0)
        ),
        Switch(vm=A, frozen=id_(A, 1), top=id_(A, 2)),
    )
    grown = found.after(*plan)
    assert plans.plan_grow(grown, vm=A, size_bytes=2 * MIB, now=1.0) == ()
    assert plans.plan_start(grown, vm=A, now=1.0) == ()
    cloned = grown.after(*plans.plan_clone(grown, source=A, vm=B, owner="acct", now=1.0))
    assert [cloned.head(vm).size_bytes for vm in (A, B)] == [2 * MIB, 2 * MIB]


def test_delete_keeps_what_a_clone_stands_on_and_the_clones_deletion_takes_it() -> None:
    found = graph(*stack(1))
    found = found.after(*plans.plan_clone(found, source=A, vm=B, owner="acct", now=1.0))
    plan = plans.plan_delete(found, vm=A)
    assert [step_id(step) for step in plan] == ["retire:vm-a", "unlink:vm-a-0002"]
    found = found.after(*plan)
    assert plans.plan_delete(found, vm=A) == ()
    plan = plans.plan_delete(found, vm=B)
    assert [step_id(step) for step in plan] == [
        "retire:vm-b",
        "unlink:vm-b-0001",
        "unlink:vm-a-0001",
        "forget:vm-a",
        "forget:vm-b",
    ]
    assert set(found.after(*plan).layers) == {BASE}


def test_delete_takes_the_vms_own_pins_and_no_others() -> None:
    pins = (
        Pin(name="snapshot", layer=id_(A, 1), holder=A),
        Pin(name="template", layer=id_(A, 2), holder="tmpl-1"),
    )
    found = graph(*stack(1, 2, 3), pins=pins)
    found = found.after(*plans.plan_delete(found, vm=A))
    assert set(found.pins) == {"template"}
    assert set(found.layers) == {BASE, id_(A, 1), id_(A, 2)}
    found = found.after(*plans.plan_unpin(found, name="template"))
    assert set(found.layers) == {BASE}
    assert found.retired == frozenset()


def test_a_retired_name_is_not_used_again_while_its_layers_stay() -> None:
    found = graph(layer(A, 1, BASE), layer(B, 1, id_(A, 1)), retired=(A,))
    with pytest.raises(Conflict, match="already"):
        plans.plan_create(found, vm=A, owner="a", parent=BASE, size_bytes=MIB, now=1.0)


def test_a_base_goes_only_when_nothing_stands_on_it() -> None:
    assert plans.plan_drop_base(graph(), base=BASE) == (Unlink(BASE),)
    with pytest.raises(Conflict):
        plans.plan_drop_base(graph(*stack(1)), base=BASE)


def test_no_merge_while_the_chain_is_short_enough() -> None:
    found = graph(*stack(1, 2, 3))
    assert plans.plan_merge(found, vm=A, max_depth=4, allocated={}) == ()


def test_the_cheapest_neighbours_are_merged() -> None:
    found = graph(*stack(1, 2, 3, 4, 5))
    allocated = {id_(A, n): m * MIB for n, m in {1: 500, 2: 40, 3: 2, 4: 3, 5: 900}.items()}
    step, *rest = plans.plan_merge(found, vm=A, max_depth=5, allocated=allocated)
    assert step == Merge(into=id_(A, 4), base=id_(A, 2))
    assert rest == [Unlink(id_(A, 3))]


def test_many_small_layers_go_at_once() -> None:
    found = graph(*stack(*range(1, 14)))
    allocated = dict.fromkeys(found.layers, MIB)
    (step, *rest) = plans.plan_merge(found, vm=A, max_depth=12, allocated=allocated)
    assert step == Merge(into=id_(A, 12), base=BASE)
    assert len(rest) == 11


def test_a_layer_that_stays_for_a_clone_is_merged_only_if_nothing_cheaper_helps() -> None:
    shared = layer(B, 1, id_(A, 3))
    found = graph(*stack(1, 2, 3, 4, 5), shared)
    allocated = dict.fromkeys(found.layers, 10 * MIB)
    (step, *rest) = plans.plan_merge(found, vm=A, max_depth=5, allocated=allocated)
    assert step == Merge(into=id_(A, 3), base=BASE)
    assert rest == [Unlink(id_(A, 2)), Unlink(id_(A, 1))]
    found = found.after(step, *rest)
    assert found.depth(B) == 3, "the clone's chain got shorter too"
    (step,) = plans.plan_merge(found, vm=A, max_depth=3, allocated=allocated)
    assert step == Merge(into=id_(A, 4), base=BASE)
    assert id_(A, 3) in found.after(step).layers


def test_nothing_merges_into_a_head_that_may_be_written_but_into_a_frozen_one() -> None:
    found = graph(*stack(1, 2))
    assert plans.plan_merge(found, vm=A, max_depth=1, allocated={}) == ()
    pinned = found.after(AddPin(Pin(name="t", layer=id_(A, 2), holder=A)))
    (step, *_) = plans.plan_merge(pinned, vm=A, max_depth=1, allocated={})
    assert step == Merge(into=id_(A, 2), base=BASE)


def test_a_switch_changes_nothing_in_the_graph() -> None:
    found = graph(*stack(1, 2))
    assert found.after(Switch(vm=A, frozen=id_(A, 1), top=id_(A, 2))) is found
