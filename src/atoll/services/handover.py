"""A VM gets another owner: given away, or left behind by somebody who is removed from a team.

Invariant: one row names the owner, and it changes in the transaction that also ends what the old
owner had of the VM (keys and tokens made for it, its openings) and notes that the VM is to be told,
so whatever fails, a VM has one owner and never two or none. The engine decides nothing by owner: it
keeps for whom a VM was made, and need not be told.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

from atoll.base.errors import AtollError, Conflict, Exhausted, Invalid, NotFound
from atoll.domain.account import Account, Caller
from atoll.domain.email import check_email
from atoll.domain.operation import Operation, OpKind
from atoll.domain.sharing import Level
from atoll.domain.team import Team, without
from atoll.domain.vm import VmRecord
from atoll.services.access import Access
from atoll.services.accounts import Accounts
from atoll.services.changes import Changes
from atoll.services.events import Events
from atoll.services.facts import ON, Facts
from atoll.services.journal import Journal
from atoll.services.locks import VmLocks
from atoll.services.team_grants import TeamGrants
from atoll.services.team_place import Place, find_place, places
from atoll.services.teams import take_out
from atoll.services.tokens import Tokens
from atoll.store import accounts, domains, grants, sessions, visits, vms
from atoll.store.accounts import SshKey
from atoll.store.engine import Store, Tx
from atoll.store.sessions import TokenRow


@dataclass(slots=True)
class _Left:
    """What ended with a handover, to be told once it has committed."""

    keys: list[SshKey] = field(default_factory=list)
    tokens: list[TokenRow] = field(default_factory=list)
    tell: list[Operation] = field(default_factory=list)


class Handover:
    """Changes who owns a VM."""

    def __init__(
        self,
        *,
        store: Store,
        facts: Facts,
        locks: VmLocks,
        journal: Journal,
        access: Access,
        accounts: Accounts,
        tokens: Tokens,
        events: Events,
        team_grants: TeamGrants,
        changes: Changes,
        max_vms: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._facts = facts
        self._locks = locks
        self._journal = journal
        self._access = access
        self._accounts = accounts
        self._tokens = tokens
        self._events = events
        self._team_grants = team_grants
        self._changes = changes
        self._max_vms = max_vms
        self._now = now

    async def transfer(self, caller: Caller, name: str, email: str, *, act: str) -> str:
        """Give a VM of the caller's to somebody; returns what inside it does not follow yet.

        Raises NotFound (the VM; nobody of that address in the caller's teams, or for the machine's
        admin on the machine), Conflict, or Exhausted when they have as many VMs as one may.
        """
        email = check_email(email)
        async with self._access.exclusively(caller, name, doing="transfer") as vm:
            async with self._store.begin() as tx:
                heir = await self._heir(tx, caller, email)
                left = await self._hand_over(tx, (vm,), heir, caller=caller, act=act)
            self._tell(left)
            try:
                for op in left.tell:
                    await self._journal.carry_out(op)
            except AtollError as error:  # the VM is theirs; its keys follow
                return f"inside, the old keys stay until a restart: {error.message}"
        return ""

    async def remove_member(
        self, caller: Caller, email: str, team: str | None, *, heir: str | None, act: str
    ) -> tuple[Team, tuple[VmRecord, ...]]:
        """Remove somebody from a team; their VMs that are meant go to `heir` in the same transaction.

        Raises NotFound, Denied, Conflict or Exhausted.
        """
        async with self._store.read() as tx:
            place = await find_place(tx, caller, team, now=self._now())
            member = place.find(email)
            without(place.roles, by=caller.account.id, who=member.account)
            meant = await _left_behind(tx, caller, place, member.account) if heir else ()
        async with self._holding(meant):
            async with self._store.begin() as tx:
                place = await find_place(tx, caller, team, now=self._now())
                member = place.find(email)
                now_meant = await _left_behind(tx, caller, place, member.account) if heir else ()
                await take_out(
                    tx, place, self._team_grants, by=caller.account.id, who=member.account
                )
                left = _Left()
                if heir is not None:
                    _check_same(meant, now_meant)
                    to = _other_member(place, heir, member.account)
                    left = await self._hand_over(tx, now_meant, to, caller=caller, act=act)
            self._tell(left)
        self._journal.wake()
        return place.team, meant

    @asynccontextmanager
    async def _holding(self, meant: Collection[VmRecord]) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for vm in sorted(meant, key=lambda vm: vm.id):
                held = self._locks.hold(vm.id, label=vm.label, doing="transfer")
                await stack.enter_async_context(held)
                await self._journal.settle(vm)
            yield

    async def _heir(self, tx: Tx, caller: Caller, email: str) -> Account:
        """Whom the caller may give something to: people of their teams; the machine's admin: anybody."""
        if email == caller.account.email:
            raise Invalid("that is you", hint="Name somebody else: team members")
        known = {
            member.email
            for place in await places(tx, caller, now=self._now())
            for member in place.members
        }
        found = await accounts.by_email(tx, email)
        if found is None or not (caller.account.is_admin or email in known):
            raise NotFound(
                f"nobody in your teams has the address {email[:60]!r}",
                hint=f"Try: team members, or first: team add {email[:60]}",
            )
        return found

    async def _hand_over(
        self, tx: Tx, given: Collection[VmRecord], heir: Account, *, caller: Caller, act: str
    ) -> _Left:
        if given and await vms.count(tx, heir.id) + len(given) > self._max_vms:
            raise Exhausted(
                f"with {len(given)} more, {heir.email} would have over {self._max_vms} VMs,"
                " which is the limit",
                hint="Give it to somebody else, or ask them to: rm <name>",
            )
        left = await self._end_limited(tx, given)
        for vm in given:
            vm.check_made()
            await grants.clear(tx, vm.id)
            await domains.clear(tx, vm.id)  # the names are of whoever has their DNS
            await visits.clear(tx, vm.id)  # who came is what its owner then may know
            await vms.change(tx, vm, owner=heir.id)
            facts = self._facts.get(vm.id)
            if facts is None or facts.state in ON:
                left.tell.append(await self._journal.intend(tx, OpKind.IDENTIFY, vm, act=act))
            await self._events.handed_over(
                tx, vm, replace(vm, owner=heir.id, is_public=False), caller, act=act
            )
        return left

    async def _end_limited(self, tx: Tx, given: Collection[VmRecord]) -> _Left:
        """Remove the keys and tokens that the owner made for one of these VMs alone."""
        left, meant = _Left(), {vm.id for vm in given}
        for owner in {vm.owner for vm in given}:
            keys = [key for key in await accounts.keys_of(tx, owner) if key.vm in meant]
            marks = {key.fingerprint for key in keys}
            for token in await sessions.tokens_of(tx, owner):
                if token.vm in meant or token.key in marks:
                    await sessions.remove_token(tx, account=owner, label=token.label)
                    left.tokens.append(token)
            for key in keys:
                await accounts.remove_key(tx, key.fingerprint)
            left.keys.extend(keys)
        return left

    def _tell(self, left: _Left) -> None:
        """What is committed is told to those who hold connections open."""
        self._changes.bump()
        self._events.changes.bump()
        for key in left.keys:
            self._accounts.ended(key)
        for token in left.tokens:
            self._tokens.ended(token)


async def _left_behind(tx: Tx, caller: Caller, place: Place, account: str) -> tuple[VmRecord, ...]:
    """Which VMs of a member a removal may hand over: those that the team could do everything with; to
    the machine's admin, who could read every disk anyway, all.
    """
    owned = await vms.owned(tx, account)
    if caller.account.is_admin:
        return owned
    given = await grants.to_team(tx, place.team.id)
    roots = {grant.vm for grant in given if grant.level is Level.ROOT}
    return tuple(vm for vm in owned if vm.id in roots)


def _check_same(before: Collection[VmRecord], now: Collection[VmRecord]) -> None:
    if {vm.id for vm in before} != {vm.id for vm in now}:
        raise Conflict("the member's VMs changed meanwhile", hint="Try again")


def _other_member(place: Place, email: str, leaver: str) -> Account:
    member = place.find(email)
    if member.account == leaver:
        raise Invalid("the VMs are theirs already", hint="Name another member: team members")
    return Account(id=member.account, email=member.email)
