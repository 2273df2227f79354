"""Another size for a VM: a larger disk at once, other vCPUs and memory from its next restart on.

The store has the size that is wanted; what a VM runs with until then, the engine says.
"""

from __future__ import annotations

from dataclasses import dataclass

from atoll.base.errors import Invalid
from atoll.domain.account import Caller
from atoll.domain.operation import Json, OpKind
from atoll.domain.vm import VmRecord
from atoll.rpc.messages import Outcome, VmState
from atoll.services.access import Access
from atoll.services.facts import Facts
from atoll.services.journal import Journal
from atoll.services.sizes import resized


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What `resize` was asked for; None: as it is."""

    cpus: int | None = None
    memory: str | None = None
    disk: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resized:
    """A VM's row before and after; `outcome` is None when there was nothing to do."""

    before: VmRecord
    after: VmRecord
    outcome: Outcome | None = None

    @property
    def needs_restart(self) -> bool:
        """Whether the VM has a process or saved memory of another size than is wanted."""
        if self.outcome is None:
            return False
        facts = self.outcome.vm
        is_off = facts.state is VmState.STOPPED
        runs_with = (facts.spec.cpus, facts.spec.memory_bytes)
        return not is_off and runs_with != (self.after.cpus, self.after.memory_bytes)

    @property
    def problem(self) -> str:
        """What did not follow, as the engine says it."""
        return self.outcome.vm.problem if self.outcome is not None else ""


class Resizing:
    """Changes sizes."""

    def __init__(self, *, facts: Facts, journal: Journal, access: Access) -> None:
        self._facts = facts
        self._journal = journal
        self._access = access

    async def resize(self, caller: Caller, name: str, size: Size, *, act: str) -> Resized:
        """Give a VM another size.

        Raises Invalid (nothing asked for, a smaller disk, out of bounds), Exhausted (more memory than
        the machine has, a full pool).
        """
        if size == Size():
            raise Invalid(
                "nothing to change: give --cpu, --memory or --disk",
                hint=f"Try: resize {name[:60]} --memory 2G",
            )
        node = await self._facts.node()
        async with self._access.exclusively(caller, name, doing="resize") as vm:
            vm.check_made()
            after = resized(vm, cpus=size.cpus, memory=size.memory, disk=size.disk, node=node)
            if after == vm:
                return Resized(before=vm, after=vm)
            payload: dict[str, Json] = {
                "cpus": after.cpus,
                "memory_bytes": after.memory_bytes,
                "disk_bytes": after.disk_bytes,
            }
            outcome = await self._journal.do(OpKind.RESIZE, vm, act=act, payload=payload)
            return Resized(before=vm, after=after, outcome=outcome)
