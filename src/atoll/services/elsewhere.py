"""Asks another OpenID provider who somebody is: authorization code with PKCE, state and nonce.

All three come from one random secret that the browser keeps in a cookie, so nothing is stored here, an
answer counts only in the browser that asked, and an answer of one provider is none of another's.
What a provider says of itself is asked again each hour; its keys also when a token names a new one.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from atoll.base.errors import AtollError, Denied, Unavailable
from atoll.base.fetch import Fetcher
from atoll.base.secret import base64url
from atoll.config import Provider as Settings
from atoll.services.id_token import UnknownKey, verify

_KEEP_S = 3600.0
_AGAIN_S = 10.0  # after a failure; meanwhile whoever asks hears of it at once
_KEYS_S = 60.0  # between two looks for new keys
_FORM = {"content-type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody at a provider. `email` is one that it has checked; None when there is none such."""

    provider: str  # as people call it
    issuer: str
    subject: str
    email: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What a provider says of itself."""

    authorize: str
    token: str
    keys: str
    auth_method: str
    names_itself: bool  # in its answers, RFC 9207
    until: float


class Elsewhere:
    """One provider; `redirect_uri` is where its answers come in."""

    def __init__(
        self,
        *,
        settings: Settings,
        redirect_uri: str,
        fetcher: Fetcher,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.name = settings.name
        self.label = settings.label or settings.name.capitalize()
        self._settings = settings
        self._redirect_uri = redirect_uri
        self._fetcher = fetcher
        self._now = now
        self._lock = asyncio.Lock()
        self._known: _Known | None = None
        self._failed: tuple[float, AtollError] | None = None
        self._jwks: tuple[float, Mapping[str, Any]] | None = None

    async def begin(self, secret: str) -> str:
        """Where to send a browser that keeps `secret`. Raises Unavailable."""
        known = await self._metadata()
        url: str = prepare_grant_uri(
            known.authorize,
            client_id=self._settings.client_id,
            response_type="code",
            redirect_uri=self._redirect_uri,
            scope=" ".join(self._settings.scopes),
            state=self._derived("state", secret),
            nonce=self._derived("nonce", secret),
            code_challenge=create_s256_code_challenge(self._derived("verifier", secret)),
            code_challenge_method="S256",
        )
        return url

    async def finish(self, secret: str, answer: Mapping[str, str]) -> Person:
        """Who it is, by the answer in a browser that keeps `secret`. Raises Denied or Unavailable."""
        said = answer.get("state", "").encode()
        if not hmac.compare_digest(said, self._derived("state", secret).encode()):
            raise Denied("this sign-in was not begun here", hint="Begin again: /login")
        if "error" in answer:
            raise self._refusal(answer)
        known = await self._metadata()
        issuer = answer.get("iss")
        if issuer != self._settings.issuer and (issuer is not None or known.names_itself):
            raise Denied(f"the answer is not {self.label}'s", hint="Begin again: /login")
        token = await self._traded(known, answer.get("code", ""), secret)
        claims = await self._verified(known, token, self._derived("nonce", secret))
        return Person(
            provider=self.label,
            issuer=self._settings.issuer,
            subject=claims["sub"],
            email=_checked_email(claims),
        )

    async def _traded(self, known: _Known, code: str, secret: str) -> str:
        """The ID token for a code."""
        if not code:
            raise Denied(f"{self.label} answered without a code")
        body = prepare_token_request(
            "authorization_code",
            redirect_uri=self._redirect_uri,
            code=code,
            code_verifier=self._derived("verifier", secret),
        )
        client = ClientAuth(self._settings.client_id, self._secret(), known.auth_method)
        url, headers, body = client.prepare("POST", known.token, dict(_FORM), body)
        status, said = await self._fetcher.json("POST", url, body=body, headers=headers)
        if status != 200:
            raise self._refusal(said)
        token = said.get("id_token")
        if not isinstance(token, str):
            raise Denied(f"{self.label} gave no ID token", hint="Is openid among its scopes?")
        return token

    async def _verified(self, known: _Known, token: str, nonce: str) -> dict[str, Any]:
        keys = await self._keys(known, _KEEP_S)
        try:
            try:
                return self._claims(token, keys, nonce)
            except UnknownKey:
                return self._claims(token, await self._keys(known, _KEYS_S), nonce)
        except Denied as error:
            raise Denied(f"{self.label}: {error.message}", hint="Begin again: /login") from error

    def _claims(self, token: str, keys: Mapping[str, Any], nonce: str) -> dict[str, Any]:
        return verify(
            token,
            keys,
            issuer=self._settings.issuer,
            client_id=self._settings.client_id,
            nonce=nonce,
            now=self._now(),
        )

    async def _keys(self, known: _Known, seconds: float) -> Mapping[str, Any]:
        """Its keys, asked for anew when what is here is older than that."""
        async with self._lock:
            if self._jwks is None or not 0 <= self._now() - self._jwks[0] < seconds:
                status, found = await self._fetcher.json("GET", known.keys)
                if status != 200:
                    raise Unavailable(f"{self.label} does not give its keys: it answered {status}")
                self._jwks = self._now(), found
            return self._jwks[1]

    async def _metadata(self) -> _Known:
        async with self._lock:
            now = self._now()
            if self._known is not None and self._known.until - _KEEP_S <= now < self._known.until:
                return self._known
            if self._failed is not None and 0 <= now - self._failed[0] < _AGAIN_S:
                raise Unavailable(self._failed[1].message, hint=self._failed[1].hint)
            try:
                self._known = await self._discovered()
            except AtollError as error:
                self._failed = self._now(), error
                raise
            return self._known

    async def _discovered(self) -> _Known:
        """OpenID Connect Discovery 1.0; what it says must be of this very issuer."""
        issuer = self._settings.issuer
        url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        status, found = await self._fetcher.json("GET", url)
        if status != 200 or found.get("issuer") != issuer:
            said = f"it answered {status}, issuer {str(found.get('issuer'))[:100]!r}"
            raise Unavailable(
                f"{self.label} is not set up right: {said}, not {issuer!r}",
                hint=f"The owner of this cloud mends oidc.providers, {self.name}: issuer",
            )
        return _Known(
            authorize=self._endpoint(found, "authorization_endpoint"),
            token=self._endpoint(found, "token_endpoint"),
            keys=self._endpoint(found, "jwks_uri"),
            auth_method=self._auth_method(found),
            names_itself=found.get("authorization_response_iss_parameter_supported") is True,
            until=self._now() + _KEEP_S,
        )

    def _endpoint(self, found: Mapping[str, Any], name: str) -> str:
        url = found.get(name)
        if not isinstance(url, str) or not _is_https(url):
            raise Unavailable(f"{self.label} is not set up right: its {name} is no https URL")
        return url

    def _auth_method(self, found: Mapping[str, Any]) -> str:
        if self._settings.client_secret_file is None:
            return "none"
        methods = found.get("token_endpoint_auth_methods_supported")
        is_post = isinstance(methods, list) and "client_secret_basic" not in methods
        return "client_secret_post" if is_post else "client_secret_basic"

    def _secret(self) -> str:
        """Read at each use, so that a new one needs no restart."""
        path = self._settings.client_secret_file
        try:
            return "" if path is None else path.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(
                f"{self.label} is not set up right: {path} cannot be read",
                hint="The owner of this cloud lets its user atoll read that file",
            ) from error

    def _derived(self, what: str, secret: str) -> str:
        message = f"{what} {self.name} {self._settings.issuer}".encode()
        digest = hmac.digest(secret.encode(), message, hashlib.sha256)
        return base64url(digest)

    def _refusal(self, said: Mapping[str, Any]) -> Denied:
        """What a provider says instead of an answer: text of a stranger's."""
        words = [str(said.get(name, "")) for name in ("error", "error_description")]
        text = ": ".join(word for word in words if word) or "it gave no reason"
        shown = "".join(char if char.isprintable() else " " for char in text[:300])
        return Denied(f"{self.label} said: {shown}", hint="Begin again: /login")


def _is_https(url: str) -> bool:
    try:
        return bool(re.fullmatch(r"https://[!-~]{1,2000}", url) and urlsplit(url).hostname)
    except ValueError:  # a bracket that is not closed
        return False


def _checked_email(claims: Mapping[str, Any]) -> str | None:
    """The address, when the provider says that it is checked: a word such as "true" does not."""
    email = claims.get("email")
    if claims.get("email_verified") is not True or not isinstance(email, str):
        return None
    # A letter of another alphabet can turn into an ASCII one when it is made small.
    return email.lower() if email.isascii() else None
