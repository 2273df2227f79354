"""The pool folder: layer files, pins and retirements on disk, and the graph they make in memory.

    format.json               pool id and layout version
    base/<digest>.qcow2       disks of images, 0444, never written
    layers/<vm>-<seq>.qcow2   every other layer; its header says all that the index knows about it
    old/                      files that are no layers any more, until no QEMU has them open
    pins/<name>.json          layers kept by a snapshot or a template
    retired/<vm>              deleted VMs whose layers are not all gone
    reserve                   ballast (`atoll.engine.disk.reserve`)

Invariants: the graph is what `Pool.open` would read from the folder, before and after each step; a
file appears by rename once it is whole and synced; a backing name is relative, so the folder can be
moved. One process has a pool open at a time. The methods block (a few hundred microseconds, two
fsyncs for a new layer): call them in a thread. They may be called from several.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from atoll.base import atomic
from atoll.base.errors import Conflict, Internal, Invalid
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
    Plan,
    Retire,
    Step,
    Switch,
    Unlink,
    base_id,
)
from atoll.engine.disk import label, qcow2, records
from atoll.engine.disk.copy import link_or_copy
from atoll.engine.disk.locks import is_open

_FOLDERS = ("base", "layers", "old", "pins", "retired")


class Pool:
    """An open pool. `damaged` names files that are no sound layers, with the reason; see `apply`."""

    def __init__(self, root: Path, pool_id: str, lock: int) -> None:
        self.root = root
        self.id = pool_id
        self.damaged: dict[str, str] = {}
        self._lock_fd = lock
        self._changing = threading.RLock()
        self._graph = LayerGraph()

    @classmethod
    def open(cls, root: Path) -> Pool:
        """Open the pool in `root`, or make one there, and read its index from the headers.

        Raises Conflict when another process has it open or a newer layout made it.
        """
        for folder in ("", *_FOLDERS):
            (root / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            pool = cls(root, records.pool_id(root), lock)
            pool._remove_leftovers()
            pool._read()
            pool.sweep()
        except BlockingIOError as error:
            os.close(lock)
            raise Conflict(f"another process has the pool {root} open") from error
        except BaseException:
            os.close(lock)
            raise
        return pool

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process open it; closed already is fine."""
        lock, self._lock_fd = self._lock_fd, -1
        if lock >= 0:
            os.close(lock)

    @property
    def graph(self) -> LayerGraph:
        """The layers as they are now; immutable, so safe to plan with while others work."""
        return self._graph

    def path(self, layer: LayerId) -> Path:
        """Where the file of `layer` is (or would be)."""
        return Path(self._name(layer))

    def backing_name(self, layer: LayerId) -> str:
        """How layers name `layer` as their parent: relative to their own folder."""
        return f"../base/{self.path(layer).name}" if layer.startswith("base-") else f"{layer}.qcow2"

    def add_base(self, source: Path, digest: str) -> LayerId:
        """Take in an image's disk: a qcow2 file without a parent. Linked where possible, else copied.

        A digest that is there already is left alone. Raises Invalid for another kind of file.
        """
        layer, target = base_id(digest), self.path(base_id(digest))
        with self._changing:
            if layer in self._graph.layers:
                return layer
            with _opened(source.resolve()) as fd:
                if qcow2.read_header(fd).backing is not None:
                    raise Invalid(f"{source} stands on another file and cannot be a base")
            temporary = self.temporary(layer)
            temporary.unlink(missing_ok=True)
            link_or_copy(source, temporary)
            temporary.chmod(0o444)
            temporary.rename(target)
            atomic.sync_folder(target.parent)
            self._take(self._layer_at(target))
        return layer

    def import_layer(self, source: Path, pin: str) -> LayerId:
        """Take in a frozen layer of another pool, kept by `pin` alone; its parent must be here.

        Linked where possible, else copied. Raises Invalid for a file that is no layer, Conflict when
        its parent is missing.
        """
        with _opened(source) as fd:
            layer = label.decode(qcow2.read_header(fd))
        target = self.path(layer.id)
        with self._changing:
            if layer.parent not in self._graph.layers:
                raise Conflict(f"{source} stands on {layer.parent}, which is not in this pool")
            if layer.id not in self._graph.layers:
                temporary = self.temporary(layer.id)
                temporary.unlink(missing_ok=True)
                link_or_copy(source, temporary)
                temporary.rename(target)
                atomic.sync_folder(target.parent)
                self._take(layer)
            self.apply(AddPin(Pin(name=pin, layer=layer.id, holder=pin)))
            if layer.vm in self._graph.vms():
                self.apply(Retire(layer.vm))  # nobody's head here
        return layer.id

    def apply(self, step: Step) -> None:
        """Do one step on the folder, durably. A Switch is QEMU's, a Merge goes through `replace`.

        Nothing is unlinked while a damaged file might need it: Conflict then.
        """
        with self._changing:
            after = self._graph.after(step)  # refuses what would break an invariant
            match step:
                case CreateLayer(layer):
                    self._create(layer)
                case Abandon(layer_name):
                    self._abandon(layer_name)
                case Unlink(layer_name):
                    self._refuse_damaged()
                    self._put_away(self.path(layer_name))
                    atomic.remove(self.path(layer_name))
                case AddPin(pin):
                    records.write_pin(self.root, pin)
                case DropPin(name):
                    atomic.remove(records.pin_path(self.root, name))
                case Retire(vm):
                    atomic.write(self.root / "retired" / vm, b"")
                case Forget(vm):
                    atomic.remove(self.root / "retired" / vm)
                case _:
                    raise Internal(f"{type(step).__name__} is not done on the pool folder")
            self._graph = after

    def apply_all(self, plan: Plan, *, running: bool = False) -> None:
        """Do a plan of folder steps in order. A Switch is nothing to do unless its VM runs."""
        for step in plan:
            if not (isinstance(step, Switch) and not running):
                self.apply(step)
        self.sweep()

    def sweep(self) -> None:
        """Remove files of merged or deleted layers that no QEMU has open any more."""
        for path in (self.root / "old").iterdir():
            if not is_open(path):
                path.unlink()

    def temporary(self, layer: LayerId) -> Path:
        """A name beside the layer's for a file in the making; leftovers go when the pool is opened."""
        path = self.path(layer)
        return path.with_name(f".{path.name}.new")

    def replace(self, step: Merge, file: Path) -> None:
        """Put the merged `file`, made at `temporary`, in the place of its layer.

        Raises Conflict when the graph does not allow the step any more, Invalid when the file is not
        what the step says.
        """
        with self._changing:
            after = self._graph.after(step)
            with _opened(file) as fd:
                made = label.decode(qcow2.read_header(fd))
                if made != after.layer(step.into):
                    raise Invalid(f"{file} is not layer {step.into} on {step.base}")
                os.fsync(fd)
            self._put_away(self.path(step.into))
            file.rename(self.path(step.into))
            atomic.sync_folder(file.parent)
            self._graph = after

    def allocated(self) -> dict[LayerId, int]:
        """Bytes each layer takes on disk."""
        return {layer: self._blocks(layer) for layer in self._graph.layers}

    def used_bytes(self, vm: str) -> int:
        """Bytes on disk that count as this VM's: its own layers and those only it still reads."""
        graph = self._graph
        if vm not in graph.vms():
            return 0
        return sum(self._blocks(layer) for layer in graph.charged(vm))

    def is_as_made(self, layer: LayerId) -> bool:
        """Whether nothing was ever written to it; not known is no."""
        try:
            with _opened(self.path(layer)) as fd:
                return qcow2.is_as_made(fd)
        except (Invalid, OSError):
            return False

    def alone_bytes(self, holder: str) -> dict[str, int]:
        """By each pin of this holder the bytes on disk that dropping it gives back."""
        alone = self._graph.alone(holder)
        return {name: sum(map(self._blocks, layers)) for name, layers in alone.items()}

    def free_bytes(self) -> int:
        """Bytes an ordinary write can still take on the pool's file system."""
        facts = os.statvfs(self.root)
        return facts.f_bavail * facts.f_frsize

    def _name(self, layer: LayerId) -> str:
        """`path` as text: a VM may have a thousand layers, and each look at it asks for all of them."""
        if layer.startswith("base-"):
            return f"{self.root}/base/{layer.removeprefix('base-')}.qcow2"
        return f"{self.root}/layers/{layer}.qcow2"

    def _blocks(self, layer: LayerId) -> int:
        try:
            return os.stat(self._name(layer)).st_blocks * 512
        except FileNotFoundError:
            return 0  # unlinked by another thread since the graph was taken

    def _create(self, layer: Layer) -> None:
        target = self.path(layer.id)
        if layer.id in self._graph.layers:
            return
        assert layer.parent is not None  # domain.layers: only a base has none
        temporary = self.temporary(layer.id)
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            qcow2.write_overlay(
                fd,
                size_bytes=layer.size_bytes,
                backing=self.backing_name(layer.parent),
                label=label.encode(layer),
            )
            os.fsync(fd)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        temporary.rename(target)
        atomic.sync_folder(target.parent)

    def _abandon(self, layer: LayerId) -> None:
        path = self.path(layer)
        with contextlib.suppress(FileNotFoundError), _opened(path) as fd:
            if not qcow2.is_empty(fd):
                raise Conflict(f"layer {layer} was written to and stays")
        atomic.remove(path)

    def _put_away(self, path: Path) -> None:
        """Keep a second name for a file about to go while a QEMU has it open.

        Freeing a large file takes seconds (measured: 2 s for 40 000 extents), and whoever closes it
        last waits for that. It shall be us, in a thread, not a QEMU while its guest runs.
        """
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            if is_open(path):
                os.link(path, self.root / "old" / f"{path.name}.{path.stat().st_ino}")

    def _refuse_damaged(self) -> None:
        for name, reason in self.damaged.items():
            raise Conflict(
                f"nothing is removed from the pool while {name} is damaged: {reason}",
                hint=f"Repair it, or move it out of {self.root}",
            )

    def _take(self, layer: Layer) -> None:
        layers = {**self._graph.layers, layer.id: layer}
        held = self._graph
        self._graph = graph_of(layers.values(), held.pins.values(), held.retired, held.broken)

    def _remove_leftovers(self) -> None:
        for folder in _FOLDERS:
            for path in (self.root / folder).glob(".*.new"):
                path.unlink()

    def _read(self) -> None:
        found: dict[LayerId, Layer] = {}
        for path in [*(self.root / "base").iterdir(), *(self.root / "layers").iterdir()]:
            try:
                layer = self._layer_at(path)
            except (Invalid, OSError) as error:
                self.damaged[f"{path.parent.name}/{path.name}"] = str(error)
            else:
                found[layer.id] = layer
        self._leave_out_groundless(found)
        pins = []
        for pin in records.read_pins(self.root):
            if pin.layer in found:
                pins.append(pin)
            else:
                self.damaged[f"pins/{pin.name}.json"] = f"layer {pin.layer} is missing or damaged"
        broken = {vm for name in self.damaged if (vm := label.vm_of(Path(name).stem))}
        retired = [path.name for path in (self.root / "retired").iterdir()]
        self._graph = graph_of(found.values(), pins, retired, broken)

    def _leave_out_groundless(self, found: dict[LayerId, Layer]) -> None:
        """Layers whose parent is missing or damaged, and what stands on them."""
        while lost := [x for x in found.values() if x.parent is not None and x.parent not in found]:
            for layer in lost:
                del found[layer.id]
                self.damaged[f"layers/{layer.id}.qcow2"] = f"its parent {layer.parent} is missing"

    def _layer_at(self, path: Path) -> Layer:
        """Raises Invalid for a file that is no layer of this pool."""
        with _opened(path) as fd:
            header = qcow2.read_header(fd)
        if path.parent.name == "base":
            if header.backing is not None:
                raise Invalid("a base stands on another file")
            layer = Layer(
                id=base_id(path.name.removesuffix(".qcow2")),
                parent=None,
                kind=Kind.BASE,
                size_bytes=header.size_bytes,
            )
        else:
            layer = label.decode(header)
            if self.backing_name(layer.parent or layer.id) != header.backing:
                raise Invalid(f"its parent {header.backing!r} is not in the pool")
        if self.path(layer.id) != path:
            raise Invalid(f"its header says it is {layer.id}")
        return layer


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield fd
    finally:
        os.close(fd)
