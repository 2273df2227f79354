"""A fake engine: VMs without QEMU, behind the real RPC on a real unix socket.

It passes `contracts.engine`, as the real one does. Its knobs make it fail at chosen requests. The
object is the node's disk: serving it again is the engine restarted.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from atoll.base.errors import AtollError, Conflict, Invalid, NotFound
from atoll.rpc.messages import (
    GIB,
    MIB,
    Clone,
    Console,
    Create,
    Delete,
    DropSnapshot,
    Empty,
    Event,
    GetVm,
    Identify,
    Identity,
    Image,
    Kept,
    ListSnapshots,
    ListVms,
    Message,
    Node,
    NodeInfo,
    Outcome,
    Pause,
    Prepare,
    Resize,
    Restart,
    Resume,
    RollBack,
    Sample,
    Samples,
    SampleVms,
    SnapshotList,
    Spec,
    Stat,
    StatVm,
    Stop,
    TakeSnapshot,
    Text,
    Vm,
    Vms,
    VmState,
)
from atoll.rpc.server import RpcServer

ON = (VmState.RUNNING, VmState.STARTING)
OfSnapshots = TakeSnapshot | RollBack | DropSnapshot
Changing = Create | Clone | Pause | Resume | Restart | Stop | Identify | Resize | OfSnapshots


class FakeEngine:
    """One node. `vms` and `identities` are what is on its disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.vms: dict[str, Vm] = {}
        self.identities: dict[str, Identity] = {}
        self.stats: dict[str, Stat] = {}
        self.samples: dict[str, Sample] = {}  # counters of VMs; process and clock are the fake's
        self.monotonic: Callable[[], float] = time.monotonic
        self.knows_samples = True  # False: an engine of an earlier release
        self.images = {"debian": Image(name="debian", digest="sha256:1", size_bytes=400 * MIB)}
        self.warm_sizes = {(1, 1 * GIB)}
        self.makes_templates = True  # when it had to boot cold
        self.asked: list[Message] = []  # everything that arrived, in order
        self.refuse: dict[type[Message], list[AtollError]] = defaultdict(list)
        self.hold: dict[type[Message], asyncio.Event] = {}  # requests of a type wait for it
        self.consoles: dict[str, str] = {}  # VM -> what it has written since it started
        self._done: dict[str, dict[str, Outcome]] = {}  # VM -> operation -> its outcome
        self.next_specs: dict[str, Spec] = {}  # VM -> what it is from its next boot on
        self.contents: dict[str, str] = {}  # VM -> what its disk holds: what a test wrote there
        self.snapshots: dict[str, dict[str, str]] = {}  # VM -> snapshot -> what the disk held
        self.live: dict[str, Spec] = {}  # snapshot with memory -> the machine that it is of
        self._kept_as_is: dict[str, set[str]] = defaultdict(set)  # VM -> taken since it last ran
        self.pool_free_bytes = 50 * GIB
        self.drop_frees = 0  # bytes of the pool that a snapshot gives back
        self.holds_still = True  # file systems, for a snapshot; False: the guest does not answer
        self.boots = True  # what was rolled back; False: it does not come up
        self._slots = 0
        self._server: RpcServer | None = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Listen while the body runs."""
        self._server = RpcServer(path=self.path, handler=self.handle, allowed=[os.getuid()])
        async with self._server.serving():
            yield
        self._server = None

    def die(self, vm: str, *, problem: str = "qemu ended with signal 9") -> None:
        """The VM's process ends by itself."""
        spec = self.next_specs.pop(vm, self._get(vm).spec)
        self._put(vm, spec=spec, state=VmState.STOPPED, address=None, pid=None, problem=problem)

    async def handle(self, request: Message) -> Message:
        """Answer one request as the engine would."""
        self.asked.append(request)
        if (gate := self.hold.get(type(request))) is not None:
            await gate.wait()
        if self.refuse[type(request)]:
            raise self.refuse[type(request)].pop(0)
        match request:
            case GetVm(vm=vm):
                return self._get(vm)
            case ListVms():
                return Vms(vms=tuple(self.vms.values()))
            case StatVm(vm=vm):
                return self._stat(self._get(vm))
            case ListSnapshots(vm=vm):
                self._get(vm)
                kept = (Kept(snapshot=name) for name in self.snapshots.get(vm, ()))
                return SnapshotList(snapshots=tuple(kept))
            case SampleVms() if self.knows_samples:
                return Samples(samples=tuple(map(self._sample, self._running())))
            case Console(vm=vm):
                return self._console(self._get(vm))
            case NodeInfo():
                return self._node()
            case Delete(vm=vm):
                return self._delete(vm)
            case Prepare():
                self._image(request.image)
                self.warm_sizes.add((request.cpus, request.memory_bytes))
                return self._image(request.image)
            case _ if isinstance(request, Changing):
                return self._once(request)
            case _:
                raise Invalid(f"{type(request).__name__} is not a request of the engine")

    def _once(self, request: Changing) -> Outcome:
        """Act once per op; asked again, answer the same. What failed is tried again."""
        known = self._done.get(request.vm, {}).get(request.op)
        if known is not None:
            return known
        outcome = self._act(request)
        self._done.setdefault(request.vm, {})[request.op] = outcome
        return outcome

    def _act(self, request: Changing) -> Outcome:
        match request:
            case Create():
                return self._create(request)
            case Clone():
                return self._clone(request)
            case Pause(vm=vm):
                state = self._get(vm).state
                if state not in (*ON, VmState.PAUSED):
                    raise Conflict(f"{vm} is {state}")
                return self._put(vm, state=VmState.PAUSED, address=None, pid=None)
            case Stop(vm=vm):
                spec = self.next_specs.pop(vm, self._get(vm).spec)
                return self._put(vm, spec=spec, state=VmState.STOPPED, address=None, pid=None)
            case Resume(vm=vm):
                was = self._get(vm).state
                if was in ON:
                    self.identities[vm] = request.identity
                    return self._put(vm)
                return self._start(vm, request.identity, cold=was is not VmState.PAUSED)
            case Restart(vm=vm):
                return self._start(vm, request.identity, cold=True)
            case Identify(vm=vm):
                outcome = self._put(vm)
                self.identities[vm] = request.identity
                return outcome
            case Resize(vm=vm):
                return self._resize(vm, request.spec)
            case TakeSnapshot(vm=vm):
                return self._take_snapshot(request)
            case RollBack():
                return self._roll_back(request)
            case DropSnapshot(vm=vm):
                self.live.pop(request.snapshot, None)
                if self._kept(vm, request.snapshot).pop(request.snapshot, None) is not None:
                    self.pool_free_bytes += self.drop_frees
                return self._put(vm)

    def _resize(self, vm: str, spec: Spec) -> Outcome:
        now = self._get(vm)
        if spec.image != now.spec.image or spec.disk_bytes < now.spec.disk_bytes:
            raise Invalid(f"{vm} cannot become {spec}")
        if now.state is VmState.STOPPED:
            return self._put(vm, spec=spec)
        self.next_specs[vm] = spec
        kept = {"cpus": now.spec.cpus, "memory_bytes": now.spec.memory_bytes}
        return self._put(vm, spec=spec.model_copy(update=kept))

    def _create(self, request: Create) -> Outcome:
        spec = request.spec
        self._image(spec.image)
        is_warm = (spec.cpus, spec.memory_bytes) in self.warm_sizes
        self._make(Vm(vm=request.vm, owner=request.owner, spec=spec, state=VmState.STARTING))
        started = self._start(request.vm, request.identity, cold=not is_warm)
        return started.model_copy(update={"warming": not is_warm and self.makes_templates})

    def _clone(self, request: Clone) -> Outcome:
        source = self._get(request.source)
        spec = request.spec or source.spec
        content = self.contents.get(request.source, "")
        if request.snapshot is not None:
            content = self._kept_as(request.source, request.snapshot)
        if spec.image != source.spec.image or spec.disk_bytes < source.spec.disk_bytes:
            raise Invalid(f"{request.source} cannot be copied as {spec}")
        made = {"vm": request.vm, "owner": request.owner, "spec": spec, "problem": ""}
        made |= {"depth": source.depth + 1, "address": None, "pid": None}
        self._make(source.model_copy(update=made))
        self.contents[request.vm] = content
        if request.snapshot is not None:
            cold = not _same_machine(self.live.get(request.snapshot), spec)
            return self._start(request.vm, request.identity, cold=cold)
        fits = spec.cpus == source.spec.cpus and spec.memory_bytes == source.spec.memory_bytes
        if source.state in ON:
            return self._start(request.vm, request.identity, cold=not fits)
        self.identities[request.vm] = request.identity
        return self._put(request.vm, state=source.state if fits else VmState.STOPPED)

    def _take_snapshot(self, request: TakeSnapshot) -> Outcome:
        vm, snapshot = request.vm, request.snapshot
        kept, is_clean = self._kept(vm, snapshot), self._is_clean(vm)
        is_new = snapshot not in kept
        if request.unless_unchanged and is_new and self._kept_as_is[vm] & kept.keys():
            return self._put(vm).model_copy(update={"unchanged": True})
        if is_new and request.live:
            self._keep_memory(vm, snapshot)
        kept.setdefault(snapshot, self.contents.get(vm, ""))
        if is_new and self._get(vm).state not in ON:  # one that runs writes all the time
            self._kept_as_is[vm].add(snapshot)
        lesser = {"crash_consistent": not (is_new and is_clean)}
        return self._put(vm).model_copy(update=lesser | {"memory_kept": snapshot in self.live})

    def _keep_memory(self, vm: str, snapshot: str) -> None:
        now = self._get(vm)
        if now.state is VmState.STOPPED:
            raise Conflict(f"{vm} is stopped, so it has no memory to keep")
        self.live[snapshot] = now.spec

    def _roll_back(self, request: RollBack) -> Outcome:
        vm, content = request.vm, self._kept_as(request.vm, request.snapshot)
        now, is_clean = self._get(vm), self._is_clean(vm)
        machine = None if request.cold else self.live.get(request.snapshot)
        if machine is not None and not _same_machine(machine, now.spec):
            raise Conflict("the memory of this snapshot is of another machine")
        if now.state is VmState.PAUSED or (machine is not None and now.state in ON):
            self._keep_memory(vm, request.keep)
        self._kept(vm, request.keep)[request.keep] = self.contents.get(vm, "")
        self.contents[vm] = content
        self._kept_as_is[vm] = {request.snapshot}
        spec = now.spec if machine is not None else self.next_specs.pop(vm, now.spec)
        off = {"spec": spec, "state": VmState.STOPPED, "address": None, "pid": None}
        if machine is not None:
            off["state"] = VmState.PAUSED
        if request.identity is None or not self.boots:
            problem = "rolled back, but it does not start" if request.identity is not None else ""
            outcome = self._put(vm, **off, problem=problem)
        else:
            self.vms[vm] = self.vms[vm].model_copy(update=off)
            outcome = self._start(vm, request.identity, cold=machine is None)
        kept = {"crash_consistent": not is_clean, "memory_kept": request.keep in self.live}
        return outcome.model_copy(update=kept)

    def _is_clean(self, vm: str) -> bool:
        now = self._get(vm)
        return self.holds_still if now.state in ON else _is_shut_down(now)

    def _kept(self, vm: str, snapshot: str) -> dict[str, str]:
        """Snapshots of `vm`. Raises Conflict when this one is another's."""
        self._get(vm)
        if any(snapshot in kept for other, kept in self.snapshots.items() if other != vm):
            raise Conflict(f"{snapshot} is not one of {vm}")
        return self.snapshots.setdefault(vm, {})

    def _kept_as(self, vm: str, snapshot: str) -> str:
        self._get(vm)
        if snapshot not in self.snapshots.get(vm, {}):
            raise NotFound(f"{vm} has no snapshot {snapshot}")
        return self.snapshots[vm][snapshot]

    def _delete(self, vm: str) -> Empty:
        self._done.pop(vm, None)
        self.contents.pop(vm, None)
        self.snapshots.pop(vm, None)
        self._kept_as_is.pop(vm, None)
        self.identities.pop(vm, None)
        self.next_specs.pop(vm, None)
        if self.vms.pop(vm, None) is not None:
            self._tell(Event(at=time.time(), kind="vm-gone", vm=vm))
        return Empty()

    def _make(self, vm: Vm) -> None:
        if vm.vm in self.vms:
            raise Conflict(f"{vm.vm} exists")
        self.vms[vm.vm] = vm.model_copy(update={"created_at": time.time()})

    def _start(self, vm: str, identity: Identity, *, cold: bool) -> Outcome:
        spec = self._get(vm).spec
        if cold:
            spec = self.next_specs.pop(vm, spec)
        self.identities[vm] = identity
        self._kept_as_is.pop(vm, None)
        self._slots += 1
        address = f"10.213.{1 + self._slots // 64}.{4 * (self._slots % 64) + 2}"
        outcome = self._put(
            vm,
            state=VmState.RUNNING,
            spec=spec,
            address=address,
            pid=1000 + self._slots,
            warm=not cold,
            problem="",
        )
        return outcome.model_copy(update={"cold_booted": cold, "timings_ms": {"start": 1.0}})

    def _put(self, vm: str, **changes: object) -> Outcome:
        now = self._get(vm).model_copy(update=changes)
        self.vms[vm] = now
        self._tell(
            Event(
                at=time.time(),
                kind="vm-state",
                vm=vm,
                state=now.state,
                address=now.address,
                detail=now.problem,
            )
        )
        return Outcome(vm=now)

    def _tell(self, event: Event) -> None:
        if self._server is not None:
            self._server.publish(event)

    def _get(self, vm: str) -> Vm:
        if vm not in self.vms:
            raise NotFound(f"{vm} is not on this node")
        return self.vms[vm]

    def _stat(self, vm: Vm) -> Stat:
        idle = Stat(
            vm=vm.vm,
            memory_total_bytes=vm.spec.memory_bytes,
            disk_size_bytes=vm.spec.disk_bytes,
        )
        used = {"memory_private_bytes": 20 * MIB, "uptime_seconds": 1.0}
        return self.stats.get(vm.vm, idle.model_copy(update=used if vm.state in ON else {}))

    def _console(self, vm: Vm) -> Text:
        text = self.consoles.get(vm.vm, f"{vm.vm} login: ")
        return Text(text=text if vm.state in ON else "")

    def _running(self) -> list[Vm]:
        return [vm for vm in self.vms.values() if vm.state in ON]

    def _sample(self, vm: Vm) -> Sample:
        now = {"process": f"{vm.pid}-1", "since_boot_s": self.monotonic()}
        idle = Sample(vm=vm.vm, process="", since_boot_s=0.0, memory_bytes=20 * MIB)
        return self.samples.get(vm.vm, idle).model_copy(update=now)

    def _image(self, name: str) -> Image:
        if name not in self.images:
            raise NotFound(f"image {name!r} is not here")
        return self.images[name].model_copy(update={"warm_sizes": tuple(sorted(self.warm_sizes))})

    def _node(self) -> Node:
        return Node(
            version="0",
            accel="tcg",
            accel_reason="a fake",
            qemu_version="0",
            cpus=2,
            memory_bytes=8 * GIB,
            memory_available_bytes=4 * GIB,
            pool_bytes=100 * GIB,
            pool_free_bytes=self.pool_free_bytes,
            images=tuple(self._image(name) for name in self.images),
            vms=len(self.vms),
        )


def _same_machine(one: Spec | None, other: Spec) -> bool:
    """Whether the memory of one fits the other."""
    return one is not None and (one.cpus, one.memory_bytes) == (other.cpus, other.memory_bytes)


def _is_shut_down(vm: Vm) -> bool:
    return vm.state is VmState.STOPPED and not vm.problem
