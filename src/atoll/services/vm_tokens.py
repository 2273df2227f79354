"""Tokens that open a VM's web address: those the cloud keeps, and those their holders sign.

HAProxy checks both in its map. What the cloud keeps is always there; a signed one is put there when it is
first shown and found good, and stays until it, its key or its VM ends. Who may open what of the VM is
another matter: a token only says who comes. But whoever may open nothing of it has no token for it,
and does not learn from one that it exists.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from atoll.base import log
from atoll.base.errors import Denied
from atoll.base.secret import hashed
from atoll.domain.sharing import EVERYBODY
from atoll.domain.vm import VmRecord
from atoll.domain.vm_token import MAX_CTX_BYTES, VmToken
from atoll.services import signed_token
from atoll.services.publishing import openings_of
from atoll.services.signed_token import SignedToken
from atoll.store import accounts, vms
from atoll.store import sessions as rows
from atoll.store.accounts import SshKey
from atoll.store.engine import Store, Tx

MOST_EACH = 500  # signed tokens of one account that HAProxy knows; its oldest make room
_log = log.get("vm-tokens")


@dataclass(frozen=True, slots=True)
class _Signed:
    """A token that was good when it was shown; `token.vm_name` is what its VM was called then."""

    vm: str
    key: str
    token: VmToken


class VmTokens:
    """Knows the tokens that are good now. `changed` is called when there are others."""

    def __init__(
        self,
        *,
        store: Store,
        domain: str,
        changed: Callable[[], None],
        most_each: int = MOST_EACH,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._domain = domain
        self._changed = changed
        self._most_each = most_each
        self._now = now
        self._shown: dict[tuple[str, str], _Signed] = {}  # by VM and hash, oldest first
        self._alarm: asyncio.TimerHandle | None = None  # at the next end of a token

    async def good(self) -> tuple[VmToken, ...]:
        """Every token HAProxy should know now; calls `changed` when the first of them ends."""
        now, shown = self._now(), list(self._shown.items())
        async with self._store.read() as tx:
            kept = await rows.vm_tokens(tx, now=now)
            found = await accounts.keys_among(tx, {one.key for _, one in shown})
            named = await vms.some(tx, {one.vm for _, one in shown})
        keys = {key.fingerprint: key for key in found}
        known = {vm.id: vm for vm in named}
        signed = []
        for at, one in shown:
            if _is_good(one, keys, known, now):
                signed.append(one.token)
            else:
                self._shown.pop(at, None)
        self._wake([token.until for token in (*kept, *signed) if token.until is not None], now)
        return (*kept, *signed)

    async def admit(self, vm_name: str, token: str) -> VmToken | None:
        """A token that its holder signed for this VM's address, if it is good; HAProxy asks once."""
        try:
            read = signed_token.read(token, now=self._now())
        except Denied as error:
            _log.info("token refused", vm=vm_name, reason=error.message)
            return None
        async with self._store.read() as tx:
            vm = await vms.named(tx, vm_name)
            found = await accounts.by_key(tx, read.signature.fingerprint)
            if vm is None or found is None or not await self._may_come(tx, vm, found[0].id):
                return None
        account, key = found
        ctx = read.permission.ctx
        if not self._signs_for(key, vm, vm_name, read) or len(ctx or "") > MAX_CTX_BYTES:
            return None
        good = VmToken(
            vm_name=vm_name,
            hash=hashed(token),
            account=account.id,
            email=account.email,
            until=read.permission.expires_at,
            ctx=ctx,
        )
        self._keep(_Signed(vm.id, key.fingerprint, good))
        return good

    async def _may_come(self, tx: Tx, vm: VmRecord, account: str) -> bool:
        """Whether anything of the VM is open to the account now, if only what is to everybody."""
        now = self._now()
        return any(
            one.account in (account, EVERYBODY) and (one.until is None or one.until > now)
            for one in await openings_of(tx, vm) or ()
        )

    def _signs_for(self, key: SshKey, vm: VmRecord, vm_name: str, read: SignedToken) -> bool:
        """Whether the key may open this VM, and did sign for its very address."""
        namespace = signed_token.namespace_of(f"{vm_name}.{self._domain}")
        return _covers(key, vm) and read.is_signed_by(key.public_key, namespace=namespace)

    def _keep(self, one: _Signed) -> None:
        own = [at for at, other in self._shown.items() if other.token.account == one.token.account]
        for at in own[: max(0, len(own) - self._most_each + 1)]:
            del self._shown[at]
        self._shown[one.vm, one.token.hash] = one
        self._changed()

    def _wake(self, ends: Collection[float], now: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        if ends:
            seconds = max(0.0, min(ends) - now) + 0.05
            self._alarm = asyncio.get_running_loop().call_later(seconds, self._changed)


def _is_good(
    one: _Signed, keys: Mapping[str, SshKey], known: Mapping[str, VmRecord], now: float
) -> bool:
    """Whether it still is: signed for the name its VM has, by a key that its account has."""
    key, vm, token = keys.get(one.key), known.get(one.vm), one.token
    if key is None or vm is None or (key.account, vm.name) != (token.account, token.vm_name):
        return False
    return _covers(key, vm) and (token.until is None or token.until > now)


def _covers(key: SshKey, vm: VmRecord) -> bool:
    """A key that logs in as one user of a VM is not good for the VM's whole site."""
    return key.user is None and key.scope.covers(vm.id, vm.tags)
