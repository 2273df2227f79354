"""Accounts and their SSH keys: who is calling, and which keys open which VMs.

A key belongs to one account until it is removed. VMs that run learn of a change through the
journal, in the background; the others when they start.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

from atoll.base import ids
from atoll.base.errors import Conflict, Exhausted, Invalid, NotFound
from atoll.domain.account import Account, Caller, Door
from atoll.domain.email import check_email
from atoll.services.journal import Journal
from atoll.services.public_key import PublicKey, parse_key
from atoll.services.publishing import entered_by
from atoll.store import accounts
from atoll.store.accounts import SshKey
from atoll.store.engine import Store, Tx

MAX_KEYS = 200
_KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._+-]{0,63}")


class Accounts:
    """Accounts and keys."""

    def __init__(
        self,
        *,
        store: Store,
        journal: Journal,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._journal = journal
        self._now = now
        self._ends: list[Callable[[SshKey], None]] = []

    def when_key_ends(self, tell: Callable[[SshKey], None]) -> None:
        """Call `tell` with every key that is removed from now on."""
        self._ends.append(tell)

    async def caller_for_key(self, key_line: str, *, source: str) -> Caller | None:
        """Who logs in with this key; None: a key nobody has added."""
        try:
            key = parse_key(key_line)
        except Invalid:
            return None
        async with self._store.read() as tx:
            found = await accounts.by_key(tx, key.fingerprint)
        if found is None:
            return None
        account, stored = found
        return Caller(
            account=account,
            door=Door.SSH,
            key_fingerprint=key.fingerprint,
            source=source,
            scope=stored.scope,
        )

    async def of_address(self, email: str) -> Account | None:
        """The account with this address, as `check_email` spells it."""
        async with self._store.read() as tx:
            return await accounts.by_email(tx, email)

    async def owner(self) -> Account:
        """The machine's first account, its admin; NotFound before there is one."""
        async with self._store.read() as tx:
            owner = await accounts.first_admin(tx)
        if owner is None:
            raise NotFound("this cloud has no owner yet", hint="Try: make up")
        return owner

    async def ensure_owner(self, *, email: str, key_line: str, label: str) -> Account:
        """Make the owner if there is none, and let this key in as the owner."""
        async with self._store.read() as tx:
            owner = await accounts.first_admin(tx)
        if owner is not None:
            email = owner.email
        return await self.ensure(email, key_line, key_name=label, is_admin=True)

    async def ensure(
        self, email: str, key_line: str, *, key_name: str = "", is_admin: bool = False
    ) -> Account:
        """The account of this address, made if need be, with this key among its own.

        Raises Conflict when the key belongs to another account.
        """
        email = check_email(email)
        key = parse_key(key_line)
        async with self._store.begin() as tx:
            account = await accounts.by_email(tx, email)
            if account is None:
                account = Account(id=ids.new("acct"), email=email, is_admin=is_admin)
                await accounts.add(tx, account, now=self._now())
            owner = await accounts.by_key(tx, key.fingerprint)
            if owner is None or owner[0] != account:
                taken = {other.name for other in await accounts.keys_of(tx, account.id)}
                name = "" if key_name in taken or not _KEY_NAME.fullmatch(key_name) else key_name
                await self._insert(tx, account, key, name)
        return account

    async def keys(self, caller: Caller) -> tuple[SshKey, ...]:
        """The caller's keys, oldest first."""
        async with self._store.read() as tx:
            return await accounts.keys_of(tx, caller.account.id)

    async def add_key(
        self,
        caller: Caller,
        text: str,
        *,
        name: str,
        vm: str | None = None,
        tag: str | None = None,
        user: str | None = None,
        act: str,
    ) -> SshKey:
        """Let a key log in; with `vm` (an id) into that VM only, with `tag` into those with the tag.

        `user` is the VM's user it logs in as, by way of the gateway.

        Raises Conflict when the key or its name is there already.
        """
        key = parse_key(text)
        async with self._store.begin() as tx:
            stored = await self._insert(tx, caller.account, key, name, vm=vm, tag=tag, user=user)
            await self._tell_vms(tx, caller.account, act)
        self._journal.wake()
        return stored

    async def remove_key(self, caller: Caller, which: str, *, act: str) -> SshKey:
        """Forget a key given by name, fingerprint or content.

        Raises NotFound, or Conflict for the last key that opens the account.
        """
        async with self._store.begin() as tx:
            owned = await accounts.keys_of(tx, caller.account.id)
            key = _chosen(owned, which)
            if key.scope.is_whole and sum(other.scope.is_whole for other in owned) == 1:
                raise Conflict(
                    "that is your last key; without it you could not come back",
                    hint="Add another first: ssh-key add '<public key>'",
                )
            await accounts.remove_key(tx, key.fingerprint)
            await self._tell_vms(tx, caller.account, act)
        self._journal.wake()
        self.ended(key)
        return key

    def ended(self, key: SshKey) -> None:
        """Tell those who asked that a key is gone; its removal has committed."""
        for tell in self._ends:
            tell(key)

    async def rename_key(self, caller: Caller, which: str, name: str) -> SshKey:
        """Call a key something else; returns it as it was.

        Raises NotFound, Conflict when the name is taken, or Invalid. VMs see it with the next change.
        """
        async with self._store.begin() as tx:
            owned = await accounts.keys_of(tx, caller.account.id)
            key = _chosen(owned, which)
            taken = {other.name for other in owned if other != key}
            await accounts.rename_key(tx, key.fingerprint, _wished(name, taken))
        return key

    async def _insert(
        self,
        tx: Tx,
        account: Account,
        key: PublicKey,
        name: str,
        *,
        vm: str | None = None,
        tag: str | None = None,
        user: str | None = None,
    ) -> SshKey:
        owner = await accounts.by_key(tx, key.fingerprint)
        if owner is not None:
            whose = "yours already" if owner[0].id == account.id else "another account's"
            raise Conflict(f"key {key.fingerprint} is {whose}", hint="Try: ssh-key list")
        owned = await accounts.keys_of(tx, account.id)
        if len(owned) >= MAX_KEYS:
            raise Exhausted(f"{len(owned)} keys are the most", hint="Try: ssh-key remove <name>")
        taken = {other.name for other in owned}
        stored = SshKey(
            fingerprint=key.fingerprint,
            account=account.id,
            name=_name(name, key.comment, taken),
            public_key=key.line,
            vm=vm,
            tag=tag,
            user=user,
            created_at=self._now(),
        )
        await accounts.add_key(tx, stored)
        return stored

    async def _tell_vms(self, tx: Tx, account: Account, act: str) -> None:
        for vm in await entered_by(tx, account):
            await self._journal.inform(tx, vm, act=act)


def _chosen(owned: Sequence[SshKey], which: str) -> SshKey:
    """The key of this name, fingerprint or content."""
    line = " ".join(which.split()[:2])
    for key in owned:
        if line in (key.name, key.fingerprint, key.public_key):
            return key
    raise NotFound(f"key {which[:60]!r} not found", hint="Try: ssh-key list")


def _wished(wish: str, taken: set[str]) -> str:
    if not _KEY_NAME.fullmatch(wish):
        raise Invalid(f"{wish[:60]!r} cannot name a key", hint="Try a name like laptop")
    if wish in taken:
        raise Conflict(f"you have a key named {wish!r}", hint="Try another name")
    return wish


def _name(wish: str, comment: str, taken: set[str]) -> str:
    """The name asked for; else the comment if it can be one; else `key-1`, `key-2`, …"""
    if wish:
        return _wished(wish, taken)
    if _KEY_NAME.fullmatch(comment) and comment not in taken:
        return comment
    return next(name for number in range(1, 10_000) if (name := f"key-{number}") not in taken)
