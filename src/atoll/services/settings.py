"""What a VM is called and how it is described: name, tags, comment, web port, history of its disk.

Only a rename concerns the VM itself. The store has the new name first, so route and URL follow at
once; the VM is told through the journal, and one that does not run is told when it starts.
"""

from __future__ import annotations

from atoll.base import ids
from atoll.base.errors import AtollError, Conflict, Denied, Invalid
from atoll.domain import retention
from atoll.domain.account import Caller
from atoll.domain.label import check_comment, check_tags
from atoll.domain.name import check_vm
from atoll.domain.operation import OpKind
from atoll.domain.vm import VmRecord
from atoll.services.access import Access
from atoll.services.changes import Changes
from atoll.services.facts import ON, Facts
from atoll.services.journal import Journal
from atoll.store import accounts, vms
from atoll.store.engine import Store, Tx


class Settings:
    """Changes of a VM's row."""

    def __init__(
        self, *, store: Store, facts: Facts, journal: Journal, access: Access, changes: Changes
    ) -> None:
        self._store = store
        self._facts = facts
        self._journal = journal
        self._access = access
        self._changes = changes

    async def rename(self, caller: Caller, old: str, new: str, *, act: str) -> tuple[VmRecord, str]:
        """Returns the VM and what did not work inside it yet, empty when all did.

        Raises Conflict when the name is taken.
        """
        check_vm(new)
        async with self._access.exclusively(caller, old, doing="rename") as vm:
            facts = self._facts.get(vm.id)
            op = None
            async with self._store.begin() as tx:
                if new != old:
                    if not await vms.is_free(tx, new):
                        raise Conflict(f"the name {new!r} is taken", hint="Try another, or: ls")
                    await vms.change(tx, vm, name=new)
                if facts is None or facts.state in ON:
                    op = await self._journal.intend(tx, OpKind.IDENTIFY, vm, act=act)
            self._changes.bump()
            problem = ""
            if op is not None:
                try:
                    await self._journal.carry_out(op)
                except AtollError as error:  # the name holds; its own hostname follows
                    problem = f"inside, the old name stays until a restart: {error.message}"
            return await self._access.find(caller, new), problem

    async def set_tags(
        self, caller: Caller, name: str, *, add: tuple[str, ...], remove: tuple[str, ...]
    ) -> VmRecord:
        """Add and take away tags; a tag to remove that is not there is fine.

        Raises Denied for the tag that the caller's own scope is.
        """
        add, remove = check_tags(add), check_tags(remove)
        if caller.scope.tag in remove:
            raise Denied(
                f"this key or token is for VMs tagged {caller.scope.tag!r}, and keeps the tag there",
                hint="Use a key of the account itself",
            )
        async with self._access.exclusively(caller, name, doing="tag") as vm:
            tags = check_tags((set(vm.tags) | set(add)) - set(remove))
            async with self._store.begin() as tx:
                await vms.change(tx, vm)
                await vms.set_tags(tx, vm.id, tags)
                await self._tell_keys(tx, vm, set(vm.tags) ^ set(tags))
            found = await self._access.find(caller, name)
        self._journal.wake()
        return found

    async def _tell_keys(self, tx: Tx, vm: VmRecord, changed: set[str]) -> None:
        """Let a running VM know that keys made for a tag open it now, or no longer do."""
        keys = await accounts.keys_of(tx, vm.owner)
        if any(key.tag in changed for key in keys):
            await self._journal.inform(tx, vm, act=ids.new("act"))

    async def set_comment(self, caller: Caller, name: str, comment: str) -> VmRecord:
        """Replace the comment; empty clears it."""
        return await self._set(caller, name, "comment", comment=check_comment(comment))

    async def set_port(self, caller: Caller, name: str, port: int) -> VmRecord:
        """Which port inside answers https://<vm>.<domain>/."""
        if not 1 <= port <= 65535:
            raise Invalid(f"port {port} is not within 1 to 65535", hint="Try: 8000")
        return await self._set(caller, name, "share port", port=port, is_port_chosen=True)

    async def set_history(self, caller: Caller, name: str, policy: str) -> VmRecord:
        """How often its disk is kept by itself, as `retention.parse` takes it."""
        text = None if policy == "default" else retention.show(retention.parse(policy))
        return await self._set(caller, name, "snap history", history=text)

    async def _set(
        self, caller: Caller, name: str, doing: str, **values: str | int | None
    ) -> VmRecord:
        async with self._access.exclusively(caller, name, doing=doing) as vm:
            async with self._store.begin() as tx:
                await vms.change(tx, vm, **values)
            self._changes.bump()
            return await self._access.find(caller, name)
