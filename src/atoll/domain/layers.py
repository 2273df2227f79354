"""Disk layers and the steps that change them: plain data, no rules but their own shape.

A layer is one qcow2 file. It names its parent, so all layers form a forest whose roots are image
bases. A VM's *head* is its newest layer, the only one its QEMU writes; everything below is frozen.
`layer_graph` says what a set of layers means, `layer_plans` what may be done with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType, TypeAlias

from atoll.base.errors import Invalid

LayerId = NewType("LayerId", str)
# `<kind>-<random>`: short, so that a layer's id and a little more fit the 31 characters of a QEMU
# node name.
_HOLDER = re.compile(r"[a-z]{1,5}-[0-9a-z]{1,12}")
_PIN = re.compile(r"[a-z][0-9a-z-]{0,63}")
_DIGEST = re.compile(r"[0-9a-z]{8,128}")


class Kind(StrEnum):
    """Why a layer was begun."""

    BASE = "base"  # an image's disk; nobody's head
    CREATE = "create"
    CLONE = "clone"  # by a clone: the child's first layer, or the source's next one
    SNAPSHOT = "snapshot"
    ROLLBACK = "rollback"
    START = "start"  # the head was pinned, or smaller than its VM's disk is to be


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One qcow2 file. `vm` began it and `owner` is charged for it; both are empty for a base.

    `parent` changes by a Merge, nothing else ever does.
    """

    id: LayerId
    parent: LayerId | None
    kind: Kind
    size_bytes: int
    vm: str = ""
    seq: int = 0
    owner: str = ""
    created: float = 0.0

    def __post_init__(self) -> None:
        if (self.kind is Kind.BASE) != (self.parent is None):
            raise Invalid(f"layer {self.id}: a base has no parent, every other layer has one")
        if self.kind is not Kind.BASE and self.id != layer_id(self.vm, self.seq):
            raise Invalid(f"layer {self.id} is not layer {self.seq} of {self.vm}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A name that keeps a layer as it is: a snapshot, a template. It goes with its `holder`."""

    name: str
    layer: LayerId
    holder: str

    def __post_init__(self) -> None:
        if not _PIN.fullmatch(self.name):
            raise Invalid(f"{self.name[:70]!r} cannot name a pin", hint="Try: a-z, 0-9 and -")


def layer_id(vm: str, seq: int) -> LayerId:
    """`vm-3k9x…-0001`. Raises Invalid when `vm` is not `<a-z, up to 5>-<0-9a-z, up to 12>`."""
    if not _HOLDER.fullmatch(vm) or not 1 <= seq <= 999_999:
        raise Invalid(f"layer {seq} of {vm[:40]!r} cannot be named")
    return LayerId(f"{vm}-{seq:04d}")


def base_id(digest: str) -> LayerId:
    """`base-<digest>`. Raises Invalid when the digest is not 8 to 128 of 0-9a-z."""
    if not _DIGEST.fullmatch(digest):
        raise Invalid(f"{digest[:40]!r} is not a digest")
    return LayerId(f"base-{digest}")


# --- steps: what a plan consists of; each may be repeated, each has a stable id ---


@dataclass(frozen=True, slots=True)
class CreateLayer:
    """Write an empty layer. Its file's rename makes it, and makes it the head of its VM."""

    layer: Layer


@dataclass(frozen=True, slots=True)
class Switch:
    """Make the QEMU of `vm`, if it runs, write to `top` instead of `frozen`, its parent."""

    vm: str
    frozen: LayerId
    top: LayerId


@dataclass(frozen=True, slots=True)
class Abandon:
    """Undo a CreateLayer: remove a head that was never written. The one before is head again."""

    layer: LayerId


@dataclass(frozen=True, slots=True)
class AddPin:
    """Record the pin."""

    pin: Pin


@dataclass(frozen=True, slots=True)
class DropPin:
    """Forget the pin of this name."""

    name: str


@dataclass(frozen=True, slots=True)
class Retire:
    """Record that `vm` is deleted: its head keeps nothing alive any more."""

    vm: str


@dataclass(frozen=True, slots=True)
class Unlink:
    """Remove the file of a layer that nothing refers to."""

    layer: LayerId


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop the record that `vm` was retired; none of its layers is left."""

    vm: str


@dataclass(frozen=True, slots=True)
class Merge:
    """Replace the file of `into` by one that reads the same and stands on `base`, further down.

    The new file holds what the old one and the layers between held. Nothing that stands on `into`
    notices; the layers between are needed no more by it.
    """

    into: LayerId
    base: LayerId


Step: TypeAlias = (
    CreateLayer | Abandon | Switch | AddPin | DropPin | Retire | Unlink | Forget | Merge
)
Plan: TypeAlias = tuple[Step, ...]


def step_id(step: Step) -> str:
    """Stable text for a journal: the same step of the same plan always has the same id."""
    match step:
        case CreateLayer(layer):
            return f"create:{layer.id}"
        case Abandon(layer_name):
            return f"abandon:{layer_name}"
        case Switch(vm, _, top):
            return f"switch:{vm}:{top}"
        case AddPin(pin):
            return f"pin:{pin.name}:{pin.layer}"
        case DropPin(name):
            return f"unpin:{name}"
        case Retire(vm):
            return f"retire:{vm}"
        case Unlink(layer_name):
            return f"unlink:{layer_name}"
        case Forget(vm):
            return f"forget:{vm}"
        case Merge(into, base):
            return f"merge:{into}:{base}"
