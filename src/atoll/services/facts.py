"""What the engine last said: states and addresses by VM id, and the node itself.

Invariant: shown and routed by, never decided by: a change asks the engine afresh. Without a
connection the facts are old, and `connected` says so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Protocol, TypeVar

from atoll.base.errors import Conflict, NotFound
from atoll.domain.vm import VmRecord
from atoll.rpc.messages import Event, GetVm, ListVms, Message, Node, NodeInfo, Vm, Vms, VmState
from atoll.services.changes import Changes

R = TypeVar("R", bound=Message)
ASK_S = 10.0  # a question without effect
ON = (VmState.STARTING, VmState.RUNNING)


class Engine(Protocol):
    """The part of the RPC client that services use."""

    async def call(self, request: Message, answer: type[R], *, seconds: float) -> R:
        """Ask and return the checked answer; the engine's error or Unavailable otherwise."""
        ...

    def events(self) -> AsyncIterator[Event]:
        """Events from now on; ends with Unavailable."""
        ...


class Facts:
    """The cache, kept fresh by answers, events and the reconciler."""

    def __init__(self, *, engine: Engine, changes: Changes) -> None:
        self.connected = False
        self.strays: dict[str, Vm] = {}  # on the engine, and nobody knows whose
        self._engine = engine
        self._changes = changes
        self._vms: dict[str, Vm] = {}
        self._on_end: list[Callable[[str], None]] = []
        self._node: Node | None = None

    def when_vm_ends(self, act: Callable[[str], None]) -> None:
        """Call `act` with the id of every VM that is found no longer where it was reached."""
        self._on_end.append(act)

    def get(self, vm: str) -> Vm | None:
        """The last facts about one VM."""
        return self._vms.get(vm)

    def at(self, address: str) -> tuple[str, ...]:
        """Ids of the VMs last seen at this outer address; more than one while it changes hands."""
        return tuple(vm.vm for vm in self._vms.values() if vm.address == address)

    def observe(self, vm: Vm) -> None:
        """The engine just said this."""
        before = self._vms.get(vm.vm)
        self._vms[vm.vm] = vm
        if before is None or _shown(before) != _shown(vm):
            self._changes.bump()
        if before is not None and before.address not in (None, vm.address):
            self._ended(vm.vm)

    def gone(self, vm: str) -> None:
        """The engine has no such VM."""
        before = self._vms.pop(vm, None)
        if before is not None:
            self._changes.bump()
        if before is not None and before.address is not None:
            self._ended(vm)

    def replace(self, vms: Iterable[Vm]) -> None:
        """The engine's whole list."""
        listed = {vm.vm: vm for vm in vms}
        for missing in self._vms.keys() - listed.keys():
            self.gone(missing)
        for vm in listed.values():
            self.observe(vm)
        self.set_connected(True)

    def apply(self, event: Event) -> None:
        """Take over what an event says."""
        if event.vm is None:
            self._node = None  # images, space: ask again when needed
        elif event.kind == "vm-gone":
            self.gone(event.vm)
        elif (known := self._vms.get(event.vm)) is not None and event.state is not None:
            address = event.address or (known.address if event.state in ON else None)
            change = {"state": event.state, "address": address, "problem": event.detail}
            self.observe(known.model_copy(update=change))

    def set_connected(self, connected: bool) -> None:
        """Whether the engine answers."""
        if connected != self.connected:
            self.connected = connected
            self._node = None
            self._changes.bump()

    def _ended(self, vm: str) -> None:
        for act in self._on_end:
            act(vm)

    async def fresh(self, vm: str) -> Vm | None:
        """Ask the engine about one VM now; None: it has no such VM."""
        try:
            found = await self._engine.call(GetVm(vm=vm), Vm, seconds=ASK_S)
        except NotFound:
            self.gone(vm)
            return None
        self.observe(found)
        return found

    async def held(self, vm: VmRecord) -> Vm:
        """The same of a VM that the engine must have. Raises Conflict when it has not."""
        found = await self.fresh(vm.id)
        if found is None:
            raise Conflict(
                f"{vm.title} is lost: the engine does not have it", hint="Try: atoll doctor"
            )
        return found

    async def refresh(self) -> None:
        """Ask about every VM now: no event tells how much of the disk they use."""
        for vm in (await self._engine.call(ListVms(), Vms, seconds=ASK_S)).vms:
            self.observe(vm)

    async def node(self) -> Node:
        """Facts about the machine, asked once per connection and after events about it.

        Raises Unavailable when the engine does not answer, so it also tells that it does.
        """
        if self._node is None or not self.connected:
            return await self.fresh_node()
        return self._node

    async def fresh_node(self) -> Node:
        """The same, asked now: for whoever would refuse or warn because of what `node` says."""
        self._node = await self._engine.call(NodeInfo(), Node, seconds=ASK_S)
        return self._node


def _shown(vm: Vm) -> tuple[VmState, str | None, str]:
    """What of it is looked at."""
    return vm.state, vm.address, vm.problem
