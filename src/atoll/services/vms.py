"""New VMs: created from an image, or cloned.

Every change of a VM goes the same way: validate, authorise, check, write the intent, ask the
engine, commit. The name is taken in the transaction of the intent, so no two commands get the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from atoll.base import ids
from atoll.base.errors import Conflict, Exhausted, Internal, NotFound
from atoll.config import Vms as VmDefaults
from atoll.domain.account import Caller
from atoll.domain.label import check_comment, check_tags
from atoll.domain.name import check_vm, random_vm
from atoll.domain.operation import Json, OpKind
from atoll.domain.setup import Setup
from atoll.domain.vm import Phase, VmRecord
from atoll.rpc.messages import Image, Node, Outcome
from atoll.services.access import Access
from atoll.services.defaults import SETUP_SCRIPT
from atoll.services.effects import setup_payload
from atoll.services.facts import Facts
from atoll.services.journal import Journal
from atoll.services.keys import Keys
from atoll.services.locks import VmLocks
from atoll.services.sizes import check_memory, cpu_count, disk_size, memory_size, resized
from atoll.services.snapshots import named
from atoll.store import defaults, snapshots, vms
from atoll.store.engine import Store, Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVm:
    """What `new` was asked for; None: the configured default."""

    name: str | None = None
    image: str | None = None
    cpus: int | None = None
    memory: str | None = None
    disk: str | None = None
    tags: tuple[str, ...] = ()
    comment: str = ""
    setup_script: str | None = field(default=None, repr=False)  # empty: not the default's either
    env: tuple[str, ...] = field(default=(), repr=False)  # NAME=value


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """What `cp` was asked for; None: as the VM that is copied, and as it is now."""

    snapshot: str | None = None
    name: str | None = None
    cpus: int | None = None
    memory: str | None = None
    disk: str | None = None
    copy_tags: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A VM after a change; `outcome` is what the engine said, None when there was nothing to do."""

    vm: VmRecord
    outcome: Outcome | None = None
    has_setup: bool = False  # a setup script runs in it


