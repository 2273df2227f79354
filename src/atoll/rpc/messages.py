"""What control may ask of an engine, and what the engine answers: one class per message.

Both halves import this module and nothing else of each other. Every field is checked on arrival
(unknown fields are refused), so a handler never sees a value outside these types. Each request that
changes something carries `op`, an operation id: sent twice it acts once and answers the same. One that
failed is tried again when it is sent again.
Sizes are bytes, times are seconds since the epoch (UTC) unless the name says otherwise.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

REQUEST_BYTES = 4 << 20  # one line on the wire; an Identity may hold 256 keys of 16 kB, few do
ANSWER_BYTES = 16 << 20  # 500 VMs in one list take about 250 kB
MIB = 1 << 20
GIB = 1 << 30

VmId = Annotated[str, StringConstraints(pattern=r"^vm-[0-9a-z]{12}$")]
OwnerId = Annotated[str, StringConstraints(pattern=r"^[a-z][0-9a-z-]{0,31}$")]
SnapshotId = Annotated[str, StringConstraints(pattern=r"^snap-[0-9a-z]{12}$")]
OpId = Annotated[str, StringConstraints(pattern=r"^op-[0-9a-z]{12}$")]
Hostname = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
ImageName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
EnvValue = Annotated[str, StringConstraints(max_length=4096, pattern=r"^[^\r\n\x00]*$")]
KeyLine = Annotated[str, StringConstraints(max_length=16_384, pattern=r"^[^\r\n\x00]+$")]
# What a process can have counted: 8 PiB, so that sums of many still fit the store's 64 bits.
Count = Annotated[int, Field(ge=0, le=1 << 53)]
Port = Annotated[int, Field(ge=1, le=65_535)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Message(BaseModel):
    """Immutable and strict: a field that is not declared is an error.

    A field that has its default stays off the wire, so one that a release adds is no error to an
    earlier one as long as it says nothing: both halves are not replaced at the same moment.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class VmState(StrEnum):
    """What the engine sees of a VM; the store keeps what is wanted."""

    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"  # memory on disk, no process
    STOPPED = "stopped"  # disk only, no process; `problem` says why if it ended with an error


class Spec(Message):
    """The shape of a VM."""

    image: ImageName
    cpus: int = Field(ge=1, le=64)
    memory_bytes: int = Field(ge=128 * MIB, le=1024 * GIB, multiple_of=MIB)
    disk_bytes: int = Field(ge=1 * GIB, le=64 * 1024 * GIB, multiple_of=MIB)


class Identity(Message):
    """What makes one clone different from the next; applied before anything can reach the VM.

    `host_key` is an OpenSSH private key (PEM) and is never stored by the engine; None keeps the key
    that is on the VM's disk (resume, restart). `fresh` asks for a new machine-id and reseeded
    entropy (create, clone). `setup_script` and `env` are a new VM's alone: written inside before it
    is reachable, never stored by the engine; a VM that cannot take them is not made.
    """

    hostname: Hostname
    fresh: bool
    host_key: str | None = Field(default=None, max_length=16_384, repr=False)
    host_certificate: KeyLine | None = None
    user_ca: KeyLine | None = None
    authorized_keys: tuple[KeyLine, ...] = Field(default=(), max_length=256)
    setup_script: str | None = Field(default=None, min_length=1, max_length=10_240, repr=False)
    env: dict[EnvName, EnvValue] = Field(default={}, max_length=64, repr=False)


class Vm(Message):
    """Facts about one VM on this node."""

    vm: VmId
    owner: OwnerId
    spec: Spec
    state: VmState
    address: str | None = None  # outer IPv4; ssh is port 22, web ports as inside
    pid: int | None = None
    warm: bool = False  # the last start was from a warm template or a saved memory
    login_user: str = "atoll"
    depth: int = 1  # layers in the disk chain
    disk_used_bytes: int = 0  # allocated by layers of this VM alone
    created_at: float = 0.0
    problem: str = ""  # why it stopped by itself, or what is degraded


class Outcome(Message):
    """The answer to every request that changes a VM. `timings_ms` names the engine's own steps."""

    vm: Vm
    cold_booted: bool = False
    warming: bool = False  # a cold `create`: a template for the next VM of this size is being made
    # What was kept is as after a power cut: file systems were not held, or memory held more of them.
    crash_consistent: bool = False
    memory_kept: bool = False  # what was kept has its memory
    unchanged: bool = False  # a snapshot that was to be taken only of what changed was not
    timings_ms: dict[str, float] = Field(default_factory=dict)


