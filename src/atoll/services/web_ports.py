"""A VM's web address follows its server until `share port` says where it leads.

Whoever opens an address that leads to a port where nothing listens has the VM asked what does listen, and
the address moves there. So a program that has a port of its own needs no setting.

Invariants: an address moves only while nobody but the VM's owner may open it, for the others were let in
to what the old port serves, and never off a port that serves. No visit waits for it, and a VM is asked
once in EVERY_S at most, however often it is visited.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from atoll.base import log
from atoll.base.aio import TaskGroup
from atoll.base.errors import AtollError
from atoll.base.limits import Limits
from atoll.domain.vm import Phase, VmRecord, Wanted
from atoll.domain.web import web_port
from atoll.rpc.messages import Stat, StatVm
from atoll.services.changes import Changes
from atoll.services.events import Events, Unasked
from atoll.services.facts import ASK_S, Engine
from atoll.services.locks import VmLocks
from atoll.store import grants, operations, vms
from atoll.store.engine import Store, Tx

EVERY_S = 5.0  # between two questions to one VM: about as often as somebody reloads a page
AT_ONCE = 4  # a guest that hangs takes seconds, which the others need not wait for
WAITING = 100  # beyond it a visit is forgotten; the next one asks again
_log = log.get("web-ports")


class WebPorts:
    """Looks where addresses that lead nowhere should lead."""

    def __init__(
        self,
        *,
        store: Store,
        engine: Engine,
        locks: VmLocks,
        events: Events,
        changes: Changes,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._engine = engine
        self._locks = locks
        self._events = events
        self._changes = changes
        self._waiting: asyncio.Queue[tuple[str, int]] = asyncio.Queue(WAITING)
        # Apart, so that whoever misses other ports of a VM all the time does not use up its questions.
        self._misses = Limits(per_second=1 / EVERY_S, burst=1.0, monotonic=monotonic)
        self._questions = Limits(per_second=1 / EVERY_S, burst=1.0, monotonic=monotonic)

    def missed(self, vm_name: str, port: int) -> None:
        """Somebody was let in to this port inside, and nothing listened there. Returns at once."""
        if not (self._waiting.full() or self._misses.wait_s(f"{vm_name}:{port}")):
            self._waiting.put_nowait((vm_name, port))

    async def run(self) -> None:
        """Look after what was missed, for ever."""
        async with TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            vm_name, port = await self._waiting.get()
            try:
                await self.look(vm_name, port)
            except AtollError as error:  # the next visit asks again
                _log.info("web port not looked for", vm=vm_name, reason=error.message)

    async def look(self, vm_name: str, port: int) -> None:
        """Move a VM's web address off this port if it may move and another one serves."""
        async with self._store.read() as tx:
            vm = await vms.named(tx, vm_name)
            if vm is None or not await _may_move(tx, vm, port):
                return
        if self._questions.wait_s(vm.id):
            return
        listening = (await self._engine.call(StatVm(vm=vm.id), Stat, seconds=ASK_S)).ports
        found = web_port(listening)
        if port not in listening and found is not None:
            await self._move(vm, found)

    async def _move(self, vm: VmRecord, port: int) -> None:
        if self._locks.doing(vm.id) is not None:
            return  # somebody changes it now; the next visit asks again
        async with self._locks.hold(vm.id, label=vm.label, doing="share port"):
            async with self._store.begin() as tx:
                now = await vms.get(tx, vm.id)
                if now is None or not await _may_move(tx, now, vm.port):
                    return
                await vms.change(tx, now, port=port)
                said = f"nothing listened on port {vm.port}, so the address leads to {port}"
                await self._events.notice(tx, now, Unasked.PORT_MOVED, problem=said)
        self._changes.bump()
        self._events.changes.bump()


async def _may_move(tx: Tx, vm: VmRecord, port: int) -> bool:
    """Whether a VM that should run leads to this port by nobody's choice, and only its owner in."""
    is_on = vm.phase is Phase.LIVE and vm.wanted is Wanted.RUNNING
    if not is_on or vm.port != port or vm.is_port_chosen:
        return False
    is_shared = await grants.of_vm(tx, vm.id) or await grants.links_of(tx, vm.id)
    return not is_shared and not await operations.unfinished(tx, vm=vm.id)
