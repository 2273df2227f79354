"""A fake engine: VMs without QEMU, behind the real RPC on a real unix socket.

It keeps the promises of `atoll.rpc.messages` (an op acts once, states change only as they may, what
is unknown is NotFound) and passes the same contract tests as the real one. Its knobs make it fail at
chosen requests. The object is the node's disk: serving it again is the engine restarted.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator
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
    Empty,
    Event,
    GetVm,
    Identify,
    Identity,
    Image,
    ListVms,
    Message,
    Node,
    NodeInfo,
    Outcome,
    Pause,
    Prepare,
    Restart,
    Resume,
    Stat,
    StatVm,
    Stop,
    Text,
    Vm,
    Vms,
    VmState,
)
from atoll.rpc.server import RpcServer

ON = (VmState.RUNNING, VmState.STARTING)
Changing = Create | Clone | Pause | Resume | Restart | Stop | Identify | Delete | Prepare


class FakeEngine:
    """One node. `vms` and `identities` are what is on its disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.vms: dict[str, Vm] = {}
        self.identities: dict[str, Identity] = {}
        self.stats: dict[str, Stat] = {}
        self.images = {"debian": Image(name="debian", digest="sha256:1", size_bytes=400 * MIB)}
        self.warm_sizes = {(1, 1 * GIB)}
        self.makes_templates = True  # when it had to boot cold
        self.asked: list[Message] = []  # everything that arrived, in order
        self.refuse: dict[type[Message], list[AtollError]] = defaultdict(list)
        self.hold: dict[type[Message], asyncio.Event] = {}  # requests of a type wait for it
        self._answers: dict[str, Message | AtollError] = {}
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._slots = 0
        self._server: RpcServer | None = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Listen while the body runs."""
        self._server = RpcServer(path=self.path, handler=self.handle, allowed=[os.getuid()])
        async with self._server.serving():
            yield
        self._server = None

    def publish(self, kind: str, vm: Vm) -> None:
        """Tell subscribers about a VM."""
        if self._server is not None:
            event = Event(
                at=time.time(),
                kind=kind,
                vm=vm.vm,
                state=vm.state,
                address=vm.address,
                detail=vm.problem,
            )
            self._server.publish(event)

    def die(self, vm: str, *, problem: str = "qemu ended with signal 9") -> None:
        """The VM's process ends by itself."""
        self._put(vm, state=VmState.FAILED, address=None, pid=None, problem=problem)

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
                return self.stats.get(vm, Stat(vm=self._get(vm).vm))
            case Console(vm=vm):
                return Text(text=f"login: {self._get(vm).vm}")
            case NodeInfo():
                return self._node()
            case Create() | Clone() | Pause() | Resume() | Restart() | Stop() | Identify():
                return await self._once(request.op, request.vm, request)
            case Delete():
                return await self._once(request.op, request.vm, request)
            case Prepare():
                return await self._once(request.op, request.image, request)
            case _:
                raise Invalid(f"{type(request).__name__} is not a request of the engine")

    async def _once(self, op: str, lock: str, request: Changing) -> Message:
        """Act once per op; asked again, answer the same."""
        async with self._locks[lock]:
            if op not in self._answers:
                try:
                    self._answers[op] = self._act(request)
                except AtollError as error:
                    self._answers[op] = error
        answer = self._answers[op]
        if isinstance(answer, AtollError):
            raise answer
        return answer

    def _act(self, request: Changing) -> Message:
        match request:
            case Create():
                if request.spec.image not in self.images:
                    raise NotFound(f"image {request.spec.image!r} is not here")
                is_warm = (request.spec.cpus, request.spec.memory_bytes) in self.warm_sizes
                self._make(
                    Vm(
                        vm=request.vm,
                        owner=request.owner,
                        spec=request.spec,
                        state=VmState.STARTING,
                        warm=is_warm,
                    ),
                    request.identity,
                )
                started = self._start(request.vm, request.identity, cold=not is_warm)
                return started.model_copy(update={"warming": not is_warm and self.makes_templates})
            case Clone():
                source = self._get(request.source)
                spec = request.spec or source.spec
                if spec.image != source.spec.image or spec.disk_bytes < source.spec.disk_bytes:
                    raise Invalid(f"{request.source} cannot be copied as {spec}")
                child = source.model_copy(
                    update={
                        "vm": request.vm,
                        "owner": request.owner,
                        "spec": spec,
                        "depth": source.depth + 1,
                    }
                )
                self._make(child, request.identity)
                fits = (spec.cpus, spec.memory_bytes) == (
                    source.spec.cpus,
                    source.spec.memory_bytes,
                )
                if source.state in ON:
                    return self._start(request.vm, request.identity, cold=not fits)
                state = source.state if fits else VmState.STOPPED
                return self._put(request.vm, state=state, address=None, pid=None)
            case Pause():
                if self._get(request.vm).state not in ON:
                    raise Conflict(f"{request.vm} does not run")
                return self._put(request.vm, state=VmState.PAUSED, address=None, pid=None)
            case Stop():
                self._get(request.vm)
                return self._put(request.vm, state=VmState.STOPPED, address=None, pid=None)
            case Resume():
                was = self._get(request.vm).state
                if was in ON:
                    return Outcome(vm=self._get(request.vm))
                return self._start(request.vm, request.identity, cold=was is not VmState.PAUSED)
            case Restart():
                self._get(request.vm)
                return self._start(request.vm, request.identity, cold=True)
            case Identify():
                vm = self._get(request.vm)
                self.identities[request.vm] = request.identity
                return Outcome(vm=vm)
            case Delete():
                gone = self.vms.pop(request.vm, None)
                self.identities.pop(request.vm, None)
                if gone is not None:
                    self.publish("vm-gone", gone)
                return Empty()
            case Prepare():
                self.images.setdefault(
                    request.image, Image(name=request.image, digest="sha256:2", size_bytes=MIB)
                )
                self.warm_sizes.add((request.cpus, request.memory_bytes))
                return self.images[request.image]

    def _make(self, vm: Vm, identity: Identity) -> None:
        if vm.vm in self.vms:
            raise Conflict(f"{vm.vm} exists")
        self.vms[vm.vm] = vm.model_copy(update={"created_at": time.time(), "address": None})
        self.identities[vm.vm] = identity

    def _start(self, vm: str, identity: Identity, *, cold: bool) -> Outcome:
        self.identities[vm] = identity
        self._slots += 1
        address = f"10.213.{1 + self._slots // 64}.{4 * (self._slots % 64) + 2}"
        outcome = self._put(
            vm,
            state=VmState.RUNNING,
            address=address,
            pid=1000 + self._slots,
            warm=not cold,
            problem="",
        )
        return outcome.model_copy(update={"cold_booted": cold, "timings_ms": {"start": 1.0}})

    def _put(self, vm: str, **changes: object) -> Outcome:
        self.vms[vm] = self._get(vm).model_copy(update=changes)
        self.publish("vm-state", self.vms[vm])
        return Outcome(vm=self.vms[vm])

    def _get(self, vm: str) -> Vm:
        if vm not in self.vms:
            raise NotFound(f"{vm} is not on this node")
        return self.vms[vm]

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
            pool_free_bytes=50 * GIB,
            images=tuple(
                image.model_copy(update={"warm_sizes": tuple(self.warm_sizes)})
                for image in self.images.values()
            ),
            vms=len(self.vms),
        )
