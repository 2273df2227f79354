"""Idempotency keys: a changing call is run once, and asking again gets the answer of the first time.

Invariant: a call is written down before it is run, and its answer before it is sent. So the same key
never acts twice: while the first call runs it is a Conflict, and one that broke off with our process is
said to have an unknown outcome. Keys are each credential's own. Answers are sealed, for some hold a
secret that is shown once, and the store's file must give none away.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from atoll.base import ids
from atoll.base.errors import Conflict, Exhausted, Invalid
from atoll.domain.account import Caller
from atoll.store import answers as rows
from atoll.store.answers import AnswerRow
from atoll.store.engine import Store

KEPT_S = 86_400.0  # long enough for a client's last try, and for its operator's the next morning
MAX_KEYS = 10_000  # per account
_NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class Answer:
    """What the first call was answered."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """The right and duty to run a call; ends with `keep`, `release` or `break_off`."""

    id: str


class Answers:
    """Keeps answers. `key` is a secret of 32 bytes that the store does not have."""

    def __init__(self, *, store: Store, key: bytes, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._seal = AESGCM(hmac.digest(key, b"answers by idempotency key", hashlib.sha256))
        self._now = now
        self._run = ids.new("run")
        self._running: set[str] = set()  # claims of this life that have not ended

    async def claim(self, caller: Caller, key: str, line: str) -> Claim | Answer:
        """The answer to this call if it was made before, else the claim to make it now.

        Raises Invalid for a key that was used for another line, Conflict while the first call runs
        or when its outcome is unknown, Exhausted when the account has too many.
        """
        now, account = self._now(), caller.account.id
        row = AnswerRow(
            id=_hash(caller.account.id, caller.credential, key),
            account=account,
            line=_hash(line),
            run=self._run,
            created_at=now,
            expires_at=now + KEPT_S,
        )
        async with self._store.begin() as tx:
            await rows.forget_old(tx, now=now)
            first = await rows.get(tx, row.id)
            if first is not None:
                return self._answer(first, row)
            if await rows.count(tx, account) >= MAX_KEYS:
                raise Exhausted(
                    f"{MAX_KEYS} idempotency keys of the last {KEPT_S / 3600:g} h are the most",
                    hint="Use keys for calls that matter",
                )
            await rows.add(tx, row)
            self._running.add(row.id)
        return Claim(row.id)

    async def keep(self, claim: Claim, answer: Answer) -> None:
        """The call has ended so."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._seal.encrypt(nonce, answer.body, claim.id.encode())
        self._running.discard(claim.id)  # also when it cannot be kept: nobody else will end it
        async with self._store.begin() as tx:
            await rows.finish(tx, claim.id, status=answer.status, body=sealed)

    async def release(self, claim: Claim) -> None:
        """Nothing was run: the key may be used again."""
        self._running.discard(claim.id)
        async with self._store.begin() as tx:
            await rows.remove(tx, claim.id)

    def break_off(self, claim: Claim) -> None:
        """The call ended without an answer, and nobody knows what it did."""
        self._running.discard(claim.id)

    def _answer(self, first: AnswerRow, again: AnswerRow) -> Answer:
        if first.line != again.line:
            raise Invalid(
                "this idempotency key was used for another line",
                hint="Use a new key for a new call",
            )
        if first.status is not None and first.body is not None:
            return Answer(first.status, self._opened(first.id, first.body))
        if first.id in self._running:
            raise Conflict("the first call with this key is still running", hint="Try again in 1 s")
        raise Conflict(
            "the first call with this key broke off; its outcome is unknown, and nothing was done now",
            hint="Try: ls, to see what happened, then a new key",
        )

    def _opened(self, id_: str, body: bytes) -> bytes:
        try:
            return self._seal.decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], id_.encode())
        except InvalidTag as error:
            raise Conflict(
                "the first call with this key has ended, but its answer cannot be read: the cloud has"
                " another key since, or the store is damaged",
                hint="Try: ls, to see what happened, then a new key",
            ) from error


def _hash(*parts: str) -> str:
    whole = b"".join(hashlib.sha256(part.encode()).digest() for part in parts)
    return hashlib.sha256(whole).hexdigest()
