"""Login codes, browser sessions and API tokens. Only SHA-256 of a secret is ever stored."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Row, delete, func, insert, or_, select, update

from atoll.domain.account import Account, Scope
from atoll.domain.vm_token import VmToken
from atoll.store.accounts import account_in
from atoll.store.engine import Tx
from atoll.store.schema import accounts, api_tokens, login_codes, sessions, vms


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """A browser that signed in."""

    hash: str
    account: Account
    created_at: float
    expires_at: float
    revoked_at: float | None
    user_agent: str
    source: str | None = None
    how: str | None = None
    last_seen_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """An API token; `cmds`, `vm` (an id) and `tag` limit it, None does not.

    One with a `key` stands for a token that this SSH key signed, and goes when the key goes.
    """

    hash: str
    account: str
    label: str
    cmds: tuple[str, ...] | None
    vm: str | None
    created_at: float
    expires_at: float | None
    last_used_at: float | None = None
    tag: str | None = None
    key: str | None = None

    @property
    def scope(self) -> Scope:
        """What it opens."""
        cmds = None if self.cmds is None else frozenset(self.cmds)
        return Scope(cmds=cmds, vm=self.vm, tag=self.tag)


async def add_code(tx: Tx, *, hash_: str, account: str, expires_at: float) -> None:
    """Store a login code."""
    await tx.execute(insert(login_codes).values(hash=hash_, account=account, expires_at=expires_at))


async def use_code(tx: Tx, hash_: str, *, now: float) -> Account | None:
    """Mark an unused code in its time as used and return its account; at most once per code."""
    taken = await tx.execute(
        update(login_codes)
        .where(login_codes.c.hash == hash_)
        .where(login_codes.c.used_at.is_(None), login_codes.c.expires_at > now)
        .values(used_at=now)
        .returning(login_codes.c.account)
    )
    account = taken.scalar_one_or_none()
    if account is None:
        return None
    return account_in((await tx.execute(select(accounts).where(accounts.c.id == account))).one())


async def codes_of(tx: Tx, account: str) -> frozenset[str]:
    """Hashes of an account's login codes."""
    query = select(login_codes.c.hash).where(login_codes.c.account == account)
    return frozenset((await tx.execute(query)).scalars())


async def add_session(
    tx: Tx,
    *,
    hash_: str,
    account: str,
    now: float,
    expires_at: float,
    user_agent: str,
    source: str | None = None,
    how: str | None = None,
) -> None:
    """Store a new session."""
    await tx.execute(
        insert(sessions).values(
            hash=hash_,
            account=account,
            created_at=now,
            expires_at=expires_at,
            user_agent=user_agent,
            source=source,
            how=how,
            last_seen_at=now,
        )
    )


async def session(tx: Tx, hash_: str) -> SessionRow | None:
    """The session with this hash, revoked or not."""
    query = select(accounts, sessions).join_from(sessions, accounts)
    row = (await tx.execute(query.where(sessions.c.hash == hash_))).one_or_none()
    return _session(row) if row else None


async def sessions_of(tx: Tx, account: str, *, now: float) -> tuple[SessionRow, ...]:
    """The live sessions of an account, the one seen last first."""
    query = (
        select(accounts, sessions)
        .join_from(sessions, accounts)
        .where(sessions.c.account == account)
        .where(sessions.c.revoked_at.is_(None), sessions.c.expires_at > now)
    )
    latest = func.coalesce(sessions.c.last_seen_at, sessions.c.created_at)
    rows = await tx.execute(query.order_by(latest.desc(), sessions.c.hash))
    return tuple(_session(row) for row in rows)


async def revoked_of(tx: Tx, account: str) -> frozenset[str]:
    """Hashes of an account's revoked sessions."""
    query = select(sessions.c.hash).where(sessions.c.account == account)
    return frozenset((await tx.execute(query.where(sessions.c.revoked_at.is_not(None)))).scalars())


async def session_seen(tx: Tx, hash_: str, *, now: float, source: str) -> None:
    """Note when and where a session was last seen."""
    seen = {"last_seen_at": now, "source": source}
    await tx.execute(update(sessions).where(sessions.c.hash == hash_).values(seen))


async def revoke_some(tx: Tx, hashes: Collection[str], *, now: float) -> None:
    """Revoke these sessions."""
    await tx.execute(update(sessions).where(sessions.c.hash.in_(hashes)).values(revoked_at=now))


async def account_of(tx: Tx, prefix: str) -> Account | None:
    """Whose session that is not revoked has a hash that begins so."""
    query = select(accounts).join_from(sessions, accounts).where(sessions.c.revoked_at.is_(None))
    starts = sessions.c.hash.startswith(prefix, autoescape=True)
    row = (await tx.execute(query.where(starts).limit(1))).one_or_none()
    return None if row is None else account_in(row)


