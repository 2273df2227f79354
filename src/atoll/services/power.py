"""VMs on and off: pause, resume, restart; and what one uses now.

The engine is asked for the state first: asking for what already is changes nothing and succeeds.
"""

from __future__ import annotations

from atoll.base.errors import Conflict
from atoll.domain.account import Caller
from atoll.domain.operation import OpKind
from atoll.domain.vm import VmRecord
from atoll.rpc.messages import Console, Stat, StatVm, Text, VmState
from atoll.services.access import Access
from atoll.services.facts import ASK_S, ON, Engine, Facts
from atoll.services.journal import Journal
from atoll.services.vms import Made


class Power:
    """Changes of a VM's state."""

    def __init__(self, *, engine: Engine, facts: Facts, journal: Journal, access: Access) -> None:
        self._engine = engine
        self._facts = facts
        self._journal = journal
        self._access = access

    async def pause(self, caller: Caller, name: str, *, act: str) -> Made:
        """Memory to disk, CPU and memory free. A paused VM stays as it is."""
        async with self._access.exclusively(caller, name, doing="pause") as vm:
            state = (await self._facts.held(vm)).state
            if state is VmState.PAUSED:
                return Made(vm=vm)
            if state not in ON:
                raise Conflict(
                    f"{vm.title} is not running (it is {state})", hint=f"Try: restart {name}"
                )
            return await self._change(vm, OpKind.PAUSE, act)

    async def resume(self, caller: Caller, name: str, *, act: str) -> Made:
        """Run again where it was paused; a stopped VM boots. A running VM stays as it is."""
        async with self._access.exclusively(caller, name, doing="resume") as vm:
            if (await self._facts.held(vm)).state in ON:
                return Made(vm=vm)
            return await self._change(vm, OpKind.RESUME, act)

    async def restart(self, caller: Caller, name: str, *, act: str) -> Made:
        """Orderly shutdown and boot; a VM that does not run is booted."""
        async with self._access.exclusively(caller, name, doing="restart") as vm:
            state = (await self._facts.held(vm)).state
            if state is VmState.PAUSED:
                raise Conflict(
                    f"{vm.title} is paused; a restart would lose its memory",
                    hint=f"Try: resume {name}",
                )
            kind = OpKind.RESUME if state is VmState.STOPPED else OpKind.RESTART
            return await self._change(vm, kind, act)

    async def stat(self, caller: Caller, name: str) -> tuple[VmRecord, Stat]:
        """Counters and sizes of a VM at this moment."""
        vm = await self._access.find(caller, name)
        return vm, await self._engine.call(StatVm(vm=vm.id), Stat, seconds=ASK_S)

    async def console(self, caller: Caller, name: str) -> str:
        """The newest part of what the VM has printed on its serial console since it started.

        Raises Conflict when it does not run: then there is none.
        """
        vm = await self._access.find(caller, name)
        state = (await self._facts.held(vm)).state
        if state not in ON:
            raise Conflict(f"{vm.title} is not running (it is {state})", hint=f"Try: resume {name}")
        return (await self._engine.call(Console(vm=vm.id), Text, seconds=ASK_S)).text

    async def _change(self, vm: VmRecord, kind: OpKind, act: str) -> Made:
        return Made(vm=vm, outcome=await self._journal.do(kind, vm, act=act))
