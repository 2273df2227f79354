"""Who is signed in: login codes, browser sessions, and the tokens HAProxy checks.

Invariants: a secret is stored as its hash only, so the store's file signs nobody in; a login code
and a handoff code work once; a token names one host, one account and one session, and dies with
the session (HAProxy's map of revoked sessions) or after TOKEN_S, whichever is first.
"""

from __future__ import annotations

import copy
import hmac
import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from atoll.base import log
from atoll.base.errors import Denied, Exhausted, Unavailable
from atoll.base.secret import hashed, is_secret, new_secret
from atoll.domain.account import Account
from atoll.domain.web import TOKEN_S, header_safe
from atoll.services.changes import Changes
from atoll.services.keyring import NAMELESS, KeyRing
from atoll.services.shelf import Shelf
from atoll.store import sessions as rows
from atoll.store.engine import Store

CODE_S = 600.0
HANDOFF_S = 60.0
SEEN_EVERY_S = 600.0
ID_CHARS = 12  # of a session's key, as people and records see it
_HANDOFFS_EACH = 50  # a browser opens that many tabs at once; its oldest make room
_AGAIN = "Try: ssh … browser"

_log = log.get("sessions")


def credential(key: str) -> str:
    """How a caller's records name the session with this key."""
    return f"web:{key[:ID_CHARS]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A live browser session. `id` is the secret in its cookie, `key` names it in tokens."""

    id: str
    key: str
    account: Account
    created_at: float  # when its person signed in
    expires_at: float
    last_seen_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Browser:
    """A live session as its account sees it; `key` names it and opens nothing."""

    key: str
    created_at: float
    expires_at: float
    last_seen_at: float | None
    user_agent: str
    source: str
    how: str


@dataclass(frozen=True, slots=True)
class _Handoff:
    session_id: str
    host: str
    way: str