class Vms:
    """Makes VMs."""

    def __init__(
        self,
        *,
        defaults: VmDefaults,
        store: Store,
        facts: Facts,
        locks: VmLocks,
        journal: Journal,
        access: Access,
        keys: Keys,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._defaults = defaults
        self._store = store
        self._facts = facts
        self._locks = locks
        self._journal = journal
        self._access = access
        self._keys = keys
        self._now = now

    async def create(
        self, caller: Caller, request: NewVm, *, act: str, progress: Callable[[str], None]
    ) -> Made:
        """Make a VM and wait until its guest agent has answered.

        A setup script is given to it by then, and runs on. Raises Invalid (name, sizes, image, script),
        Conflict (name taken), Exhausted (too many VMs, or the engine is out of something), Unavailable
        (the journal then goes on with it).
        """
        script = request.setup_script
        if script is None:
            async with self._store.read() as tx:
                script = (await defaults.of(tx, caller.account.id)).get(SETUP_SCRIPT)
        setup = Setup.checked(script, request.env)
        vm = await self._fitted(self._planned(caller, request), progress)
        payload = setup_payload(setup)
        made = await self._bring_up(vm, OpKind.CREATE, payload, wish=request.name, act=act)
        return replace(made, has_setup=setup.script is not None)

    async def clone(
        self,
        caller: Caller,
        source: str,
        request: Copy,
        *,
        act: str,
        progress: Callable[[str], None],
    ) -> Made:
        """Copy a VM: running with its memory and processes, else its disk as it is, or as it was.

        Raises as `create`; a source that is being changed is a Conflict, no such snapshot NotFound.
        """
        name = request.name
        if name is not None:
            check_vm(name)
        node = await self._facts.node()
        async with self._access.exclusively(caller, source, doing="cp") as parent:
            parent.check_made()
            running = await self._running_size(parent)
            child = self._named(
                replace(
                    resized(
                        running,
                        cpus=request.cpus,
                        memory=request.memory,
                        disk=request.disk,
                        node=node,
                    ),
                    created_at=self._now(),
                    generation=0,
                    tags=_tags(caller, parent.tags if request.copy_tags else ()),
                )
            )
            payload: dict[str, Json] = {"source": parent.id}
            if request.snapshot is not None:
                async with self._store.read() as tx:
                    held = await snapshots.of_vms(tx, [parent.id])
                one = named(parent, held, request.snapshot)
                payload |= {"snapshot": one.id, "of": one.name}
                if not one.has_memory:
                    progress("a snapshot without memory: the copy boots")
            elif (child.cpus, child.memory_bytes) != (running.cpus, running.memory_bytes):
                progress("another size: the copy is of the disk alone, and boots")
            return await self._bring_up(child, OpKind.CLONE, payload, wish=name, act=act)

    async def _running_size(self, vm: VmRecord) -> VmRecord:
        """`vm` with the vCPUs and the memory it has now: a resize of those may wait for its restart."""
        facts = await self._facts.fresh(vm.id)
        if facts is None:
            return vm
        return replace(vm, cpus=facts.spec.cpus, memory_bytes=facts.spec.memory_bytes)

    async def _bring_up(
        self,
        vm: VmRecord,
        kind: OpKind,
        payload: dict[str, Json],
        *,
        wish: str | None,
        act: str,
    ) -> Made:
        async with self._locks.hold(vm.id, label=wish or vm.id, doing=kind.value):
            async with self._store.begin() as tx:
                vm = replace(vm, name=await self._free_name(tx, vm, wish))
                await vms.add(tx, vm)
                op = await self._journal.intend(tx, kind, vm, act=act, payload=payload)
            outcome = await self._journal.carry_out(op)
            async with self._store.read() as tx:
                made = await vms.get(tx, vm.id)
        if made is None:
            raise Internal(f"{vm.title} is gone although it was made")
        return Made(vm=made, outcome=outcome)

    async def _free_name(self, tx: Tx, vm: VmRecord, wish: str | None) -> str:
        if await vms.count(tx, vm.owner) >= self._defaults.max_vms:
            raise Exhausted(
                f"you have {self._defaults.max_vms} VMs, which is the limit", hint="Try: rm <name>"
            )
        if wish is not None:
            if not await vms.is_free(tx, wish):
                raise Conflict(f"the name {wish!r} is taken", hint="Try another name, or: ls")
            return wish
        for words in (1, 1, 1, 1, 2, 2, 2, 2):
            name = "-".join(random_vm() for _ in range(words))
            if await vms.is_free(tx, name):
                return name
        raise Exhausted("no free name was found", hint="Try: new --name web")

    def _planned(self, caller: Caller, request: NewVm) -> VmRecord:
        """Everything that can be checked without asking anybody."""
        if request.name is not None:
            check_vm(request.name)
        cpus = self._defaults.cpus if request.cpus is None else cpu_count(request.cpus)
        return self._named(
            VmRecord(
                id="",
                owner=caller.account.id,
                name=None,
                comment=check_comment(request.comment),
                image=request.image or self._defaults.image,
                cpus=cpus,  # 0: the node's acceleration decides
                memory_bytes=memory_size(request.memory or self._defaults.memory),
                disk_bytes=disk_size(request.disk or self._defaults.disk),
                phase=Phase.CREATING,
                port=0,
                host_key="",
                created_at=self._now(),
                tags=_tags(caller, request.tags),
            )
        )

    def _named(self, vm: VmRecord) -> VmRecord:
        vm_id = ids.new("vm")
        _, public = self._keys.vm_host_key(vm_id)
        return replace(vm, id=vm_id, name=None, phase=Phase.CREATING, host_key=public)

    async def _fitted(self, vm: VmRecord, progress: Callable[[str], None]) -> VmRecord:
        """The plan with what only the node knows: its images, its size, what a vCPU costs there."""
        node = await self._facts.node()
        if not self._is_warm(vm, node):
            node = await self._facts.fresh_node()  # an image or a template may be there by now
        image = _image(vm, node)
        if image is None:
            known = ", ".join(sorted(image.name for image in node.images)) or "none is built yet"
            raise NotFound(f"image {vm.image[:40]!r} not found", hint=f"Images here: {known}")
        check_memory(vm.memory_bytes, node)
        if not self._is_warm(vm, node):
            progress("no warm template of this size yet: this one boots, which takes longer")
        return replace(vm, cpus=self._cpus(vm, node), port=image.default_port)

    def _is_warm(self, vm: VmRecord, node: Node) -> bool:
        image = _image(vm, node)
        return image is not None and (self._cpus(vm, node), vm.memory_bytes) in image.warm_sizes

    def _cpus(self, vm: VmRecord, node: Node) -> int:
        return vm.cpus or self._defaults.cpus_on(node.accel)


def _image(vm: VmRecord, node: Node) -> Image | None:
    return next((image for image in node.images if image.name == vm.image), None)


def _tags(caller: Caller, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """What a new VM is tagged with: whoever may touch only VMs with a tag makes such VMs."""
    own = caller.scope.tag
    return check_tags(wanted if own is None else (*wanted, own))