class Stat(Message):
    """Current use of one VM; counters are since its process started."""

    vm: VmId
    cpu_seconds: float = 0.0
    memory_private_bytes: int = 0  # not shared with the template
    memory_total_bytes: int = 0
    disk_used_bytes: int = 0
    disk_size_bytes: int = 0
    fs_total_bytes: int = 0
    fs_used_bytes: int = 0
    network_rx_bytes: int = 0
    network_tx_bytes: int = 0
    io_read_bytes: int = 0
    io_write_bytes: int = 0
    uptime_seconds: float = 0.0
    # TCP ports listening inside on any address
    ports: tuple[Port, ...] = Field(default=(), max_length=1024)


class Sample(Message):
    """Counters of one running VM since its process began, without asking the VM.

    They began anew when `process` is another. `since_boot_s` is a clock that is never set.
    """

    vm: VmId
    process: str = Field(max_length=64)
    since_boot_s: Seconds
    cpu_seconds: Seconds = 0.0
    memory_bytes: Count = 0  # not shared with the template; QEMU's own included
    network_rx_bytes: Count = 0
    network_tx_bytes: Count = 0
    io_read_bytes: Count = 0
    io_write_bytes: Count = 0


class Image(Message):
    """An image that `create` can use now."""

    name: ImageName
    digest: str
    size_bytes: int
    default_port: int = 8000
    login_user: str = "atoll"
    warm_sizes: tuple[tuple[int, int], ...] = ()  # (cpus, memory_bytes) with a warm template


class Node(Message):
    """Facts about the engine's machine."""

    version: str
    accel: str  # "kvm" or "tcg"
    accel_reason: str
    qemu_version: str
    cpus: int
    memory_bytes: int
    memory_available_bytes: int
    pool_bytes: int
    pool_free_bytes: int
    images: tuple[Image, ...]
    vms: int
    problems: tuple[str, ...] = ()


class Event(Message):
    """Something changed on the node without (or besides) a request."""

    at: float
    kind: str  # vm-state, vm-gone, template-ready, template-gone, pool-low, pool-full, ...
    vm: VmId | None = None
    state: VmState | None = None
    address: str | None = None
    detail: str = ""


# --- requests; the method name on the wire is the class name in kebab-case ---


class Create(Message):
    """-> Outcome. Conflict when `vm` exists with another op."""

    op: OpId
    vm: VmId
    owner: OwnerId
    spec: Spec
    identity: Identity


class Clone(Message):
    """-> Outcome of the child. Conflict when `vm` exists with another op.

    A running source keeps running; else its disk and memory are copied, and its state with them.
    `spec` (None: the source's) may have another size: a larger disk the child grows into; with other
    vCPUs or memory it gets the disk alone, and boots cold (of a source at rest: is stopped).
    With `snapshot`, one of the source, it gets that disk, and its memory if it has one that fits, else it
    boots cold. NotFound: there is none.
    """

    op: OpId
    source: VmId
    vm: VmId
    owner: OwnerId
    identity: Identity
    spec: Spec | None = None
    snapshot: SnapshotId | None = None


class Pause(Message):
    """-> Outcome. Memory to disk, process gone. Conflict when it neither runs nor is paused."""

    op: OpId
    vm: VmId


class Resume(Message):
    """-> Outcome; `cold_booted`: the saved memory could not be used. Also starts a stopped VM."""

    op: OpId
    vm: VmId
    identity: Identity


class Restart(Message):
    """-> Outcome. Orderly shutdown inside, then a boot from disk."""

    op: OpId
    vm: VmId
    identity: Identity


class Stop(Message):
    """-> Outcome. Orderly shutdown inside, then no process; memory is gone."""

    op: OpId
    vm: VmId


class Identify(Message):
    """-> Outcome. New name or keys for a VM; a VM that does not run gets them when it starts."""

    op: OpId
    vm: VmId
    identity: Identity


