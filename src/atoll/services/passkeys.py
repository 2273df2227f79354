"""Passkeys (WebAuthn): made in a browser that is signed in, and good to sign in with afterwards.

Invariants: a challenge is 32 random bytes, kept here, used once within five minutes, by the browser that
got it and for the purpose it was made for. Signing in names no account beforehand: the authenticator
says whose passkey it is, so there is nothing to find out by asking. The origin is compared with its port,
for a page of a VM may ask for passkeys of the cloud's domain as well.
"""

from __future__ import annotations

import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import webauthn
from webauthn.helpers import bytes_to_base64url, parse_authentication_credential_json
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from atoll.base import log
from atoll.base.errors import Conflict, Denied, Exhausted, Invalid, NotFound
from atoll.base.limits import Limits
from atoll.base.secret import hashed, new_secret
from atoll.base.source import count_try
from atoll.domain.account import Account
from atoll.domain.web import Names
from atoll.store import passkeys
from atoll.store.engine import Store
from atoll.store.passkeys import Passkey

CHALLENGE_S = 300.0
MAX_PASSKEYS = 50
_CHALLENGES = 10_000  # the oldest go: their browser asks for another
_CREDENTIAL_CHARS = 32_768
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._+-]{0,63}")
_AGAIN = "Try it once more"

_log = log.get("passkeys")


@dataclass(frozen=True, slots=True)
class _Challenge:
    value: bytes
    account: str  # who makes a passkey; empty: somebody signs in
    expires_at: float


