"""Names of their own for VMs: added, checked by DNS, served, removed.

Invariants: a domain belongs to one VM, and is served while DNS leads it here: whoever has its DNS is
trusted with the visitors of that VM, for a browser is signed in at the name. So it is looked at again
every GOOD_S, is not served once it leads elsewhere, and does not go along when the VM changes hands.
One that was never found so is nobody's yet: whoever's check succeeds has it, so none can be kept from
anybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from atoll.base import log
from atoll.base.errors import AtollError, Conflict, Exhausted, NotFound, Unavailable
from atoll.domain import custom_domain
from atoll.domain.account import Caller
from atoll.domain.custom_domain import Found
from atoll.domain.vm import Phase, VmRecord
from atoll.services.access import Access
from atoll.services.changes import Changes
from atoll.store import domains, vms
from atoll.store.domains import DomainRow
from atoll.store.engine import Store, Tx

MOST_PER_VM = 100  # each is looked up in DNS, and has a certificate
GOOD_S = 3600.0
OUTAGE_S = 86400.0  # without an answer of DNS, what was good stays good for so long
FIRST_S, LONGEST_S = 60.0, 3600.0
LOOK_S = 20.0
BATCH = 20
_log = log.get("domains")


class Looking(Protocol):
    """Asks DNS."""

    async def find(self, domain: str) -> Found:
        """Where it leads. Raises Unavailable."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A domain and the VM it is for."""

    vm: VmRecord
    row: DomainRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Certifiable:
    """Names of VMs, domains that lead to one, and all hosts that may yet come back."""

    vms: frozenset[str]
    custom: frozenset[str]
    kept: frozenset[str]