class Sessions:
    """Signing in and out. `keys` sign the tokens; HAProxy has them too."""

    def __init__(
        self,
        *,
        store: Store,
        changes: Changes,
        keys: KeyRing,
        session_seconds: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._changes = changes
        self._keys = keys
        self._session_s = session_seconds
        self._now = now
        # Lost with the process: the browser is then sent round once more.
        self._handoffs: Shelf[_Handoff] = Shelf(each=_HANDOFFS_EACH, now=now)

    def upon(self, store: Store) -> Sessions:
        """The same, on another store: for a dry run."""
        twin = copy.copy(self)
        twin._store = store
        return twin

    # -- login codes -------------------------------------------------------------------------

    async def login_code(self, account_id: str, *, seconds: float = CODE_S) -> str:
        """A new one-time code that signs in as this account within `seconds`."""
        code, now = new_secret(), self._now()
        async with self._store.begin() as tx:
            await rows.forget_old(tx, codes_before=now, sessions_before=now - 2 * TOKEN_S)
            await rows.add_code(
                tx, hash_=hashed(code), account=account_id, expires_at=now + seconds
            )
        return code

    async def redeem(self, code: str) -> Account:
        """The account of a login code, once. Raises Denied when it is used, old or unknown."""
        account = None
        if is_secret(code):
            async with self._store.begin() as tx:
                account = await rows.use_code(tx, hashed(code), now=self._now())
        if account is None:
            raise Denied("this sign-in link was used, has ended or never was one", hint=_AGAIN)
        return account

    # -- browser sessions --------------------------------------------------------------------

    async def new_session(
        self, account_id: str, *, user_agent: str = "", source: str = "", how: str = ""
    ) -> str:
        """Sign a browser in; returns the id its cookie carries. `how`: link, mail, passkey, …"""
        session_id, now = new_secret(), self._now()
        async with self._store.begin() as tx:
            await rows.add_session(
                tx,
                hash_=hashed(session_id),
                account=account_id,
                now=now,
                expires_at=now + self._session_s,
                user_agent=user_agent[:200],
                source=source[:64],
                how=how[:64],
            )
        return session_id

    async def session(self, session_id: str) -> Session | None:
        """The live session with this id."""
        if not is_secret(session_id):
            return None
        async with self._store.read() as tx:
            row = await rows.session(tx, hashed(session_id))
        if row is None or row.revoked_at is not None or row.expires_at <= self._now():
            return None
        return Session(
            id=session_id,
            key=_key(row.hash),
            account=row.account,
            created_at=row.created_at,
            expires_at=row.expires_at,
            last_seen_at=row.last_seen_at,
        )

    async def seen(self, session: Session, *, source: str) -> None:
        """Note that its browser was here; not more exactly than SEEN_EVERY_S: not a write per request."""
        now = self._now()
        if session.last_seen_at is not None and abs(now - session.last_seen_at) < SEEN_EVERY_S:
            return
        try:
            async with self._store.begin() as tx:
                await rows.session_seen(tx, hashed(session.id), now=now, source=source[:64])
        except (Exhausted, Unavailable) as error:  # a full disk keeps nobody out
            _log.warning("session's use not noted", reason=error.message)

    async def of(self, account_id: str) -> tuple[Browser, ...]:
        """Where an account is signed in, the one seen last first."""
        async with self._store.read() as tx:
            found = await rows.sessions_of(tx, account_id, now=self._now())
        return tuple(_browser(row) for row in found)

    async def end(self, account_id: str, keys: Collection[str]) -> None:
        """Sign these of an account's browsers out, at once."""
        now = self._now()
        async with self._store.begin() as tx:
            found = await rows.sessions_of(tx, account_id, now=now)
            await rows.revoke_some(
                tx, [row.hash for row in found if _key(row.hash) in keys], now=now
            )
        self._changes.bump()

    async def account_for_session(self, session_id: str) -> Account | None:
        """Who is signed in with this session id."""
        found = await self.session(session_id)
        return found.account if found else None

    async def revoke(self, session_id: str) -> None:
        """Sign one browser out, everywhere and at once."""
        if is_secret(session_id):
            await self.revoke_key(key_of(session_id))

    async def revoke_key(self, key: str) -> None:
        """`revoke` by the session's public key, as a token carries it."""
        if re.fullmatch(r"[0-9a-f]{32}", key):
            await self._revoke(prefix=key)

    async def account_of_key(self, key: str) -> Account | None:
        """Whose live session has this public key."""
        if not re.fullmatch(r"[0-9a-f]{32}", key):
            return None
        async with self._store.read() as tx:
            return await rows.account_of(tx, key)

    async def revoke_account(self, account_id: str) -> None:
        """Sign every browser of an account out."""
        await self._revoke(account=account_id)

    async def _revoke(self, *, prefix: str = "", account: str = "") -> None:
        async with self._store.begin() as tx:
            count = await rows.revoke(tx, now=self._now(), prefix=prefix, account=account)
        if count:
            self._changes.bump()

    async def revoked(self) -> dict[str, str]:
        """Session key -> account id of revoked sessions whose tokens may still be in time."""
        async with self._store.read() as tx:
            found = await rows.revoked_since(tx, self._now() - TOKEN_S)
        return {_key(hash_): account for hash_, account in found.items()}

    # -- tokens for HAProxy ------------------------------------------------------------------

    def mint(
        self, *, host: str, account: Account, session_id: str, until: float | None = None
    ) -> str:
        """An HS256 JWT that opens `host` for this account, at most TOKEN_S and until `until`."""
        now = self._now()
        expires = min(now + TOKEN_S, until if until is not None else now + TOKEN_S)
        claims = {
            "aud": host,
            "sub": account.id,
            "email": header_safe(account.email),
            "sid": key_of(session_id),
            "iat": int(now),
            "exp": int(expires),
        }
        key = self._keys.signing
        header = {"alg": "HS256", "kid": key.kid}
        return jwt.encode(header, claims, OctKey.import_key(key.text), algorithms=["HS256"])

    def session_key_in(self, token: str, *, host: str) -> str | None:
        """The session key in a token of ours for `host`, also when its time is over."""
        try:
            kid = jws.extract_compact(token.encode()).headers().get("kid", NAMELESS)
            key = self._keys.get(kid)
            if key is None:
                return None
            claims = jwt.decode(token, OctKey.import_key(key.text), algorithms=["HS256"]).claims
        except (JoseError, ValueError):
            return None
        return str(claims.get("sid")) if claims.get("aud") == host else None

    # -- handoff from the cloud's host to a VM's ---------------------------------------------

    def handoff(self, session: Session, *, host: str, way: str) -> str:
        """A one-time code that moves a session to `host` within HANDOFF_S seconds.

        `way` is the secret that the browser has there: whoever is given a code of somebody else's to
        open would be signed in as them.
        """
        made = _Handoff(session.id, host, way)
        return self._handoffs.put(made, owner=session.id, seconds=HANDOFF_S)

    async def redeem_handoff(self, code: str, *, host: str, way: str) -> Session | None:
        """The session behind a handoff code made for this very host and browser, once."""
        found = self._handoffs.take(code)
        if found is None or found.host != host:
            return None
        if not (way and hmac.compare_digest(found.way.encode(), way.encode("utf-8", "replace"))):
            return None
        return await self.session(found.session_id)


def key_of(session_id: str) -> str:
    """What a session is called; see Session."""
    return _key(hashed(session_id))


def _browser(row: rows.SessionRow) -> Browser:
    return Browser(
        key=_key(row.hash),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_seen_at=row.last_seen_at,
        user_agent=row.user_agent,
        source=row.source or "",
        how=row.how or "",
    )


def _key(hash_: str) -> str:
    """What tokens and the map of revoked sessions call a session: it opens nothing by itself."""
    return hash_[:32]
