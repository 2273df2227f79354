"""API tokens: those the cloud keeps (256 random bits, stored as their hash) and those users sign.

Invariant: a token opens no more than its row says, or its key and the signed permission together,
and nothing once the row or the key is gone, or the time over.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from atoll.base.errors import Conflict, Denied, Invalid
from atoll.base.secret import hashed, new_secret
from atoll.domain.account import Account, Caller, Door, Scope
from atoll.services import signed_token
from atoll.services.signed_token import SignedToken
from atoll.store import accounts
from atoll.store import sessions as rows
from atoll.store.accounts import SshKey
from atoll.store.engine import Store

_USED_EVERY_S = 60.0  # how exact `last_used_at` is: not a write per request
_TOKEN = re.compile(r"atoll1\.[A-Za-z0-9_-]{43}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiToken:
    """What may be shown of an API token."""

    label: str
    cmds: tuple[str, ...] | None
    vm: str | None
    tag: str | None
    key: str | None
    created_at: float
    expires_at: float | None
    last_used_at: float | None
    fingerprint: str


class Tokens:
    """Makes, lists, removes and recognises API tokens."""

    def __init__(
        self,
        *,
        store: Store,
        domain: str,
        changed: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`changed` is called when there is another token, or one less."""
        self.namespace = signed_token.namespace_of(domain)
        self._store = store
        self._now = now
        self._changed = changed
        self._ends: list[Callable[[str], None]] = []

    def when_token_ends(self, tell: Callable[[str], None]) -> None:
        """Call `tell` with the fingerprint of every token that is removed from now on."""
        self._ends.append(tell)

    async def new(
        self,
        account: Account,
        label: str = "",
        cmds: Sequence[str] | None = None,
        *,
        vm: str | None = None,
        tag: str | None = None,
        expires_at: float | None = None,
    ) -> tuple[ApiToken, str]:
        """Make a token; returns what may be shown of it, and the token itself, once.

        `vm` is a VM id. Raises Invalid for a bad label or a time in the past, Conflict for a label
        in use.
        """
        if expires_at is not None and expires_at <= self._now():
            raise Invalid("the token would have ended already", hint="Try: --exp 30d")
        scope = Scope(cmds=None if cmds is None else frozenset(cmds), vm=vm, tag=tag)
        return await self._keep(account, label, scope, expires_at=expires_at)

    async def shorten(self, caller: Caller, signed: str, label: str = "") -> tuple[ApiToken, str]:
        """A token that stands for one the caller's account signed, and ends with it and its key.

        Raises Denied when that one is not good, or not of this account.
        """
        account, key, read = await self._verified(signed)
        if account.id != caller.account.id:
            raise self._nobodys()
        scope = replace(key.scope, cmds=frozenset(read.permission.cmds))
        expires_at = read.permission.expires_at
        return await self._keep(account, label, scope, key=key.fingerprint, expires_at=expires_at)

    async def _keep(
        self,
        account: Account,
        label: str,
        scope: Scope,
        *,
        key: str | None = None,
        expires_at: float | None,
    ) -> tuple[ApiToken, str]:
        token = f"atoll1.{new_secret()}"
        label = label or f"api-{secrets.token_hex(3)}"
        row = rows.TokenRow(
            hash=hashed(token),
            account=account.id,
            label=label,
            cmds=None if scope.cmds is None else tuple(sorted(scope.cmds)),
            vm=scope.vm,
            tag=scope.tag,
            key=key,
            created_at=self._now(),
            expires_at=expires_at,
        )
        async with self._store.begin() as tx:
            _check_label(label, {other.label for other in await rows.tokens_of(tx, account.id)})
            await rows.add_token(tx, row)
        self._changed()
        return _shown(row), token

    async def of(self, account: Account) -> tuple[ApiToken, ...]:
        """The account's tokens, oldest first."""
        async with self._store.read() as tx:
            return tuple(_shown(row) for row in await rows.tokens_of(tx, account.id))

    async def remove(self, account: Account, label: str) -> bool:
        """Forget a token; False when the account has none of this label."""
        async with self._store.begin() as tx:
            owned = await rows.tokens_of(tx, account.id)
            found = next((row for row in owned if row.label == label), None)
            if found is None:
                return False
            await rows.remove_token(tx, account=account.id, label=label)
        self._changed()
        self.ended(found)
        return True

    def ended(self, token: rows.TokenRow) -> None:
        """Tell those who asked that a token is gone; its removal has committed."""
        for tell in self._ends:
            tell(fingerprint(token.hash))

    async def rename(self, account: Account, old: str, new: str) -> bool:
        """Give a token another label; False when the account has none of this one.

        Raises Invalid for a bad label, Conflict for one in use.
        """
        async with self._store.begin() as tx:
            labels = {row.label: row for row in await rows.tokens_of(tx, account.id)}
            found = labels.pop(old, None)
            if found is None:
                return False
            _check_label(new, set(labels))
            await rows.rename_token(tx, found.hash, new)
            return True

    async def caller_for_token(self, token: str, source: str) -> Caller | None:
        """Who calls with this token, limited to its scope; None when it is unknown or over.

        Raises Denied saying why not for a token that its holder signed.
        """
        if signed_token.is_signed(token):
            return await self._signer(token, source)
        if not _TOKEN.fullmatch(token):
            return None
        hash_, now = hashed(token), self._now()
        async with self._store.read() as tx:
            found = await rows.token(tx, hash_)
            signer = await accounts.by_key(tx, found[1].key) if found and found[1].key else None
        if found is None:
            return None
        account, row = found
        scope = row.scope if signer is None else replace(signer[1].scope, cmds=row.scope.cmds)
        if row.expires_at is not None and row.expires_at <= now:
            return None
        if row.last_used_at is None or now - row.last_used_at > _USED_EVERY_S:
            async with self._store.begin() as tx:
                await rows.token_used(tx, hash_, now=now)
        return Caller(
            account=account,
            door=Door.EXEC,
            key_fingerprint=row.key,
            source=source,
            scope=scope,
            token=fingerprint(hash_),
            good_for_s=_left(row.expires_at, now),
        )

    async def _signer(self, token: str, source: str) -> Caller:
        account, key, read = await self._verified(token)
        return Caller(
            account=account,
            door=Door.EXEC,
            key_fingerprint=key.fingerprint,
            source=source,
            scope=replace(key.scope, cmds=frozenset(read.permission.cmds)),
            good_for_s=_left(read.permission.expires_at, self._now()),
        )

    async def _verified(self, token: str) -> tuple[Account, SshKey, SignedToken]:
        read = signed_token.read(token, now=self._now())
        async with self._store.read() as tx:
            found = await accounts.by_key(tx, read.signature.fingerprint)
        # The key first: a signature by a stranger's key costs a look-up, no arithmetic.
        if found is None or not read.is_signed_by(found[1].public_key, namespace=self.namespace):
            raise self._nobodys()
        return *found, read

    def _nobodys(self) -> Denied:
        return Denied(
            f"no key here signed this token for {self.namespace}",
            hint=f"Try: ssh-keygen -Y sign -n {self.namespace}, with a key of: ssh-key list",
        )


def _shown(row: rows.TokenRow) -> ApiToken:
    return ApiToken(
        label=row.label,
        cmds=row.cmds,
        vm=row.vm,
        tag=row.tag,
        key=row.key,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        fingerprint=fingerprint(row.hash),
    )


def _check_label(label: str, taken: set[str]) -> None:
    if not _LABEL.fullmatch(label):
        raise Invalid(
            f"{label[:40]!r} is not a label", hint="Try: letters, digits, '.', '_' or '-'"
        )
    if label in taken:
        raise Conflict(f"there is a token {label!r} already", hint=f"Try: {label[:60]}-2")


def fingerprint(hash_: str) -> str:
    """How an API token is named in lists and events: `api:` and 12 hex digits of its hash."""
    return f"api:{hash_[:12]}"


def _left(expires_at: float | None, now: float) -> float | None:
    return None if expires_at is None else max(0.0, expires_at - now)