class Passkeys:
    """Makes, recognises, lists and removes them."""

    def __init__(self, *, store: Store, names: Names, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._domain = names.domain
        self._origin = f"https://{names.authority(names.domain)}"
        self._now = now
        self._per_source = Limits(burst=30.0, per_second=0.2, monotonic=now)
        self._challenges: OrderedDict[str, _Challenge] = OrderedDict()

    async def of(self, account: Account) -> tuple[Passkey, ...]:
        """An account's, oldest first."""
        async with self._store.read() as tx:
            return await passkeys.of(tx, account.id)

    async def remove(self, account: Account, name: str) -> None:
        """Forget one; an SSH key always leads back. Raises NotFound."""
        async with self._store.begin() as tx:
            found = [key for key in await passkeys.of(tx, account.id) if key.name == name]
            if not found:
                raise NotFound(f"passkey {name[:60]!r} not found", hint="Try: passkey ls")
            await passkeys.remove(tx, found[0].id)

    # -- making one --------------------------------------------------------------------------

    async def offer(self, account: Account) -> tuple[str, str]:
        """What the browser of somebody signed in makes a passkey of (JSON), and its cookie's secret."""
        own = await self.of(account)
        challenge, browser = self._challenge(account.id)
        options = webauthn.generate_registration_options(
            rp_id=self._domain,
            rp_name=f"Atoll {self._domain}",
            user_name=account.email,
            user_id=account.id.encode(),
            challenge=challenge,
            timeout=int(CHALLENGE_S * 1000),
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED,
                user_verification=UserVerificationRequirement.PREFERRED,
            ),
            exclude_credentials=[
                PublicKeyCredentialDescriptor(id=webauthn.base64url_to_bytes(key.id)) for key in own
            ],
        )
        return webauthn.options_to_json(options), browser

    async def add(self, account: Account, credential: str, *, browser: str, name: str) -> Passkey:
        """Keep what the browser made of an offer.

        Raises Denied (the offer is over, or not this one's), Invalid, Conflict, Exhausted.
        """
        challenge = self._taken(browser, account.id)
        try:
            made = webauthn.verify_registration_response(
                credential=_bounded(credential),
                expected_challenge=challenge,
                expected_rp_id=self._domain,
                expected_origin=self._origin,
            )
        except Exception as error:  # a parser of hostile input: whatever it raises is a no
            raise self._refusal(error) from error
        id_ = bytes_to_base64url(made.credential_id)
        async with self._store.begin() as tx:
            if await passkeys.find(tx, id_) is not None:
                raise Conflict("this passkey is here already", hint="See: passkey ls")
            own = await passkeys.of(tx, account.id)
            if len(own) >= MAX_PASSKEYS:
                raise Exhausted(f"{len(own)} passkeys are the most", hint="Try: passkey rm <name>")
            added = Passkey(
                id=id_,
                account=account.id,
                name=_named(name, {key.name for key in own}),
                public_key=made.credential_public_key,
                sign_count=made.sign_count,
                created_at=self._now(),
            )
            await passkeys.add(tx, added)
        return added

    # -- signing in --------------------------------------------------------------------------

    def question(self, *, source: str) -> tuple[str, str]:
        """What a browser asks its passkeys (JSON), and its cookie's secret.

        Raises Exhausted when one source asks too often: challenges take room.
        """
        count_try(self._per_source, source)
        challenge, browser = self._challenge("")
        options = webauthn.generate_authentication_options(
            rp_id=self._domain,
            challenge=challenge,
            timeout=int(CHALLENGE_S * 1000),
            user_verification=UserVerificationRequirement.PREFERRED,
        )
        return webauthn.options_to_json(options), browser

    async def account(self, credential: str, *, browser: str) -> Account:
        """Who answered the question. Raises Denied, in the same words for whatever is wrong."""
        challenge, now = self._taken(browser, ""), self._now()
        try:
            answer = parse_authentication_credential_json(_bounded(credential))
            id_ = bytes_to_base64url(answer.raw_id)
        except Exception as error:
            raise self._refusal(error) from error
        async with self._store.begin() as tx:
            found = await passkeys.find(tx, id_)
            if found is None:
                raise self._refusal(LookupError("unknown"))
            account, key = found
            try:
                seen = webauthn.verify_authentication_response(
                    credential=answer,
                    expected_challenge=challenge,
                    expected_rp_id=self._domain,
                    expected_origin=self._origin,
                    credential_public_key=key.public_key,
                    credential_current_sign_count=key.sign_count,
                )
            except Exception as error:
                raise self._refusal(error) from error
            if answer.response.user_handle not in (None, account.id.encode()):
                raise self._refusal(LookupError("another account's"))
            if not await passkeys.used(tx, key, sign_count=seen.new_sign_count, now=now):
                raise self._refusal(LookupError("counted by another use meanwhile"))
        return account

    def _challenge(self, account: str) -> tuple[bytes, str]:
        value, browser = secrets.token_bytes(32), new_secret()
        self._challenges[hashed(browser)] = _Challenge(value, account, self._now() + CHALLENGE_S)
        while len(self._challenges) > _CHALLENGES:
            self._challenges.popitem(last=False)
        return value, browser

    def _taken(self, browser: str, account: str) -> bytes:
        found = self._challenges.pop(hashed(browser), None)
        if found is None or found.account != account or found.expires_at <= self._now():
            raise Denied("this took too long, or was begun elsewhere", hint=_AGAIN)
        return found.value

    def _refusal(self, error: Exception) -> Denied:
        _log.warning("passkey refused", reason=f"{type(error).__name__}: {str(error)[:200]}")
        return Denied("this passkey is not good here", hint="Sign in another way; see: passkey ls")


def _bounded(credential: str) -> str:
    if len(credential) > _CREDENTIAL_CHARS:
        raise ValueError(f"{len(credential)} characters")
    return credential


def _named(wish: str, taken: set[str]) -> str:
    """The name asked for, else `passkey-1`, `passkey-2`, …"""
    if not wish:
        names = (f"passkey-{number}" for number in range(1, MAX_PASSKEYS + 2))
        return next(name for name in names if name not in taken)
    if not _NAME.fullmatch(wish):
        raise Invalid(f"{wish[:60]!r} cannot name a passkey", hint="Try a name like laptop")
    if wish in taken:
        raise Conflict(f"you have a passkey named {wish!r}", hint="Try another name")
    return wish