class Domains:
    """What the verbs and the loop do with them."""

    def __init__(
        self,
        *,
        own: str,
        store: Store,
        access: Access,
        lookup: Looking,
        changes: Changes,
        now: Callable[[], float],
    ) -> None:
        """`own` is the cloud's domain."""
        self._own = own
        self._store = store
        self._access = access
        self._lookup = lookup
        self._changes = changes
        self._now = now

    async def add(self, caller: Caller, vm_name: str, text: str) -> DomainRow:
        """Register a domain for a VM and look at its DNS; `problem` of the row says what is wrong there.

        Raises Invalid, Conflict when it is another VM's, Exhausted.
        """
        domain = custom_domain.check(text, own=self._own)
        vm = await self._access.find(caller, vm_name)
        async with self._store.read() as tx:
            await self._check_free(tx, vm, domain)
        try:
            problem, expected = await self._verdict(domain, vm)
        except Unavailable as error:
            problem, expected = error.message, self._expected(domain, vm)
        async with self._access.exclusively(caller, vm_name, doing="domain add") as vm:
            async with self._store.begin() as tx:
                old = await self._check_free(tx, vm, domain, is_proven=not problem)
                row = self._row(old, vm, domain, problem, expected)
                await domains.put(tx, row)
        self._changes.bump()
        return row

    async def remove(self, caller: Caller, vm_name: str, text: str) -> str:
        """Forget one of a VM's; returns it. Raises NotFound."""
        domain = custom_domain.check(text, own=self._own)
        async with self._access.exclusively(caller, vm_name, doing="domain rm") as vm:
            async with self._store.begin() as tx:
                row = await domains.get(tx, domain)
                if row is None or row.vm != vm.id:
                    raise NotFound(f"{vm.title} has no domain {domain}", hint="Try: domain ls")
                await domains.remove(tx, domain)
        self._changes.bump()
        return domain

    async def of(self, caller: Caller, vm_name: str | None) -> tuple[Served, ...]:
        """Those of one VM, or of every VM of the caller, by name."""
        if vm_name is None:
            found = await self._access.visible(caller)
        else:
            found = (await self._access.find(caller, vm_name),)
        by_id = {vm.id: vm for vm in found}
        async with self._store.read() as tx:
            rows = await domains.of_vms(tx, by_id.keys())
        return tuple(Served(vm=by_id[row.vm], row=row) for row in rows)

    async def served(self) -> dict[str, str]:
        """Domain -> VM name, of all that lead to a VM now."""
        async with self._store.read() as tx:
            return await domains.served(tx)

    async def certifiable(self) -> Certifiable:
        """Whose certificates are worth asking for."""
        async with self._store.read() as tx:
            records = await vms.everywhere(tx)
            custom = frozenset(await domains.served(tx))  # for others no server would sign
            known = await domains.everywhere(tx)
        live = frozenset(vm.name for vm in records if vm.name and vm.phase is Phase.LIVE)
        kept = known | {f"{vm.label}.{self._own}" for vm in records}
        return Certifiable(vms=live, custom=custom, kept=kept)

    async def run(self) -> None:
        """Look at DNS again when it is time, until cancelled."""
        while True:
            try:
                await self.recheck()
            except AtollError as error:
                _log.warning("domains not checked", reason=str(error))
            await asyncio.sleep(LOOK_S)

    async def recheck(self) -> None:
        """Look at those that are due."""
        async with self._store.read() as tx:
            rows = await domains.due(tx, now=self._now(), limit=BATCH)
            owners = {vm.id: vm for vm in await vms.some(tx, {row.vm for row in rows})}
        if not rows:
            return
        ours = await self._ours()
        for row in rows:
            await self._recheck(row, owners[row.vm], ours)

    async def _recheck(self, row: DomainRow, vm: VmRecord, ours: Found | Unavailable) -> None:
        now = self._now()
        try:
            problem, expected = await self._verdict(row.domain, vm, ours)
        except Unavailable as error:
            if row.problem == "" and now - row.checked_at < OUTAGE_S:
                async with self._store.begin() as tx:
                    await domains.change(tx, row, next_check_at=now + FIRST_S)
                return
            problem, expected = error.message, self._expected(row.domain, vm)
        new = self._row(row, vm, row.domain, problem, expected)
        async with self._store.begin() as tx:
            changed = {name: getattr(new, name) for name in _CHECKED}
            if not await domains.change(tx, row, **changed):
                return  # removed meanwhile
        if (row.problem, row.proven_at) != (new.problem, new.proven_at):
            _log.info("domain checked", domain=row.domain, problem=new.problem)
            self._changes.bump()

    async def _ours(self) -> Found | Unavailable:
        """What DNS says of the cloud's own domain."""
        try:
            return await self._lookup.find(self._own)
        except Unavailable as error:
            return error

    async def _verdict(
        self, domain: str, vm: VmRecord, ours: Found | Unavailable | None = None
    ) -> tuple[str, str]:
        """What DNS says; `ours`: what it said of our own domain. Raises Unavailable when it is silent."""
        found = await self._lookup.find(domain)
        ours = ours or await self._ours()
        if isinstance(ours, Unavailable):
            raise ours
        target = f"{vm.label}.{self._own}"
        return custom_domain.verdict(domain, found, target=target, ours=ours.addresses)

    def _expected(self, domain: str, vm: VmRecord) -> str:
        return f"{domain} CNAME {vm.label}.{self._own}"

    async def _check_free(
        self, tx: Tx, vm: VmRecord, domain: str, *, is_proven: bool = True
    ) -> DomainRow | None:
        """The row there is already for this VM; one of another's goes if DNS speaks for us alone."""
        old = await domains.get(tx, domain)
        if old is not None and old.vm == vm.id:
            return old
        if old is not None and (old.proven_at is not None or not is_proven):
            other = await vms.get(tx, old.vm)
            if other is None or other.owner != vm.owner:
                raise Conflict(f"{domain} is registered for another VM")
            raise Conflict(
                f"{domain} is registered for {other.title}",
                hint=f"Try: domain rm {other.label} {domain}",
            )
        if len(await domains.of_vms(tx, (vm.id,))) >= MOST_PER_VM:
            raise Exhausted(f"{vm.title} has {MOST_PER_VM} domains already", hint="Try: domain rm")
        return None

    def _row(
        self, old: DomainRow | None, vm: VmRecord, domain: str, problem: str, expected: str
    ) -> DomainRow:
        now = self._now()
        failures = (old.failures if old else 0) + 1 if problem else 0
        wait = min(FIRST_S * 2 ** min(failures, 10), LONGEST_S) if problem else GOOD_S
        row = old or DomainRow(
            domain=domain, vm=vm.id, problem="", expected="", created_at=now, checked_at=now,
            failures=0, next_check_at=now, proven_at=None,
        )  # fmt: skip
        return replace(
            row,
            problem=problem,
            expected=expected,
            checked_at=now,
            failures=failures,
            next_check_at=now + wait,
            proven_at=row.proven_at or (None if problem else now),
        )


_CHECKED = ("problem", "expected", "checked_at", "failures", "next_check_at", "proven_at")