class Resize(Message):
    """-> Outcome. `spec` is the whole new size; its image is the VM's, its disk not smaller: Invalid.

    The disk grows at once where the VM runs, else when it starts. vCPUs and memory are those of its
    next boot: `Vm.spec` has the old ones until then, which a stopped VM has not.
    """

    op: OpId
    vm: VmId
    spec: Spec


class TakeSnapshot(Message):
    """-> Outcome. Keep the disk as it is now under `snapshot`; the VM goes on as it was.

    With `live` also its memory, of the same instant: Conflict when it has none, Exhausted when the pool
    has no room. Asked again with another op it keeps what it kept. With `unless_unchanged` nothing is
    kept, and the VM is not asked for anything, when a snapshot of it has the disk as it is:
    `Outcome.unchanged`.
    """

    op: OpId
    vm: VmId
    snapshot: SnapshotId
    live: bool = False
    unless_unchanged: bool = False


class RollBack(Message):
    """-> Outcome. The disk as `snapshot` has it; what it was until now is kept under `keep`.

    A VM that runs is ended, its file systems held still; `keep` has its memory if `snapshot` has one,
    or if it was paused. With `identity` it then goes on from the memory of `snapshot`, without one or
    with `cold` it boots: one that does not come up is stopped, and its `problem` says why. NotFound when
    this VM has no such snapshot; Conflict when its memory does not fit the VM as it is now.
    """

    op: OpId
    vm: VmId
    snapshot: SnapshotId
    keep: SnapshotId
    identity: Identity | None = None
    cold: bool = False


class DropSnapshot(Message):
    """-> Outcome. Let go of a snapshot; one that is not there is fine. Conflict: it is another VM's."""

    op: OpId
    vm: VmId
    snapshot: SnapshotId


class Delete(Message):
    """-> Empty. For ever: disk, memory, record. A VM that is not there is fine."""

    op: OpId
    vm: VmId


class GetVm(Message):
    """-> Vm, or NotFound."""

    vm: VmId


class ListVms(Message):
    """-> Vms."""


class StatVm(Message):
    """-> Stat."""

    vm: VmId


class ListSnapshots(Message):
    """-> SnapshotList, of one VM. NotFound when it is not there."""

    vm: VmId


class SampleVms(Message):
    """-> Samples, of all VMs that have a process. Cheap: no guest is asked."""


class Console(Message):
    """-> Text: the newest part of the serial log; empty when the VM does not run."""

    vm: VmId


class NodeInfo(Message):
    """-> Node."""


class Prepare(Message):
    """-> Image. Build an image and its warm template if they are not there (minutes)."""

    op: OpId
    image: ImageName
    cpus: int = Field(ge=1, le=64)
    memory_bytes: int = Field(ge=128 * MIB, multiple_of=MIB)


class Subscribe(Message):
    """-> Empty, then this connection receives events."""


class Vms(Message):
    """All VMs of the node."""

    vms: tuple[Vm, ...]


class Kept(Message):
    """One snapshot. Nothing else needs `alone_bytes` of disk: they are given back when it is dropped."""

    snapshot: SnapshotId
    alone_bytes: Count = 0


class SnapshotList(Message):
    """What is kept of a VM, in no order."""

    snapshots: tuple[Kept, ...]


class Samples(Message):
    """One for every running VM of the node."""

    samples: tuple[Sample, ...]


class Text(Message):
    """Bytes from a guest, decoded with replacement: show it, never trust it."""

    text: str


class Empty(Message):
    """Done, nothing to say."""


REQUESTS: dict[type[Message], type[Message]] = {
    Create: Outcome,
    Clone: Outcome,
    Pause: Outcome,
    Resume: Outcome,
    Restart: Outcome,
    Stop: Outcome,
    Identify: Outcome,
    Resize: Outcome,
    TakeSnapshot: Outcome,
    RollBack: Outcome,
    DropSnapshot: Outcome,
    Delete: Empty,
    GetVm: Vm,
    ListVms: Vms,
    StatVm: Stat,
    ListSnapshots: SnapshotList,
    SampleVms: Samples,
    Console: Text,
    NodeInfo: Node,
    Prepare: Image,
    Subscribe: Empty,
}
METHODS: dict[str, type[Message]] = {
    "".join(f"-{c.lower()}" if c.isupper() else c for c in request.__name__).lstrip("-"): request
    for request in REQUESTS
}
NAMES: dict[type[Message], str] = {request: name for name, request in METHODS.items()}