async def revoke(tx: Tx, *, now: float, prefix: str = "", account: str = "") -> int:
    """Revoke the live sessions whose hash begins with `prefix`, or all of an account.

    Returns how many. One of the two must be given.
    """
    assert prefix or account
    query = update(sessions).where(sessions.c.revoked_at.is_(None)).values(revoked_at=now)
    if prefix:
        query = query.where(sessions.c.hash.startswith(prefix, autoescape=True))
    if account:
        query = query.where(sessions.c.account == account)
    return (await tx.execute(query)).rowcount


async def revoked_since(tx: Tx, since: float) -> dict[str, str]:
    """Session hash -> account of the sessions revoked after `since`."""
    query = select(sessions.c.hash, sessions.c.account).where(sessions.c.revoked_at > since)
    return {row.hash: row.account for row in await tx.execute(query)}


async def forget_old(tx: Tx, *, codes_before: float, sessions_before: float) -> None:
    """Delete codes and sessions that ended before these times."""
    await tx.execute(delete(login_codes).where(login_codes.c.expires_at < codes_before))
    ended = or_(sessions.c.revoked_at < sessions_before, sessions.c.expires_at < sessions_before)
    await tx.execute(delete(sessions).where(ended))


async def add_token(tx: Tx, token: TokenRow) -> None:
    """Store a new API token; the caller has checked that the label is free."""
    values = {column.name: getattr(token, column.name) for column in api_tokens.c}
    values["cmds"] = None if token.cmds is None else list(token.cmds)
    await tx.execute(insert(api_tokens).values(values))


async def token(tx: Tx, hash_: str) -> tuple[Account, TokenRow] | None:
    """The token with this hash and its account, expired or not."""
    query = select(accounts, api_tokens).join_from(api_tokens, accounts)
    row = (await tx.execute(query.where(api_tokens.c.hash == hash_))).one_or_none()
    return (account_in(row), _token(row)) if row else None


async def tokens_of(tx: Tx, account: str) -> tuple[TokenRow, ...]:
    """All tokens of an account, oldest first."""
    query = select(api_tokens).where(api_tokens.c.account == account)
    rows = await tx.execute(query.order_by(api_tokens.c.created_at, api_tokens.c.hash))
    return tuple(_token(row) for row in rows)


async def vm_tokens(tx: Tx, *, now: float) -> tuple[VmToken, ...]:
    """The tokens in time that are good for one VM and stand for themselves, of VMs with a name."""
    query = (
        select(
            vms.c.name, api_tokens.c.hash, accounts.c.id, accounts.c.email, api_tokens.c.expires_at
        )
        .join_from(api_tokens, vms)
        .join(accounts, accounts.c.id == api_tokens.c.account)
        .where(api_tokens.c.key.is_(None), vms.c.name.is_not(None))
        .where(or_(api_tokens.c.expires_at.is_(None), api_tokens.c.expires_at > now))
        .order_by(api_tokens.c.hash)
    )
    return tuple(
        VmToken(vm_name=name, hash=hash_, account=account, email=email, until=until)
        for name, hash_, account, email, until in await tx.execute(query)
    )


async def token_used(tx: Tx, hash_: str, *, now: float) -> None:
    """Note when a token was last used."""
    await tx.execute(update(api_tokens).where(api_tokens.c.hash == hash_).values(last_used_at=now))


async def rename_token(tx: Tx, hash_: str, label: str) -> None:
    """Call a token something else; the caller has checked that the label is free."""
    await tx.execute(update(api_tokens).where(api_tokens.c.hash == hash_).values(label=label))


async def remove_token(tx: Tx, *, account: str, label: str) -> bool:
    """Forget a token by its label; False when there is none."""
    query = delete(api_tokens).where(api_tokens.c.account == account, api_tokens.c.label == label)
    return (await tx.execute(query)).rowcount > 0


def _session(row: Row[tuple[object, ...]]) -> SessionRow:
    found = row._mapping
    return SessionRow(
        hash=found[sessions.c.hash],
        account=account_in(row),
        created_at=found[sessions.c.created_at],
        expires_at=found[sessions.c.expires_at],
        revoked_at=found[sessions.c.revoked_at],
        user_agent=found[sessions.c.user_agent],
        source=found[sessions.c.source],
        how=found[sessions.c.how],
        last_seen_at=found[sessions.c.last_seen_at],
    )


def _token(row: Row[tuple[object, ...]]) -> TokenRow:
    found = row._mapping
    values = {column.name: found[column] for column in api_tokens.c}
    values["cmds"] = None if values["cmds"] is None else tuple(values["cmds"])
    return TokenRow(**values)
