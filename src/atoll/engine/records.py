"""What the node knows of its VMs: one JSON file each, written before and after every act.

Invariant: a record on disk is whole (write, fsync, rename). `intent` names an operation that was
begun; after a crash `service` finishes or undoes it. `done` keeps the newest outcomes by operation
id, so that an operation asked for twice acts once.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from atoll.base import atomic, log
from atoll.rpc.messages import Outcome, Spec, VmState

KEPT_OUTCOMES = 8
_log = log.get("records")


class Intent(BaseModel):
    """An operation that was begun: what it is, and what a crash must clean up."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    op: str
    kind: str  # the request's class name
    fresh: bool = False  # the VM exists only once this is done: undo removes it


class Record(BaseModel):
    """One VM on this node."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vm: str
    owner: str
    spec: Spec
    state: VmState
    hostname: str
    created_at: float
    login_user: str
    slot: int | None = None  # network slot and uid; held while a process exists
    pid: int | None = None
    pid_started: int | None = None  # field 22 of /proc/PID/stat: tells a reused pid
    base: str | None = None  # template whose memory is mapped; None is empty memory
    image: str = ""  # digest of the image: its kernel boots this VM
    next_cpus: int | None = None  # from the next boot on; None: as in `spec`
    next_memory_bytes: int | None = None
    warm: bool = False
    newborn: bool = (
        False  # a copy made at rest: its first start makes it another VM than its parent
    )
    # Its saved memory has run elsewhere, or before: its start from it begins another life.
    forked: bool = False
    problem: str = ""
    intent: Intent | None = None
    done: dict[str, Outcome] = Field(default_factory=dict)

    def with_outcome(self, op: str, outcome: Outcome) -> Record:
        """The record after `op`: intent cleared, outcome kept, the oldest dropped."""
        kept = dict(list(self.done.items())[-(KEPT_OUTCOMES - 1) :])
        return self.model_copy(update={"intent": None, "done": {**kept, op: outcome}})


class Records:
    """The folder of records: `<pool>/vms/<vm>/vm.json`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, Record] = {}
        self.unreadable: set[str] = set()  # VMs that exist, but not for us

    def load(self) -> None:
        """Read all. A folder without a readable record is kept, and so must be that VM's disk."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in sorted(self._root.iterdir()):
            path = folder / "vm.json"
            try:
                record = Record.model_validate_json(path.read_bytes())
            except FileNotFoundError:
                shutil.rmtree(folder, ignore_errors=True)  # crashed before the first write
                continue
            except (OSError, ValidationError) as error:
                _log.error("vm record unreadable", path=str(path), reason=str(error)[:300])
                self.unreadable.add(folder.name)
                continue
            if record.vm != folder.name:
                _log.error("vm record in the wrong folder", path=str(path), vm=record.vm)
                self.unreadable |= {folder.name, record.vm}
                continue
            self._known[record.vm] = record
        self.unreadable -= self._known.keys()

    @property
    def problems(self) -> tuple[str, ...]:
        """What an operator should know."""
        return tuple(
            f"the record of {vm} cannot be read: {self.folder(vm) / 'vm.json'}"
            for vm in sorted(self.unreadable)
        )

    def get(self, vm: str) -> Record | None:
        """The record of `vm`, if it is known."""
        return self._known.get(vm)

    def all(self) -> Iterator[Record]:
        """Every record, in no order."""
        return iter(list(self._known.values()))

    def put(self, record: Record) -> Record:
        """Make `record` the truth, durably."""
        folder = self.folder(record.vm)
        if not folder.exists():
            folder.mkdir(mode=0o700)
            atomic.sync_folder(self._root)
        atomic.write(folder / "vm.json", record.model_dump_json(indent=1).encode() + b"\n")
        self._known[record.vm] = record
        return record

    def drop(self, vm: str) -> None:
        """Forget `vm` and what is saved of it; its record goes first."""
        folder = self.folder(vm)
        atomic.remove(folder / "vm.json")
        self._known.pop(vm, None)
        shutil.rmtree(folder, ignore_errors=True)

    def folder(self, vm: str) -> Path:
        """Where saved memory of `vm` is kept, beside its record."""
        return self._root / vm

    def slots(self) -> set[int]:
        """Network slots held by a record."""
        return {record.slot for record in self._known.values() if record.slot is not None}
